"""One module per command of the runtime layer: `add_arguments(parser)` and `run(args) -> exit code`."""
