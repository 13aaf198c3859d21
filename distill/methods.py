"""Distil a trained model by one of the methods: the public function and its parts."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from ..core.errors import UnknownNameError, UsageError
from ..core.models import checkpoints
from ..core.models.semantic import open_semantic, semantic_file
from ..core.training.data.pairs import Use
from ..core.training.data.sources import file_hash, open_data
from ..core.training.loop.loop import CHECKPOINT_NAME, Step, train
from ..core.training.loop.processes import processes
from . import DISTILL_METHODS
from .diffir import DiffirSystem
from .dtpm import DtpmSystem
from .gen2res import Gen2ResSystem
from .stage import DistillMethod, DistillRecipe
from .system import DistillSystem

__all__ = ["distill", "method_of", "open_system"]


def distill(
    teacher: Path,
    method: str,
    data: str,
    out: Path,
    *,
    recipe: DistillRecipe | None = None,
    start: Path | None = None,
    semantic: str | None = None,
    val: str | None = None,
    use: Use = "any",
    **machine: Any,
) -> Iterator[Step]:
    """Train a few-step student of a model; an unfinished run in `out` is continued.

    Args:
        teacher: a checkpoint, or the run folder that holds one.
        method: a name of `DISTILL_METHODS`.
        data: folder of photos or pairs, or shards.
        out: run folder; the student becomes `model.safetensors` there.
        recipe: how to train; None for the method's default.
        start: student to start from instead of the teacher's weights, as `teacher`.
        semantic: the semantic encoder of a DTPM, a checkpoint or "timm:MODEL=FILE".
        val: held-back photos, unless they are part of `data`.
        use: which pairs of `data` to take.
        **machine: workers, minutes and threads of `core.training.loop.loop.train`.

    Yields:
        The figures of each validation: the student's PSNR, NIQE and SWD, the teacher's, and whether texture is being
        lost ("val_texture_lost").

    Raises:
        UnknownNameError: there is no such method.
        UsageError: method, teacher and recipe do not fit one another.
        CheckpointError: a checkpoint is missing, damaged or of another kind.
        TrainingError: see `train`.
    """
    chosen = method_of(method)
    recipe = recipe or chosen.recipe
    teacher = checkpoint_in(teacher)
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
