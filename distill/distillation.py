"""Distil a trained model by one of the methods: the public functions, and the stage that the methods share."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from ..core.errors import UnknownNameError, UsageError
from ..core.models import checkpoints
from ..core.models.semantic_code import open_semantic, semantic_file
from ..core.sampling.steps import Steps
from ..core.training.data.pairs import PairUse
from ..core.training.data.photos import Pool, TrainingData
from ..core.training.data.sources import file_hash, open_data
from ..core.training.evaluation.score import cases, measure, side_by_side, square
from ..core.training.loop.loop import CHECKPOINT_NAME, SavedStep, train
from ..core.training.loop.processes import close, processes
from ..core.training.loop.stage import Arrays, TrainingStage, Validation
from ..core.training.runs import configured, run_options
from . import DISTILL_METHODS
from .diffir import DiffirSystem
from .dtpm import DtpmSystem
from .gen2res import Gen2ResSystem
from .limits import texture_lost
from .system import DistillRecipe, DistillSystem

__all__ = ["DistillRun", "DistillStage", "distill", "distill_recipe", "method_of", "open_system", "weighted_sum"]

GATE_PHOTOS, GATE_SIDE = 4, 256  # held-back photos that gates look at, and the side of their centre squares, pixels
JUDGED = ("PSNR", "NIQE", "SWD")
LOST = "val_texture_lost"

R = TypeVar("R", bound=DistillRecipe, covariant=True)


@dataclass(frozen=True)
class DistillRun(Generic[R]):
    """What a stage is built from."""

    recipe: R
    system: DistillSystem
    data: TrainingData
    folder: Path
    device: torch.device


class DistillStage(TrainingStage):
    """Trains a student of the system's teacher; see `TrainingStage`.

    A method is a subclass in a module of its name, called METHOD there. steps: of the student, if not of the teacher's.
    """

    method: ClassVar[str]  # the name in the facts of its checkpoints
    systems: ClassVar[tuple[str, ...]]  # kinds of checkpoints that it can distil
    default: ClassVar[DistillRecipe]

    def __init__(self, run: DistillRun[DistillRecipe], steps: Steps | None = None) -> None:
        recipe, system = run.recipe, run.system
        self.recipe, self.system = recipe, system
        self.teacher_steps = system.steps(recipe.teacher_steps)
        self.steps = steps or system.student_steps(recipe.sampling_steps, self.teacher_steps)
        self.model = system.student(recipe.sampling_steps)
        self.kind, self.config = system.kind, self.model.config
        self.trained, self.frozen = system.trained, system.frozen
        self.cases = cases([square(photo, GATE_SIDE) for photo in run.data.val.photos[:GATE_PHOTOS]], system.task)
        self.teacher_figures: Mapping[str, float] = {}
        self.verdict: dict[str, float] = {}

    def draw(self, pool: Pool, crop: int, rng: np.random.Generator) -> Arrays:
        """As in `TrainingStage`: a sample of the system."""
        return self.system.draw(pool, crop, rng)

    def validate(self, model: nn.Module) -> Validation:
        """PSNR, NIQE and SWD of student and teacher on held-back photos, and whether texture is being lost (1 or 0)."""
        if not self.teacher_figures:
            self.teacher_figures = self._figures(self.system.teacher, self.teacher_steps)
        found = self._figures(model, self.steps)
        figures = {f"val_{name.lower()}": found[name] for name in JUDGED}
        figures |= {f"val_teacher_{name.lower()}": self.teacher_figures[name] for name in JUDGED}
        self.verdict = {**figures, LOST: float(texture_lost(found, self.teacher_figures))}
        case = self.cases[0]
        teacher = self.system.restore(self.system.teacher, self.teacher_steps, case)
        student = self.system.restore(model, self.steps, case)
        shown = side_by_side(case.image, teacher, student, case.clean)
        return Validation(self.verdict, {"damaged_teacher_student_clean": shown})

    def _figures(self, model: nn.Module, steps: Steps) -> Mapping[str, float]:
        return measure("held back", lambda case: self.system.restore(model, steps, case), self.cases).values

    def facts(self) -> dict[str, Any]:
        """The system's facts, the student's steps, how it was made, and the figures of the gates."""
        return {
            **self.system.facts,
            "levels": list(self.steps.levels),
            "times": list(self.steps.times),
            "steps": self.steps.step_count,
            "method": self.method,
            "teacher": self.system.source,
            "teacher_steps": self.teacher_steps.step_count,
            "gates": self.verdict,
        }


def weighted_sum(figures: dict[str, Tensor], recipe: DistillRecipe) -> dict[str, Tensor]:
    """The figures, with their sum as "loss", weighted by the fields of the recipe that have their names."""
    terms = [getattr(recipe, name) * value for name, value in figures.items()]
    return {"loss": torch.stack(terms).sum(), **figures}


def distill(
    recipe: DistillRecipe,
    *,
    teacher: Path,
    method: str,
    data: str,
    out: Path,
    start: Path | None = None,
    semantic: str | None = None,
    val: str | None = None,
    use: PairUse = "any",
    workers: int = 1,
    minutes: float | None = None,
    threads: str = "auto",
) -> Generator[SavedStep]:
    """Train a few-step student of a model, or resume its run; yields the figures of each save.

    Among the figures are PSNR, NIQE and SWD of student and teacher on held-back photos, and "val_texture_lost", 1 where
    the PSNR is above the teacher's while NIQE or SWD is worse.

        recipe = distill_recipe("trajectory", sampling_steps=4)
        run = distill(recipe, teacher=Path("dtpm"), method="trajectory", data="photos", out=Path("student"))
        for saved in run:
            print(saved.step, saved.figures)

    Args:
        recipe: As `distill_recipe` returns it.
        teacher: A checkpoint, or the run folder that holds one.
        method: A name of `DISTILL_METHODS`.
        data: Folder of photos or of pairs, or shards.
        out: The run folder; an unfinished run in it is continued.
        start: The student to start from instead of the teacher's weights: a checkpoint, or its run folder.
        semantic: The semantic encoder of a DTPM: a checkpoint, or "timm:MODEL=FILE".
        val: Held-back photos if they are not a part of `data`.
        use: Pairs to take, by their licence.
        workers: Processes that draw batches; 0 to draw in this one.
        minutes: Save the state and return after this time.
        threads: "auto" or a number of threads.

    Raises:
        UsageError: For arguments that do not fit each other or the photos; UnknownNameError for the method.
        TrainingError, CheckpointError: As `loop.train` does.
        KeyboardInterrupt: On Ctrl-C and SIGTERM, after the state is saved.
    """
    chosen, teacher = method_of(method), _checkpoint_in(teacher)
    machine = run_options(workers, minutes, threads, out)
    try:
        torch.manual_seed(recipe.seed)
        system = open_system(teacher, semantic, recipe)
        if system.kind not in chosen.systems:
            raise UsageError(f"'{method}' distils {' and '.join(chosen.systems)}, {teacher} holds a {system.kind}")
        photos, inputs = open_data(
            data, val, use=use, seed=recipe.seed, crop=recipe.largest_crop, side=system.thumbnail_side, structures=False
        )
        inputs |= {"teacher": system.source}
        if start:
            inputs["from"] = file_hash(_checkpoint_in(start))
        if semantic:
            inputs["semantic"] = file_hash(semantic_file(semantic))
        stage = chosen(DistillRun(recipe, system, photos, out, processes().device))
        if start:
            checkpoints.load(_checkpoint_in(start), system.kind).fill(stage.model)
        yield from train(stage, photos, recipe, out, inputs=inputs, **machine)
    finally:
        close()


def distill_recipe(
    method: str,
    path: Path | None = None,
    *,
    sampling_steps: int | None = None,
    task: str | None = None,
    settings: Sequence[str] = (),
) -> DistillRecipe:
    """The recipe of a method of `DISTILL_METHODS`: that in the file `path` (.toml or .json), or the method's default.

    `sampling_steps` are those of the student, `task`, one of `degradations.TASKS`, is what damages the photos; None for
    the recipe's. `settings` are changes, "name=value", applied last; see `Recipe.with_settings`. Raises UsageError for
    an unknown name or a value that does not fit, TrainingError for a file that is not a recipe of this method.
    """
    return configured(method_of(method).default, path, settings, sampling_steps=sampling_steps, task=task)


def method_of(name: str) -> type[DistillStage]:
    """The method of this name, "one-step" or "one_step". Raises UnknownNameError."""
    plain = name.replace("-", "_")
    if plain not in DISTILL_METHODS:
        raise UnknownNameError("method", name, DISTILL_METHODS)
    return import_module(f".{plain}", __package__).METHOD


def _checkpoint_in(place: Path) -> Path:
    return place / CHECKPOINT_NAME if place.is_dir() else place


def open_system(teacher: Path, semantic: str | None, recipe: DistillRecipe) -> DistillSystem:
    """The system of the checkpoint `teacher`, for this recipe.

    Raises CheckpointError; UsageError without its semantic encoder, or for crops that it cannot take.
    """
    checkpoint = checkpoints.load(teacher, "dtpm", "gen2res", "diffir")
    found = checkpoint, file_hash(teacher), recipe
    if checkpoint.kind == "dtpm":
        system = DtpmSystem(*found, open_semantic(semantic) if semantic else None)
    else:
        system = Gen2ResSystem(*found) if checkpoint.kind == "gen2res" else DiffirSystem(*found)
    recipe.check_crop(system.teacher.multiple_of)
    return system
