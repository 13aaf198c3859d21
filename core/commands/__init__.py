"""One module per command of the core layer: `add_arguments(parser)` and `run(args) -> exit code`."""
