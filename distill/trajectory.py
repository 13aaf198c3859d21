"""Trajectory distillation: the student walks its few steps, each learns to arrive where the teacher's many do.

Zhou et al., "Simple and Fast Distillation of Diffusion Models" (NeurIPS 2024): the teacher's trajectories are computed
once, in advance; only the levels that are used are learnt; and the student starts each step from where its own last
one arrived, so that it learns to correct itself.

The trajectories are one file in the run folder, an array of records that whoever draws from it memory-maps. Its name
carries a hash of teacher and recipe, so that a run never learns from the path of another teacher. A computation that
was killed resumes.
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
from ..core.training.data.photos import Pool, TrainingData
from ..core.training.loop.processes import resolve
from ..core.training.loop.run_folder import bar, clear_errors
from ..core.training.loop.stage import Arrays
from .ddim_step import implied_clean, snr_loss, state_at
from .distill_stage import DistillMethod, DistillRecipe, DistillStage
from .system import DistillSystem

__all__ = ["STATES", "Trajectories", "TrajectoryRecipe", "TrajectoryStage", "trajectories"]

STATES = "states"
DONE = "done"
BATCH = 16  # crops that the teacher runs on at once
TRAJECTORY_KEY = 2**33  # of the generators of crops: no sample of a training step has it


@dataclass(frozen=True)
class TrajectoryRecipe(DistillRecipe):
    """How to learn the teacher's trajectories."""

    crops: int = 1536  # whose trajectories are kept
    megabytes: int = 512  # limit of the file's size; fewer crops are kept if they do not fit

    def __post_init__(self) -> None:
        super().__post_init__()
        self.at_least_one("crops", "megabytes")


class TrajectoryStage(DistillStage):
    """Learns the teacher's states at the student's levels; computes them first, and keeps them in the run folder."""

    method = "trajectory"

    def __init__(
        self, recipe: TrajectoryRecipe, system: DistillSystem, data: TrainingData, run: Path, device: torch.device
    ) -> None:
        super().__init__(recipe, system, data)
        self.rows = trajectories(system, data.train.at(0), self.steps, recipe, run, device)

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Squared error of x0 at every step, weighted by SNR + 1: the target leads to the teacher's next state.

        batch: `states` (N, steps, ...), the teacher's at the end of each step. Gradients do not pass from step to step.
        """
        problem = self.system.problem(batch)
        x = problem.start
        errors = []
        for i, time in enumerate(self.steps.times):
            alpha_bar, following = (x.new_full((len(x),), level) for level in self.steps.levels[i : i + 2])
            found = problem.denoise(self.model, x, alpha_bar, x.new_full((len(x),), time))
            target = implied_clean(x, batch[STATES][:, i], alpha_bar, following)
            errors.append(snr_loss(found.clean, target, alpha_bar))
            x = state_at(found.clean, found.eps, following).detach()
        return {"loss": torch.stack(errors).mean(), "end": errors[-1]}


@dataclass(frozen=True)
class Trajectories:
    """The samples at `path`, as `DistillSystem.draw` drew them, with `states` (steps, ...) at the end of each step."""

    path: Path
    count: int

    def row(self, index: int) -> Arrays:
        """One crop with its states, as float32."""
        record = np.load(self.path, mmap_mode="r")[index]
        return {name: _plain(np.array(record[name])) for name in record.dtype.names if name != DONE}


def _plain(stored: NDArray[Any]) -> NDArray[Any]:
    return stored.astype(np.float32) if stored.dtype == np.float16 else stored


def trajectories(
    system: DistillSystem, pool: Pool, kept: Steps, recipe: TrajectoryRecipe, folder: Path, device: torch.device
) -> Trajectories:
    """The teacher's states at the student's levels, on its path over random crops of `pool`.

    Images and states are stored in float16, and the path starts from the stored values.

    Args:
        system: the teacher.
        pool: photos to cut crops from.
        kept: the student's steps; the teacher's sampler must pass all their levels.
        recipe: number and size of the crops, seed, precision.
        folder: where the file is kept, or found again.
        device: where the teacher runs.

    Raises:
        TrainingError: the file cannot be written.
    """
    system.frozen.to(device)
    teacher = _Teacher(system, pool, system.steps(recipe.teacher_steps), kept, recipe, device)
    record = _record(teacher.draw(0), kept.step_count)
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
    system: DistillSystem
    pool: Pool
    steps: Steps
    kept: Steps
    recipe: TrajectoryRecipe
    device: torch.device

    def draw(self, index: int) -> Arrays:
        rng = np.random.Generator(np.random.Philox(key=[TRAJECTORY_KEY + self.recipe.seed, index]))
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
    """The type of a record: floats in half precision, the rest unchanged."""

    def stored(array: NDArray[Any]) -> Any:
        return np.float16 if array.dtype == np.float32 else array.dtype

    fields = [(name, stored(array), array.shape) for name, array in sample.items()]
    return np.dtype([*fields, (STATES, np.float16, (steps, *sample["noise"].shape)), (DONE, np.bool_, ())])


def _fill(rows: NDArray[Any], teacher: _Teacher) -> None:
    pieces = [slice(first, min(first + BATCH, len(rows))) for first in range(0, len(rows), BATCH)]
    drawn = [name for name in rows.dtype.names or () if name not in (STATES, DONE)]
    for piece in bar([p for p in pieces if not rows[DONE][p].all()], "trajectories", f"x{BATCH} crops"):
        for i in range(piece.start, piece.stop):
            for name, array in teacher.draw(i).items():
                rows[i][name] = array
        rows[STATES][piece] = teacher.states({n: torch.from_numpy(_plain(np.array(rows[n][piece]))) for n in drawn})
        rows[DONE][piece] = True


def _hash(teacher: _Teacher, count: int) -> str:
    """Of the teacher's weights and of everything else that determines the path."""
    recipe = teacher.recipe
    facts = (teacher.steps, teacher.kept, teacher.system.task, count, recipe.crop, recipe.seed, teacher.precision)
    digest = hashlib.sha256(repr(facts).encode())
    for name, tensor in sorted(teacher.system.teacher.state_dict().items()):
        digest.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


METHOD = DistillMethod(
    TrajectoryRecipe(steps=3000, batch=8, crop=64, rate=1e-3, warmup=100, ema=0.995, save_every=500),
    ("dtpm", "gen2res"),
    TrajectoryStage,
)
