"""`scripts/gpu`: the command line."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Collection, Sequence
from pathlib import Path

import torch

from ...core.errors import PocketPriorError, UnknownNameError, UsageError
from .. import OPS
from .environment import describe
from .leg import SPOILT, run
from .results import Results
from .stage import STAGES, Setup, work

__all__ = ["main"]

CARRIED = ".gpu"  # in the clone; git ignores it
MINUTES = 9.0
WORK, DEADLINE = "--work", "--deadline"


def main(root: Path, argv: Sequence[str]) -> int:
    """Run the command for the clone `root`; its exit code."""
    try:
        return _main(root, _parser().parse_args(argv), argv)
    except PocketPriorError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/gpu",
        description="Check, measure, record and train on a machine with a GPU; without an option, all of it.",
        epilog="See docs/kernels.md.",
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--pack", action="store_true", help="here: lay out what training there needs")
    what.add_argument("--collect", type=Path, metavar="DIR", help="here: put what came back in its place")
    what.add_argument("--table", action="store_true", help="here: write the tables that need no GPU")
    what.add_argument(WORK, choices=STAGES, help=argparse.SUPPRESS)
    parser.add_argument("--dry-run", action="store_true", help="rehearse on a CPU at sizes that say nothing")
    parser.add_argument("--carry", type=Path, help=f"the folder that goes there (default: {CARRIED} in the clone)")

    there = parser.add_argument_group("there")
    there.add_argument("--minutes", type=float, default=MINUTES, help="that there are, about (default %(default)g)")
    there.add_argument("--out", type=Path, help="a new folder for results (default: $OUT)")
    there.add_argument("--stages", default=",".join(STAGES), help="some of: %(default)s")
    there.add_argument("--ops", default=",".join(OPS), help="some of: %(default)s")
    there.add_argument(DEADLINE, type=float, default=0.0, help=argparse.SUPPRESS)

    packing = parser.add_argument_group("with --pack")
    packing.add_argument("--data", type=Path, help="folder of photos, as for pocketprior train")
    packing.add_argument("--run", type=Path, help="run that goes on (default: runs/gen2res-base in the clone)")
    packing.add_argument("--stage", default="gen2res:base", help="SYSTEM:STAGE of the run (default %(default)s)")
    packing.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="change a recipe field")
    packing.add_argument(
        "--earlier", action="append", default=[], metavar="KIND=FILE", help="a checkpoint that the stage starts from"
    )
    return parser


def _main(root: Path, args: argparse.Namespace, argv: Sequence[str]) -> int:
    carried = args.carry or root / CARRIED
    if args.pack:
        return _pack(root, carried, args)
    if args.collect:
        from .collect import collect  # with all the stages' modules

        for path in collect(args.collect, root, dry_run=args.dry_run):
            print(path)
        return 0
    if args.table:
        from .counted import write_counted  # needs Triton's compilers
        from .page import write_measured

        write_counted(root)
        write_measured(root)
        return 0
    out = args.out or Path(os.environ.get("OUT", ""))
    if out == Path():
        raise UsageError("no folder for results was given; give --out DIR")
    stages, ops = _chosen("stage", args.stages, STAGES), _chosen("op", args.ops, OPS)
    if args.work:
        return _work(root, out, carried, ops, args)
    if not (args.dry_run or torch.cuda.is_available()):
        raise UsageError("there is no CUDA device here; --dry-run rehearses on a CPU")
    command = [sys.executable, str(root / "scripts" / "gpu"), *argv, "--out", str(out), WORK]
    return run(command, out, minutes=args.minutes, stages=stages, dry_run=args.dry_run, deadline=DEADLINE)


def _work(root: Path, out: Path, carried: Path, ops: tuple[str, ...], args: argparse.Namespace) -> int:
    """One stage, in this process."""
    results = Results.load(out)
    device = "cpu" if args.dry_run else "cuda"
    environment = results.environment or describe(root, device)
    deadline = args.deadline or time.time() + 60 * args.minutes
    setup = Setup(root, out, carried, ops, deadline, args.dry_run, results.stages, environment)
    return 0 if work(args.work, setup) else SPOILT


def _pack(root: Path, carried: Path, args: argparse.Namespace) -> int:
    from .pack import pack  # decodes photos: the machine with the GPU need not be able to

    if args.data is None:
        raise UsageError("no photos were given; give --data FOLDER")
    system, _, stage = args.stage.partition(":")
    pairs = [text.partition("=") for text in args.earlier]
    packed = pack(
        carried,
        run=args.run or root / "runs" / "gen2res-base",
        stage=(system, stage),
        data=args.data,
        settings=args.set,
        earlier={kind: Path(file) for kind, _, file in pairs},
    )
    size = sum(path.stat().st_size for path in carried.rglob("*") if path.is_file())
    counts = ", ".join(f"{count} squares in {file}" for file, count in packed.squares.items())
    print(f"{carried}: {size / 2**20:.1f} MiB, run {packed.run}, {counts}")
    return 0


def _chosen(kind: str, text: str, valid: Collection[str]) -> tuple[str, ...]:
    """Names of a comma list, in the order of the valid ones."""
    names = [name for name in text.split(",") if name]
    for name in names:
        if name not in valid:
            raise UnknownNameError(kind, name, valid)
    if not names:
        raise UsageError(f"no {kind} was given; choose of: {', '.join(valid)}")
    return tuple(name for name in valid if name in names)
