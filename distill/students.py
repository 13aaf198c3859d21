"""`pocketprior bench students`: what few steps cost, in one page of tables: teachers and students on held-back photos.

Every checkpoint in the folder that says how it was distilled is a student; its teacher is the one of the same system
that is none.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..core.arrays import Image
from ..core.errors import CheckpointError, UsageError
from ..core.files import atomic_output, failure_reason
from ..core.image import read
from ..core.markdown import table
from ..core.models import checkpoints
from ..core.models.checkpoints import Checkpoint
from ..core.models.gen2res import SHIPPED_BASE
from ..core.models.steps import Steps, own_steps, thinned
from ..core.photo_list import clean_photos
from ..core.training.evaluation.page import DECIMALS
from ..core.training.evaluation.score import Case, Row, cases, measure, square
from ..core.training.photos import levels
from .command import KINDS, MODEL, open_system
from .recipe import DistillRecipe
from .system import System
from .timing import SIDE, seconds
from .verdicts import Verdict, best, verdicts

__all__ = ["Entry", "add_arguments", "collected", "run"]

SECONDS, CHAIN = "s/MP", "chain s/MP"
TITLES = {"dtpm": "DTPM", "gen2res": "Gen2Res", "diffir": "DiffIR"}


@dataclass(frozen=True)
class Entry:
    """A student in the folder: its name there, and what it is."""

    name: str
    checkpoint: Checkpoint

    @property
    def method(self) -> str:
        """How it was made."""
        return str(self.checkpoint.facts["method"])


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("--data", type=Path, required=True, help="folder of photos with a manifest.csv")
    parser.add_argument("--checkpoints", type=Path, default=Path("checkpoints"), help="teachers (%(default)s)")
    parser.add_argument(
        "--students", type=Path, default=Path("checkpoints/students"), help="folder of their run folders (%(default)s)"
    )
    parser.add_argument("--task", default="cleanup", help="of the DTPM (%(default)s)")
    parser.add_argument("--side", type=int, default=320, help="of the centre squares, pixels (%(default)s)")
    parser.add_argument("--photos", type=int, default=0, help="held-back photos to look at; 0 (default) for all")
    parser.add_argument("-o", "--out", type=Path, required=True, help="the page, such as docs/distillation.md")


def run(args: argparse.Namespace) -> int:
    """Measure every student beside its teacher and write the page."""
    if not args.out.parent.is_dir():
        raise UsageError(f"the folder of '{args.out}' does not exist; make it, or choose another -o")
    listed = [row for row in clean_photos(args.data, split="val", use="any") if row.set != "dreambooth"]
    chosen = listed[: args.photos or len(listed)]
    photos = [square(levels(read(row.path).pixels, halve=True), args.side) for row in chosen]
    parts = [_section(kind, args, photos) for kind in KINDS]
    text = "\n\n".join([_head(args, len(photos)), *(part for part in parts if part)]) + "\n"
    try:
        with atomic_output(args.out, overwrite=True) as temporary:
            temporary.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"'{args.out}' cannot be written: {failure_reason(error)}") from error
    print(f"{args.out}: {sum(bool(part) for part in parts)} systems")
    return 0


def collected(folder: Path, kind: str) -> list[Entry]:
    """The students of a system in `folder`, most steps first. Raises CheckpointError for a damaged one."""
    found: list[Entry] = []
    for path in sorted(folder.glob(f"*/{MODEL}")):
        checkpoint = checkpoints.load(path, *KINDS)
        if checkpoint.kind == kind:
            if "method" not in checkpoint.facts:
                raise CheckpointError(f"{path} does not say how it was distilled; keep teachers elsewhere")
            found.append(Entry(path.parent.name, checkpoint))
    return sorted(found, key=lambda entry: (-entry.checkpoint.facts["steps"], entry.method, entry.name))


def _teacher(kind: str, args: argparse.Namespace) -> Path:
    return {
        "dtpm": args.checkpoints / args.task / MODEL,
        "gen2res": SHIPPED_BASE,
        "diffir": args.checkpoints / "diffir" / MODEL,
    }[kind]


def _section(kind: str, args: argparse.Namespace, photos: Sequence[Image]) -> str:
    """The table and the verdicts of one system, empty without students."""
    students = collected(args.students, kind)
    if not students:
        return ""
    semantic = str(args.checkpoints / "semantic" / MODEL) if kind == "dtpm" else None
    system = open_system(_teacher(kind, args), semantic, DistillRecipe(steps=1))
    found = cases(photos, system.task)
    rows, spent = _rows(system, students, found)
    teacher = rows[0]
    count = system.steps(0).count
    judged = [
        Verdict(row, teacher, entry.checkpoint.facts["steps"], entry.method, count)
        for entry, row in zip(students, rows[-len(students) :], strict=True)
    ]
    lines = [["method", *rows[0].values]]
    lines += [[row.method, *(f"{v:.{DECIMALS.get(name, 3)}f}" for name, v in row.values.items())] for row in rows]
    said = "\n".join(f"- {text}" for text in [*verdicts(judged, SECONDS, CHAIN), *best(judged), spent])
    return f"## {TITLES[kind]}, task `{system.task}`\n\n{table(lines, left=1)}\n\n{said}"


def _rows(system: System, students: Sequence[Entry], found: Sequence[Case]) -> tuple[list[Row], str]:
    """The teacher in its own and in fewer steps, the students; and a sentence on their training."""
    own = system.steps(0)
    counts = sorted({entry.checkpoint.facts["steps"] for entry in students}, reverse=True)
    naive = [] if system.kind == "diffir" else [thinned(own, count) for count in counts]
    chains = [(f"teacher, {_counted(s)}" + ("" if s is own else " (no distillation)"), system.teacher, s)
              for s in [own, *naive]]  # fmt: skip
    for entry in students:
        steps = own_steps(entry.checkpoint.facts)
        assert steps is not None
        student = system.student(steps.count).eval().requires_grad_(False)
        entry.checkpoint.fill(student)
        chains.append((f"{entry.method}, {_counted(steps)}", student, steps))
    times = seconds([system.timed(model, steps, SIDE) for _, model, steps in chains])
    chain_times = seconds([system.timed_chain(model, steps, SIDE) for _, model, steps in chains])
    rows = []
    for (name, model, steps), time, chain in zip(chains, times, chain_times, strict=True):
        row = measure(name, lambda case, model=model, steps=steps: system.restore(model, steps, case), found)
        rows.append(Row(name, {**row.values, SECONDS: time, CHAIN: chain}))
    trained = ", ".join(
        f"{entry.method} to {entry.checkpoint.facts['steps']}: {entry.checkpoint.facts['step']}" for entry in students
    )
    return rows, f"Optimiser steps that the students were trained for: {trained}."


def _counted(steps: Steps) -> str:
    return "1 step" if steps.count == 1 else f"{steps.count} steps"


def _head(args: argparse.Namespace, photos: int) -> str:
    some = f" --photos {args.photos}" if args.photos else ""
    options = f"--data DATA --students STUDENTS --task {args.task} --side {args.side}{some} -o OUT"
    command = f"pocketprior bench students {options}"
    return HEAD.format(command=command, side=args.side, photos=photos)


HEAD = """\
# Fewer steps

Made by `{command}`; do not edit. How students are made: `pocketprior distill --help`; each method says its source in
`distill/`.

- Photos: the centre {side} x {side} of {photos} held-back photos, damaged by `core/degradations`, seeded: those of
  [results.md](results.md). DTPM at the gain of the packs, 0.5.
- PSNR (dB), SSIM, HaarPSI: higher is better. NIQE, SWD: lower is better. A PSNR above the teacher's with a worse NIQE
  or SWD means that texture is being lost.
- s/MP: CPU seconds of one thread per megapixel, the whole restoration in PyTorch in float32 with the time path folded
  for every row alike (`core/models/specialise.py`), interleaved, the median of 9. Chain s/MP: the steps alone, without
  what runs once (DTPM's predictor, DiffIR's encoder and transformer).
- "no distillation": the teacher itself, sampled in fewer steps."""
