"""`scripts/gpu/run`: the command line."""

from __future__ import annotations

import argparse
import sys
import traceback
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import torch

from pocketprior.core.errors import PocketPriorError, UnknownNameError, UsageError
from pocketprior.kernels import OPS

from .results import Part, Results, Setup, environment

__all__ = ["PARTS", "main"]

# The parts of the command, with what each needs beyond torch, triton, numpy and safetensors: import name -> pip's name.
TRAINING = ("accelerate", "tensorboard", "tomli_w", "tqdm", "webdataset")
PARTS: dict[str, dict[str, str]] = {
    "verify": {},
    "bench": {},
    "record": {"PIL": "pillow"},
    "train": {"PIL": "pillow", **{name: name.replace("_", "-") for name in TRAINING}},
}
TABLES = "tables"


def main(root: Path, argv: Sequence[str]) -> int:
    """Run the command for the clone `root`.

    Returns:
        0: all is well, 1: something failed, 2: wrong usage.
    """
    try:
        return _main(root, _parser(root).parse_args(argv))
    except PocketPriorError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code


def _parser(root: Path) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/gpu/run",
        description="Verify and benchmark the kernels, record parity references, and train; by default all of it.",
        epilog="See docs/kernels.md.",
    )
    parser.add_argument(
        "parts",
        nargs="*",
        metavar="PART",
        help=f"some of: {', '.join(PARTS)}; or {TABLES}, which needs no GPU: write the tables of docs/kernels.md",
    )
    parser.add_argument("--out", type=Path, default=Path("results"), help="folder for results (default: %(default)s)")
    parser.add_argument("--ops", default=",".join(OPS), help="ops to verify and benchmark (default: %(default)s)")
    parser.add_argument("--dry-run", action="store_true", help="rehearse on a CPU at sizes that measure nothing")
    training = parser.add_argument_group("train")
    training.add_argument("--stage", default="gen2res:base", help="SYSTEM:STAGE to train (default: %(default)s)")
    training.add_argument("--photos", type=Path, default=root / "examples", help="folder (default: the examples)")
    training.add_argument("--minutes", type=float, default=5.0, help="for how long (default: %(default)g)")
    return parser


def _main(root: Path, args: argparse.Namespace) -> int:
    if args.parts == [TABLES]:
        from .page import write_tables  # needs Triton's compilers, which the interpreter replaces

        write_tables(root)
        return 0
    parts, ops = args.parts or list(PARTS), tuple(args.ops.split(","))
    for kind, chosen, valid in (("part", parts, PARTS), ("op", ops, OPS)):
        for name in chosen:
            if name not in valid:
                raise UnknownNameError(kind, name, valid)
    if not (args.dry_run or torch.cuda.is_available()):
        raise UsageError("this machine has no CUDA device; rehearse on its CPU with --dry-run")
    if args.out.exists() and any(args.out.iterdir()):
        raise UsageError(f"the folder '{args.out}' is not empty; choose a new one with --out")
    args.out.mkdir(parents=True, exist_ok=True)
    setup = Setup(root, args.out, ops, args.photos, args.stage, args.minutes, args.dry_run)
    # float32 is float32: cuDNN and matrix products would use TF32.
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    results = Results(environment(root, setup.device))
    for name in parts:
        _run(name, setup, results)
    return 1 if any(part.errors for part in results.parts.values()) else 0


def _run(name: str, setup: Setup, results: Results) -> None:
    """Run the items of one part; the results are saved after each of them."""
    part = results.parts[name] = Part()
    item = name
    try:
        missing = [package for module, package in PARTS[name].items() if find_spec(module) is None]
        if missing:
            raise UsageError(f"'{name}' needs more packages; install them: pip install {' '.join(missing)}")
        module = import_module(f".{name}", __package__)
        for item, run in module.items(setup):
            print(f"{name}: {item}", file=sys.stderr)
            try:
                part.rows.extend(run())
            except Exception:
                part.errors[item] = traceback.format_exc()
            results.save(setup.out)
    except Exception:
        part.errors[item] = traceback.format_exc()
    results.save(setup.out)
    for item, error in part.errors.items():
        print(f"{name}: {item} failed: {error.strip().splitlines()[-1]}", file=sys.stderr)
    print(f"{name}: {len(part.rows)} results, {len(part.errors)} failed", file=sys.stderr)
