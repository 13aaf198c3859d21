"""`scripts/gpu/run`: the command line, what the parts know, and the results they leave."""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TypeAlias

import torch
import triton

from pocketprior.core.errors import PocketPriorError, UnknownNameError, UsageError
from pocketprior.core.files import write_text
from pocketprior.core.markdown import table
from pocketprior.kernels import OPS

# The parts of the command, with what each needs beyond torch, triton, numpy and safetensors: import name -> pip's name.
TRAINING = ("accelerate", "tensorboard", "tomli_w", "tqdm", "webdataset")
PARTS: dict[str, dict[str, str]] = {
    "verify": {},
    "bench": {},
    "record": {"PIL": "pillow"},
    "train": {"PIL": "pillow", **{name: name.replace("_", "-") for name in TRAINING}},
}
TABLES = "tables"

Row: TypeAlias = Mapping[str, str | int | float]


class Setup(argparse.Namespace):
    """The command line."""

    root: Path  # the clone
    parts: list[str]
    out: Path  # where results go
    ops: tuple[str, ...]
    photos: Path  # what the part `train` trains on
    stage: str  # SYSTEM:STAGE that it trains
    minutes: float  # for how long
    dry_run: bool  # on a CPU, at sizes that measure nothing

    @property
    def device(self) -> str:
        """What runs things; a dry run needs no GPU."""
        return "cpu" if self.dry_run else "cuda"


@dataclass
class Part:
    """What became of one part."""

    rows: list[Row] = field(default_factory=list)
    errors: dict[str, str] = field(default_factory=dict)  # item -> traceback


def main(root: Path, argv: Sequence[str]) -> int:
    """Run the command for the clone `root`.

    Returns:
        0: all is well, 1: something failed, 2: wrong usage.
    """
    setup = _parser(root).parse_args(argv, Setup(root=root))
    try:
        if setup.parts != [TABLES]:
            return _run(setup)
        from .tables import write_tables  # needs Triton's compilers, which the interpreter replaces

        write_tables(root)
    except PocketPriorError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


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
    parser.add_argument(
        "--ops",
        type=lambda names: tuple(names.split(",")),
        default=",".join(OPS),
        help="ops to verify and benchmark (default: %(default)s)",
    )
    parser.add_argument("--dry-run", action="store_true", help="rehearse on a CPU at sizes that measure nothing")
    training = parser.add_argument_group("train")
    training.add_argument("--stage", default="gen2res:base", help="SYSTEM:STAGE to train (default: %(default)s)")
    training.add_argument("--photos", type=Path, default=root / "examples", help="folder (default: the examples)")
    training.add_argument("--minutes", type=float, default=5.0, help="for how long (default: %(default)g)")
    return parser


def _run(setup: Setup) -> int:
    chosen = setup.parts or list(PARTS)
    for kind, names, valid in (("part", chosen, PARTS), ("op", setup.ops, OPS)):
        for name in names:
            if name not in valid:
                raise UnknownNameError(kind, name, valid)
    if not (setup.dry_run or torch.cuda.is_available()):
        raise UsageError("this machine has no CUDA device; rehearse on its CPU with --dry-run")
    if setup.out.exists() and any(setup.out.iterdir()):
        raise UsageError(f"the folder '{setup.out}' is not empty; choose a new one with --out")
    setup.out.mkdir(parents=True, exist_ok=True)
    # float32 is float32: cuDNN and matrix products would use TF32.
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    environment, parts = _environment(setup), {}
    for name in chosen:
        part = parts[name] = Part()
        item = name
        try:
            missing = [package for module, package in PARTS[name].items() if find_spec(module) is None]
            if missing:
                raise UsageError(f"'{name}' needs more packages; install them: pip install {' '.join(missing)}")
            for item, rows in import_module(f".{name}", __package__).items(setup):
                print(f"{name}: {item}", file=sys.stderr)
                try:
                    part.rows.extend(rows)  # those before an exception are kept
                except Exception:
                    part.errors[item] = traceback.format_exc()
                _save(setup.out, environment, parts)
        except Exception:
            part.errors[item] = traceback.format_exc()
        _save(setup.out, environment, parts)
        for item, error in part.errors.items():
            print(f"{name}: {item} failed: {_last_line(error)}", file=sys.stderr)
        print(f"{name}: {len(part.rows)} results, {len(part.errors)} failed", file=sys.stderr)
    return 1 if any(part.errors for part in parts.values()) else 0


def _environment(setup: Setup) -> dict[str, str]:
    """Where numbers come from: the device, the versions, the commit and the date."""
    describe = ["git", "-C", setup.root, "describe", "--always", "--dirty"]
    commit = subprocess.run(describe, capture_output=True, text=True, check=False).stdout.strip()
    found = {
        "device": f"CPU ({platform.machine()}), a dry run" if setup.dry_run else torch.cuda.get_device_name(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "triton": triton.__version__,
        "commit": commit or "unknown",
        "date": datetime.now(UTC).date().isoformat(),
    }
    return found if setup.dry_run else {**found, "cuda": str(torch.version.cuda)}


def _save(folder: Path, environment: Mapping[str, str], parts: Mapping[str, Part]) -> None:
    """Replace results.json and results.md."""
    tree = {"environment": environment, **{name: vars(part) for name, part in parts.items()}}
    write_text(folder / "results.json", json.dumps(tree, indent=1, allow_nan=False) + "\n")
    lines = ["# Results of scripts/gpu/run", ", ".join(f"{name} {value}" for name, value in environment.items())]
    for name, part in parts.items():
        lines += [f"## {name}", _table(part.rows) if part.rows else "No results."]
        lines += [f"failed: {item}: {_last_line(error)}" for item, error in part.errors.items()]
    write_text(folder / "results.md", "\n\n".join(lines) + "\n")


def _table(rows: Sequence[Row]) -> str:
    """A column for every name that occurs in the rows."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    values = [[row.get(name, "") for name in names] for row in rows]
    return table([names, *([f"{v:.4g}" if isinstance(v, float) else str(v) for v in line] for line in values)], 1)


def _last_line(error: str) -> str:
    return error.strip().splitlines()[-1]
