"""The command line: a table of commands, each imported only when it runs.

A command is a module with `add_arguments(parser)` and `run(args) -> exit code`. Exit codes: 0 done, 1 a job or a check
failed, 2 the call is wrong, 130 interrupted. Logs go to stderr, output for programs (--json) to stdout.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import NoReturn

from .errors import INTERRUPTED, MissingExtraError, PocketPriorError, UnknownNameError, UsageError

__all__ = ["COMMANDS", "main"]

COMMANDS: dict[str, tuple[str, str]] = {
    "restore": ("core.commands.restore", "restore photos"),
    "info": ("core.commands.info", "say what a pack is, or what a model costs"),
    "verify": ("core.commands.verify", "check the files of a pack, and what it makes of its golden photos"),
    "parity": ("runtimes.commands.parity", "hold a pack against what was trained, and say where it differs"),
    "bench": ("runtimes.commands.bench", "measure quality and speed"),
    "train": ("core.training.commands.train", "train a stage of a system"),
    "evaluate": ("core.training.commands.evaluate", "measure the trained systems on held-back photos"),
    "distill": ("distill.commands.distill", "make a few-step student of a trained model"),
    "students": ("distill.commands.students", "compare few-step students with their teachers"),
    "export": ("export.commands.export", "write a pack from checkpoints"),
    "bench-rewrite": ("export.commands.rewrite", "measure what rewriting graphs for deployment is worth"),
    "bench-design": ("export.commands.design", "choose a predictor's design: speed, size and quality of candidates"),
    "build": ("export.commands.build", "run all of it by one recipe: train, distill, export, quantize, parity"),
    "quantize": ("export.commands.quantize", "make a pack of fewer bits, under a budget on the image"),
    "personalize": ("export.commands.personalize", "fine-tune on an album of one subject and export a pack"),
}
EXTRAS = {  # what `pip install` must add for a command
    "parity": "export",
    "bench": "bench",
    "train": "train",
    "evaluate": "train",
    "distill": "train",
    "students": "train",
    "export": "export",
    "bench-rewrite": "export,openvino",
    "bench-design": "export,openvino",
    "build": "export,quantize,train",
    "quantize": "quantize",
    "personalize": "export,train",
}


class _Parser(argparse.ArgumentParser):
    """A parser that raises UsageError where argparse would print and exit."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; see '{self.prog} --help'")


class _Version(argparse.Action):
    """An option that looks the version up only when it is used: that takes as long as all the rest."""

    def __call__(self, *_: object) -> NoReturn:
        from importlib.metadata import version

        print(f"pocketprior {version('pocketprior')}")
        raise SystemExit(0)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code. argv: without the program's name; None for that of the process."""
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
    name = arguments[0] if arguments else ""
    if name and not name.startswith("-") and name not in COMMANDS:
        raise UnknownNameError("command", name, COMMANDS)
    parser, commands = _parsers()
    if name not in COMMANDS:
        parser.parse_args(arguments)  # ends with --help, --version or an error: a command is required
    if "train" in EXTRAS.get(name, ""):
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read when torch is imported: threads that wait must not
        os.environ.setdefault("KMP_BLOCKTIME", "0")  # spin next to the processes that draw data
    try:
        module = import_module(f"..{COMMANDS[name][0]}", __package__)
        module.add_arguments(commands[name])
        return int(module.run(parser.parse_args(arguments)))
    except ModuleNotFoundError as error:
        if name not in EXTRAS or _top(error) in ("", "pocketprior"):
            raise  # not an optional package: a bug, and it stays one
        raise MissingExtraError(_top(error), EXTRAS[name], f"'pocketprior {name}'") from error


def _parsers() -> tuple[_Parser, Mapping[str, argparse.ArgumentParser]]:
    """The main parser, and those of the commands, still without their arguments."""
    parser = _Parser(
        prog="pocketprior",
        description="Restore photos with a diffusion texture prior.",
        epilog="'pocketprior COMMAND --help' explains a command.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and exit")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for command, (_, summary) in COMMANDS.items():
        commands.add_parser(command, help=summary, description=f"{summary.capitalize()}.", allow_abbrev=False)
    return parser, commands.choices


def _top(error: ModuleNotFoundError) -> str:
    return (error.name or "").partition(".")[0]
