"""Distil a trained model by one of the methods: the public function and its parts."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from importlib import import_module
from pathlib import Path

import torch

from ..core.errors import UnknownNameError, UsageError
from ..core.models import checkpoints
from ..core.models.semantic_code import open_semantic, semantic_file
from ..core.training.data.pairs import PairUse
from ..core.training.data.sources import file_hash, open_data
from ..core.training.loop.loop import CHECKPOINT_NAME, SavedStep, train
from ..core.training.loop.processes import close, processes
from ..core.training.runs import configured, run_options
from . import DISTILL_METHODS
from .diffir import DiffirSystem
from .distill_stage import DistillMethod, DistillRecipe
from .dtpm import DtpmSystem
from .gen2res import Gen2ResSystem
from .system import DistillSystem

__all__ = ["checkpoint_in", "distill", "distill_recipe", "method_of", "open_system"]


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
    chosen, teacher = method_of(method), checkpoint_in(teacher)
    machine = run_options(workers, minutes, threads, out)
    try:
        torch.manual_seed(recipe.seed)
        system = open_system(teacher, semantic, recipe)
        if system.kind not in chosen.systems:
            raise UsageError(f"'{method}' distils {' and '.join(chosen.systems)}, {teacher} holds a {system.kind}")
        photos, inputs = open_data(
            data,
            val,
            use=use,
            seed=recipe.seed,
            crop=recipe.largest_crop,
            side=system.thumbnail_side,
            structures=False,
        )
        inputs |= {"teacher": system.source}
        if start:
            inputs["from"] = file_hash(checkpoint_in(start))
        if semantic:
            inputs["semantic"] = file_hash(semantic_file(semantic))
        stage = chosen.build(recipe, system, photos, out, processes().device)
        if start:
            checkpoints.load(checkpoint_in(start), system.kind).fill(stage.model)
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
    """The recipe of a method.

    Args:
        method: A name of `DISTILL_METHODS`.
        path: A recipe file (.toml or .json); None for the method's default.
        sampling_steps: Steps of the student.
        task: What damages the photos, one of `degradations.TASKS`; None for the recipe's.
        settings: Changes, "name=value", applied last; see `Recipe.with_settings`.

    Raises:
        UsageError: For an unknown name or a value that does not fit.
        TrainingError: For a file that is not a recipe of this method.
    """
    return configured(method_of(method).recipe, path, settings, sampling_steps=sampling_steps, task=task)


def method_of(name: str) -> DistillMethod:
    """The method of this name, "one-step" or "one_step". Raises UnknownNameError."""
    plain = name.replace("-", "_")
    if plain not in DISTILL_METHODS:
        raise UnknownNameError("method", name, DISTILL_METHODS)
    method: DistillMethod = import_module(f".{plain}", __package__).METHOD
    return method


def checkpoint_in(place: Path) -> Path:
    """The checkpoint in a run folder, or the file itself."""
    return place / CHECKPOINT_NAME if place.is_dir() else place


def open_system(teacher: Path, semantic: str | None, recipe: DistillRecipe) -> DistillSystem:
    """The system of the checkpoint `teacher`, for this recipe.

    Raises CheckpointError; UsageError without its semantic encoder, or for crops that it cannot take.
    """
    checkpoint, source = checkpoints.load(teacher, "dtpm", "gen2res", "diffir"), file_hash(teacher)
    system: DistillSystem
    if checkpoint.kind == "dtpm":
        system = DtpmSystem(checkpoint, open_semantic(semantic) if semantic else None, recipe, source)
    elif checkpoint.kind == "gen2res":
        system = Gen2ResSystem(checkpoint, recipe, source)
    else:
        system = DiffirSystem(checkpoint, recipe, source)
    recipe.check_crop(system.multiple_of)
    return system
