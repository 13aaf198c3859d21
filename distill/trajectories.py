"""Teacher trajectories, computed once: what the student's levels look like on the teacher's own path.

One file in the run folder, an array of records, memory-mapped by whoever draws from it. Its name carries a hash of
teacher and recipe, so that a run never learns from the path of another teacher. A killed computation goes on where it
stopped.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..core.sampling.steps import Steps
from ..core.training.data.photos import Pool
from ..core.training.loop.log import bar
from ..core.training.loop.resume import clear_errors
from ..core.training.loop.stage import Arrays
from ..core.training.loop.threads import resolve
from .recipe import DistillRecipe
from .system import System

__all__ = ["STATES", "Trajectories", "TrajectoryRecipe", "trajectories"]

STATES, DONE = "states", "done"
ROWS = 16  # crops that the teacher is run on at once
KEY = 2**33  # of the generators of crops: no sample of a training step has it


@dataclass(frozen=True)
class TrajectoryRecipe(DistillRecipe):
    """How to learn the teacher's trajectories."""

    crops: int = 1536  # whose trajectories are kept
    megabytes: int = 512  # that they may take; fewer crops are kept if they are more

    def __post_init__(self) -> None:
        super().__post_init__()
        self.at_least_one("crops", "megabytes")


@dataclass(frozen=True)
class Trajectories:
    """The crops at `path`, each with what `System.draw` drew and `states` (steps, ...), one at the end of each step."""

    path: Path
    count: int

    def row(self, index: int) -> Arrays:
        """One crop with its states, as float32."""
        record = np.load(self.path, mmap_mode="r")[index]
        return {name: _plain(np.array(record[name])) for name in record.dtype.names if name != DONE}


def _plain(stored: NDArray[Any]) -> NDArray[Any]:
    return stored.astype(np.float32) if stored.dtype == np.float16 else stored


def trajectories(
    system: System, pool: Pool, kept: Steps, recipe: TrajectoryRecipe, folder: Path, device: torch.device
) -> Trajectories:
    """The teacher's path over random crops of `pool`, in a file in `folder`: its states at the student's levels.

    kept: the student's steps, all levels of which the teacher's sampler passes. Pictures and states are stored in
    float16, and the path starts from what is stored. Raises TrainingError when the file cannot be written.
    """
    system.frozen.to(device)
    teacher = _Teacher(system, pool, system.steps(recipe.teacher_steps), kept, recipe, device)
    record = _record(teacher.draw(0), kept.count)
    count = max(1, min(recipe.crops, recipe.megabytes * 2**20 // record.itemsize))
    name = _hash(teacher, count)
    path, part = folder / f"trajectories-{name}.npy", folder / f".trajectories-{name}.part"
    if not path.exists():
        with clear_errors(path):
            folder.mkdir(parents=True, exist_ok=True)
            rows = np.lib.format.open_memmap(part, "r+" if part.exists() else "w+", record, (count,))
            _fill(rows, teacher)
            rows.flush()
            part.replace(path)
    return Trajectories(path, count)


class _Teacher(NamedTuple):
    system: System
    pool: Pool
    steps: Steps
    kept: Steps
    recipe: TrajectoryRecipe
    device: torch.device

    def draw(self, index: int) -> Arrays:
        rng = np.random.Generator(np.random.Philox(key=[KEY + self.recipe.seed, index]))
        return self.system.draw(self.pool, self.recipe.crop, rng)

    @property
    def precision(self) -> str:
        return resolve(self.recipe.precision, self.device)

    @torch.no_grad()
    def states(self, batch: dict[str, Tensor]) -> NDArray[np.float32]:
        """At the end of each of the kept steps, (N, kept, ...)."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            problem = self.system.problem({name: tensor.to(self.device) for name, tensor in batch.items()})
            passed: list[Tensor] = []
            end = problem.sample(self.system.teacher, problem.start, self.steps, passed)
        wanted = [self.steps.times.index(time) for time in self.kept.times[1:]]
        return torch.stack([*(passed[i] for i in wanted), end], dim=1).float().cpu().numpy()


def _record(sample: Mapping[str, NDArray[Any]], steps: int) -> np.dtype[Any]:
    """What is kept of one crop: floats in half precision, the rest as it is."""

    def stored(array: NDArray[Any]) -> Any:
        return np.float16 if array.dtype == np.float32 else array.dtype

    fields = [(name, stored(array), array.shape) for name, array in sample.items()]
    return np.dtype([*fields, (STATES, np.float16, (steps, *sample["noise"].shape)), (DONE, np.bool_, ())])


def _fill(rows: NDArray[Any], teacher: _Teacher) -> None:
    pieces = [slice(first, min(first + ROWS, len(rows))) for first in range(0, len(rows), ROWS)]
    drawn = [name for name in rows.dtype.names or () if name not in (STATES, DONE)]
    for piece in bar([p for p in pieces if not rows[DONE][p].all()], "trajectories", f"x{ROWS} crops"):
        for i in range(piece.start, piece.stop):
            for name, array in teacher.draw(i).items():
                rows[i][name] = array
        rows[STATES][piece] = teacher.states({n: torch.from_numpy(_plain(np.array(rows[n][piece]))) for n in drawn})
        rows[DONE][piece] = True


def _hash(teacher: _Teacher, count: int) -> str:
    """Of the teacher's weights and of everything else that decides the path."""
    recipe = teacher.recipe
    facts = (teacher.steps, teacher.kept, teacher.system.task, count, recipe.crop, recipe.seed, teacher.precision)
    digest = hashlib.sha256(repr(facts).encode())
    for name, tensor in sorted(teacher.system.teacher.state_dict().items()):
        digest.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
