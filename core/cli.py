"""The command line: a table of commands, each imported only when it is asked for.

A command is a module with `add_arguments(parser)` and `run(args) -> exit code`. A command of two words, such as `bench
students`, is listed by the help of its first word, whose own module returns its sub-parsers from `add_arguments`; so a
layer can add to a command of a layer below it, which knows nothing of that. Exit codes: 0 done, 1 a job or a check
failed, 2 the call is wrong, 130 interrupted. Logs go to stderr, what a program reads (--json) to stdout.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import NoReturn

from .errors import INTERRUPTED, MissingExtraError, PocketPriorError, UnknownNameError, UsageError

__all__ = ["COMMANDS", "main"]

COMMANDS: dict[str, tuple[str, str, str]] = {  # module, summary, extra that `pip install` must add ("" for none)
    "restore": ("core.commands.restore", "restore photos", ""),
    "info": ("core.commands.info", "show a pack's manifest, or a model's size and cost", ""),
    "verify": ("core.commands.verify", "check the files of a pack and its golden restorations", ""),
    "parity": ("runtimes.commands.parity", "compare a pack with its PyTorch reference, graph by graph", "export"),
    "parity record": ("export.commands.record", "record the reference: what a checkpoint makes of photos", "export"),
    "bench": ("runtimes.commands.bench", "measure quality and speed", "bench"),
    "bench students": ("distill.commands.students", "compare few-step students with their teachers", "train"),
    "bench rewrite": ("export.commands.rewrite", "compare rewritten graphs with graphs as traced", "export,openvino"),
    "bench design": (
        "export.commands.design",
        "compare designs of the predictor: speed, size, quality",
        "export,openvino",
    ),
    "train": ("core.training.commands.train", "train a stage of a system", "train"),
    "evaluate": ("core.training.commands.evaluate", "measure the trained systems on held-back photos", "train"),
    "distill": ("distill.commands.distill", "make a few-step student of a trained model", "train"),
    "export": ("export.commands.export", "write a pack from checkpoints", "export"),
    "build": ("export.commands.build", "run the whole pipeline from one recipe file", "export,quantize,train"),
    "quantize": ("export.commands.quantize", "make a pack of fewer bits, under a budget on the image", "quantize"),
    "personalize": (
        "export.commands.personalize",
        "fine-tune on an album of one subject and export a pack",
        "export,train",
    ),
}


class _Parser(argparse.ArgumentParser):
    """Raises UsageError where argparse would print and leave."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; see '{self.prog} --help'")


class _Version(argparse.Action):
    """Looks the version up only when it is asked for: that takes as long as all the rest."""

    def __call__(self, *_: object) -> NoReturn:
        from importlib.metadata import version

        print(f"pocketprior {version('pocketprior')}")
        raise SystemExit(0)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code. argv: without the program's name, None for that of the process."""
    arguments = sys.argv[1:] if argv is None else list(argv)
    try:
        return _run(arguments)
    except PocketPriorError as error:
        print(f"pocketprior: error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("pocketprior: interrupted", file=sys.stderr)
        return INTERRUPTED
    except SystemExit as done:  # --help, --version
        return int(done.code or 0)


def _run(arguments: list[str]) -> int:
    first_words = [name for name in COMMANDS if " " not in name]
    two = " ".join(arguments[:2])
    name = two if two in COMMANDS else next(iter(arguments), "")
    if name and not name.startswith("-") and name not in COMMANDS:
        raise UnknownNameError("command", name, first_words)
    parser = _Parser(
        prog="pocketprior",
        description="Restore photos with a diffusion texture prior.",
        epilog="'pocketprior COMMAND --help' says more about a command.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and exit")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    parsers = {word: _add(commands.add_parser, word, COMMANDS[word][1]) for word in first_words}
    if name not in COMMANDS:
        parser.parse_args(arguments)  # exits with --help, --version or an error: a command is required
    module_name, summary, extra = COMMANDS[name]
    if "train" in extra:
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read when torch is imported: threads that wait must not
        os.environ.setdefault("KMP_BLOCKTIME", "0")  # spin next to the processes that draw data
    first, _, second = name.partition(" ")
    own = _add(parsers[first].add_subparsers().add_parser, second, summary) if second else parsers[first]
    try:
        module = import_module(f"..{module_name}", __package__)
        kinds = module.add_arguments(own)
        for added in COMMANDS:
            if added.startswith(f"{name} "):
                _add(kinds.add_parser, added.removeprefix(f"{name} "), COMMANDS[added][1])
        return int(module.run(parser.parse_args(arguments)))
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if not extra or package in ("", "pocketprior"):
            raise  # not an optional package: a bug, and it stays one
        if {"-h", "--help"} & set(arguments):
            own.epilog = f"To see the options, run: pip install 'pocketprior[{extra}]'"
            own.print_help()
            return 0
        raise MissingExtraError(package, extra, f"'pocketprior {name}'") from error


def _add(add_parser: Callable[..., argparse.ArgumentParser], name: str, summary: str) -> argparse.ArgumentParser:
    return add_parser(name, help=summary, description=f"{summary.capitalize()}.", allow_abbrev=False)
