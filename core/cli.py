"""The command line: a table of commands, each imported only when it is asked for.

A command is a module with `add_arguments(parser)` and `run(args) -> exit code`. A command of two words, such as
`bench students`, is listed by the help of its first word, whose own module returns its sub-parsers from
`add_arguments`; so a layer can add to a command of a layer below it, which knows nothing of that. Exit codes: 0 done,
1 a job or a check failed, 2 the call is wrong, 130 interrupted. Logs go to stderr, what a program reads (--json) to
stdout.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import NoReturn, Protocol

from .errors import INTERRUPTED, MissingExtraError, PocketPriorError, UnknownNameError, UsageError

__all__ = ["COMMANDS", "main"]

COMMANDS: dict[str, tuple[str, str]] = {
    "restore": ("core.commands.restore", "restore photos"),
    "info": ("core.commands.info", "show a pack's manifest, or a model's size and cost"),
    "verify": ("core.commands.verify", "check the files of a pack and its golden restorations"),
    "parity": ("runtimes.commands.parity", "compare a pack with its PyTorch reference, graph by graph"),
    "parity record": ("export.commands.record", "record the reference: what a checkpoint makes of photos"),
    "bench": ("runtimes.commands.bench", "measure quality and speed"),
    "bench students": ("distill.commands.students", "compare few-step students with their teachers"),
    "bench rewrite": ("export.commands.rewrite", "compare rewritten graphs with graphs as traced"),
    "bench design": ("export.commands.design", "compare designs of the predictor: speed, size, quality"),
    "train": ("core.training.commands.train", "train a stage of a system"),
    "evaluate": ("core.training.commands.evaluate", "measure the trained systems on held-back photos"),
    "distill": ("distill.commands.distill", "make a few-step student of a trained model"),
    "export": ("export.commands.export", "write a pack from checkpoints"),
    "build": (
        "export.commands.build",
        "run the whole pipeline from one recipe file",
    ),
    "quantize": ("export.commands.quantize", "make a pack of fewer bits, under a budget on the image"),
    "personalize": ("export.commands.personalize", "fine-tune on an album of one subject and export a pack"),
}
EXTRAS = {  # what `pip install` must add for a command
    "parity": "export",
    "parity record": "export",
    "bench": "bench",
    "bench students": "train",
    "bench rewrite": "export,openvino",
    "bench design": "export,openvino",
    "train": "train",
    "evaluate": "train",
    "distill": "train",
    "export": "export",
    "build": "export,quantize,train",
    "quantize": "quantize",
    "personalize": "export,train",
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
    name = _command(arguments)
    if name and not name.startswith("-") and name not in COMMANDS:
        raise UnknownNameError("command", name, _names())
    parser, commands = _parsers()
    if name not in COMMANDS:
        parser.parse_args(arguments)  # exits with --help, --version or an error: a command is required
    if "train" in EXTRAS.get(name, ""):
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read when torch is imported: threads that wait must not
        os.environ.setdefault("KMP_BLOCKTIME", "0")  # spin next to the processes that draw data
    first, _, second = name.partition(" ")
    own = _add(commands[first].add_subparsers(), second, COMMANDS[name][1]) if second else commands[first]
    try:
        module = import_module(f"..{COMMANDS[name][0]}", __package__)
        kinds = module.add_arguments(own)
        for added in _added_to(name):
            _add(kinds, added, COMMANDS[f"{name} {added}"][1])
        return int(module.run(parser.parse_args(arguments)))
    except ModuleNotFoundError as error:
        if name not in EXTRAS or _top(error) in ("", "pocketprior"):
            raise  # not an optional package: a bug, and it stays one
        if {"-h", "--help"} & set(arguments):
            own.epilog = f"To see the options, run: pip install 'pocketprior[{EXTRAS[name]}]'"
            own.print_help()
            return 0
        raise MissingExtraError(_top(error), EXTRAS[name], f"'pocketprior {name}'") from error


def _command(arguments: Sequence[str]) -> str:
    """The command in a call: two words where the table has them together, else the first word."""
    two = " ".join(arguments[:2])
    return two if two in COMMANDS else next(iter(arguments), "")


def _names() -> list[str]:
    """The commands of one word."""
    return [name for name in COMMANDS if " " not in name]


def _added_to(name: str) -> list[str]:
    """The second words of the commands that begin with `name`."""
    return [command.removeprefix(f"{name} ") for command in COMMANDS if command.startswith(f"{name} ")]


class _SubParsers(Protocol):
    """What `ArgumentParser.add_subparsers` returns, as far as it is used here."""

    def add_parser(self, name: str, *, help: str, description: str, allow_abbrev: bool) -> argparse.ArgumentParser: ...


def _add(parsers: _SubParsers, name: str, summary: str) -> argparse.ArgumentParser:
    return parsers.add_parser(name, help=summary, description=f"{summary.capitalize()}.", allow_abbrev=False)


def _parsers() -> tuple[_Parser, Mapping[str, argparse.ArgumentParser]]:
    """The parser of the whole, and those of the commands of one word, still without their arguments."""
    parser = _Parser(
        prog="pocketprior",
        description="Restore photos with a diffusion texture prior.",
        epilog="'pocketprior COMMAND --help' says more about a command.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and exit")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for name in _names():
        _add(commands, name, COMMANDS[name][1])
    return parser, commands.choices


def _top(error: ModuleNotFoundError) -> str:
    return (error.name or "").partition(".")[0]
