"""The cost and quality of few steps as one page of tables: teachers and their students on held-back photos.

Every checkpoint in the folder whose facts name a method is a student; its teacher is its system's undistilled model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

import torch
from torch import nn

from ..core.arrays import Image
from ..core.errors import CheckpointError
from ..core.models import checkpoints
from ..core.models.checkpoints import Checkpoint
from ..core.models.gen2res import SHIPPED_BASE
from ..core.photo.io import read
from ..core.photo.listing import clean_photos
from ..core.sampling.steps import Steps, own_steps, thinned
from ..core.timing import interleaved
from ..core.training.data.photos import to_8_bits
from ..core.training.evaluation.score import MethodFigures, ResultTable, cases, measure, section, square
from ..core.training.loop.loop import CHECKPOINT_NAME
from .distillation import open_system
from .limits import PSNR_LOSS, SPEEDUP, SPEEDUP_STEPS, texture_lost, tolerated_loss
from .system import DistillRecipe, DistillSystem

__all__ = ["StudentFigures", "StudentRun", "best", "collected", "cpu_seconds", "students_page"]

SECONDS, CHAIN_SECONDS = "s/MP", "chain s/MP"
TITLES = {"dtpm": "DTPM", "gen2res": "Gen2Res", "diffir": "DiffIR"}
TIMED_SIDE, ROUNDS = 192, 9  # pixels of the image that is timed; how often


class StudentRun(NamedTuple):
    """A student in the folder."""

    name: str  # of its run folder
    method: str  # how it was made
    steps: Steps
    checkpoint: Checkpoint


def students_page(
    data: Path,
    teachers: Path,
    students: Path,
    *,
    task: str = "cleanup",
    side: int = 320,
    photos: int = 0,
    made_by: str = "students_page",
) -> str:
    """Measure every student and its teacher; the page, which names the command `made_by`, as Markdown.

    `data` is a folder of photos with a manifest.csv, of whose `val` rows the first `photos` are used, 0 for all, and of
    those the centre squares, `side` pixels. `students` holds their run folders, `teachers` those of the teachers:
    `task`, of the DTPM, "diffir" and "semantic". Raises CheckpointError for a damaged one, or a teacher among students.
    """
    listed = [row for row in clean_photos(data, split="val", use="any") if row.set != "dreambooth"]
    chosen = listed[: photos or len(listed)]
    squares = [square(to_8_bits(read(row.path).pixels, halve=True), side) for row in chosen]
    sections = []
    for kind, folder in {"dtpm": task, "gen2res": None, "diffir": "diffir"}.items():
        if found := collected(students, kind):
            teacher = teachers / folder / CHECKPOINT_NAME if folder else SHIPPED_BASE
            semantic = str(teachers / "semantic" / CHECKPOINT_NAME) if kind == "dtpm" else None
            sections.append(_section(open_system(teacher, semantic, DistillRecipe(steps=1)), found, squares))
    head = PAGE_HEAD.format(command=made_by, side=side, photos=len(squares))
    return "\n\n".join([head, *sections]) + "\n"


def collected(folder: Path, kind: str) -> list[StudentRun]:
    """The students of a system in `folder`, most steps first. Raises CheckpointError for a damaged one."""
    found: list[StudentRun] = []
    for path in sorted(folder.glob(f"*/{CHECKPOINT_NAME}")):
        checkpoint = checkpoints.load(path, *TITLES)
        if checkpoint.kind == kind:
            steps = own_steps(checkpoint.facts)
            if "method" not in checkpoint.facts or steps is None:
                raise CheckpointError(f"{path} does not say how it was distilled; keep teachers in another folder")
            found.append(StudentRun(path.parent.name, checkpoint.facts["method"], steps, checkpoint))
    return sorted(found, key=lambda student: (-student.steps.step_count, student.method, student.name))


def _section(system: DistillSystem, students: Sequence[StudentRun], photos: Sequence[Image]) -> str:
    """The table and the verdicts of one system: the teacher in its own and in fewer steps, then the students."""
    own = system.steps(0)
    counts = sorted({student.steps.step_count for student in students}, reverse=True)
    naive = [] if system.kind == "diffir" else [thinned(own, count) for count in counts]
    chains = [(f"teacher, {_counted(own)}", system.teacher, own)]
    chains += [(f"teacher, {_counted(steps)} (no distillation)", system.teacher, steps) for steps in naive]
    for student in students:
        model = system.student(student.steps.step_count).eval().requires_grad_(False)
        student.checkpoint.fill(model)
        chains.append((f"{student.method}, {_counted(student.steps)}", model, student.steps))
    rows = _rows(system, chains, photos)
    judged = [
        StudentFigures(student.method, student.steps.step_count, row, rows[0], own.step_count)
        for student, row in zip(students, rows[-len(students) :], strict=True)
    ]
    trained = ", ".join(f"{s.method} to {s.steps.step_count}: {s.checkpoint.facts['step']}" for s in students)
    note = f"Optimiser steps that the students were trained for: {trained}."
    verdicts = [*(student.sentence() for student in judged), *best(judged), note]
    return section(ResultTable(f"{TITLES[system.kind]}, task `{system.task}`", rows, verdicts))


def _rows(
    system: DistillSystem, chains: Sequence[tuple[str, nn.Module, Steps]], photos: Sequence[Image]
) -> list[MethodFigures]:
    found = cases(photos, system.task)
    timed = [system.timed(model, steps, TIMED_SIDE) for _, model, steps in chains]
    times, chain_times = (cpu_seconds(calls) for calls in zip(*timed, strict=True))
    rows = []
    for (name, model, steps), time, chain in zip(chains, times, chain_times, strict=True):
        row = measure(name, lambda case, model=model, steps=steps: system.restore(model, steps, case), found)
        rows.append(MethodFigures(name, {**row.values, SECONDS: time, CHAIN_SECONDS: chain}))
    return rows


def _counted(steps: Steps) -> str:
    return "1 step" if steps.step_count == 1 else f"{steps.step_count} steps"


@torch.inference_mode()
def cpu_seconds(restorations: Sequence[Callable[[], object]], side: int = TIMED_SIDE) -> list[float]:
    """CPU seconds per megapixel of each restoration of `side` x `side` pixels: the median of ROUNDS, interleaved.

    CPU time, so that other programs on the machine do not count; one thread, so that it is the time on one core.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        taken = interleaved(dict(enumerate(restorations)), ROUNDS)
    finally:
        torch.set_num_threads(threads)
    return [median(times) / (side * side / 1e6) for times in taken.values()]


class StudentFigures(NamedTuple):
    """A student's figures next to its teacher's."""

    method: str
    steps: int
    row: MethodFigures
    teacher: MethodFigures
    teacher_steps: int

    def change(self, metric: str) -> float:
        """Relative change of a figure from the teacher's to the student's."""
        return self.row.values[metric] / self.teacher.values[metric] - 1

    @property
    def psnr(self) -> float:
        """How many dB it is above the teacher."""
        return self.row.values["PSNR"] - self.teacher.values["PSNR"]

    @property
    def worst(self) -> float:
        """The larger of the relative losses in NIQE and SWD."""
        return max(self.change("NIQE"), self.change("SWD"))

    @property
    def met(self) -> bool:
        """Whether it looks as its teacher does, and is as close to the truth."""
        return self.psnr >= -PSNR_LOSS and self.worst <= tolerated_loss(self.steps)

    def sentence(self) -> str:
        """The figures and whether they are within the limits."""
        tolerated = tolerated_loss(self.steps)
        faster, chain = (self.teacher.values[name] / self.row.values[name] for name in (SECONDS, CHAIN_SECONDS))
        speed = f"{faster:.1f} times faster"
        if self.steps == 1 and self.teacher_steps >= SPEEDUP_STEPS:
            speed += f" ({SPEEDUP} required: {'met' if faster >= SPEEDUP else 'missed'})"
        lost = texture_lost(self.row.values, self.teacher.values, tolerated)
        said = "met" if self.met else "missed: texture is being lost" if lost else "missed"
        return (
            f"{self.row.method}: PSNR {self.psnr:+.2f} dB, NIQE {self.change('NIQE'):+.1%}, "
            f"SWD {self.change('SWD'):+.1%} relative to the teacher, {speed}, the chain {chain:.1f} times. "
            f"Within {PSNR_LOSS} dB and {tolerated:.0%}: {said}."
        )


def best(students: Sequence[StudentFigures]) -> list[str]:
    """For each number of steps with several methods: which is best, by the worse of NIQE and SWD."""
    said = []
    for steps in sorted({student.steps for student in students}, reverse=True):
        tried = [student for student in students if student.steps == steps]
        if len(tried) > 1:
            first = min(tried, key=lambda student: (not student.met, student.worst))
            said.append(f"Best of {len(tried)} to {steps}: {first.method} (worse of NIQE and SWD {first.worst:+.1%}).")
    return said


PAGE_HEAD = """\
# Fewer steps

Made by `{command}`; do not edit. How to make students: [training.md](training.md#fewer-steps); the source of each
method stands in its file in `distill/`, the limits with their reasons in `distill/limits.py`.

- Photos: the centre {side} x {side} of {photos} held-back photos, damaged by `core/degradations`, seeded: those of
  [results.md](results.md). DTPM at the gain of the packs, 0.5.
- PSNR (dB), SSIM, HaarPSI: higher is better. NIQE, SWD: lower is better. A PSNR above the teacher's with a worse NIQE
  or SWD means that texture is being lost.
- s/MP: CPU seconds of one thread per megapixel, the whole restoration in PyTorch in float32 with re-parameterised
  branches and low-rank factors merged, interleaved, the median of 9. Chain s/MP: only the steps, without what runs once
  (DTPM's predictor, DiffIR's encoder and transformer).
- "no distillation": the teacher itself, sampled in fewer steps."""
