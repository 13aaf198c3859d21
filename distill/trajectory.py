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
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.random import Generator, Philox
from numpy.typing import NDArray
from torch import Tensor

from ..core.sampling.steps import Steps
from ..core.training.data.photos import Pool
from ..core.training.loop.processes import resolve
from ..core.training.loop.run_folder import bar, clear_errors
from ..core.training.loop.stage import Arrays
from .distillation import DistillRun, DistillStage
from .system import DistillRecipe, implied_clean, snr_loss, state_at

__all__ = ["STATES", "TrajectoryRecipe", "TrajectoryStage", "sample_of", "trajectories"]

STATES = "states"
DONE = "done"
BATCH = 16  # crops that the teacher runs on at once
TRAJECTORY_KEY = 2**33  # of the generators of crops: no sample of a training step has it


@dataclass(frozen=True)
class TrajectoryRecipe(DistillRecipe):
    """How to learn the teacher's trajectories."""

    crops: int = 1536  # whose trajectories are kept
    megabytes: int = 512  # limit of the file's size; fewer crops are kept if they do not fit
    counts = (*DistillRecipe.counts, "crops", "megabytes")


class TrajectoryStage(DistillStage):
    """Learns the teacher's states at the student's levels; computes them first, and keeps them in the run folder."""

    method = "trajectory"
    systems = ("dtpm", "gen2res")
    default = TrajectoryRecipe(steps=3000, batch=8, rate=1e-3, warmup=100, save_every=500)
    short: ClassVar[int] = 0  # most steps of a teacher whose chain is run again for every batch instead
    rows: Path | None = None  # the file of samples to learn from; without it crops are drawn anew

    def __init__(self, run: DistillRun[TrajectoryRecipe]) -> None:
        super().__init__(run)
        if self.teacher_steps.step_count > self.short:
            self.rows = trajectories(run, self.steps)

    def draw(self, pool: Pool, crop: int, rng: Generator) -> Arrays:
        """As in `TrainingStage`: one of `rows`, or a sample of the system."""
        if self.rows is None:
            return super().draw(pool, crop, rng)
        rows = np.load(self.rows, mmap_mode="r")
        return sample_of(rows[int(rng.integers(len(rows)))])

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
            x = state_at(*found, following).detach()
        return {"loss": torch.stack(errors).mean(), "end": errors[-1]}


def sample_of(record: np.void) -> Arrays:
    """One crop of the file with its states, as float32: as `DistillSystem.draw` drew it, with `states` (steps, ...)."""
    return {name: _plain(np.array(record[name])) for name in record.dtype.names or () if name != DONE}


def _plain(stored: NDArray[Any]) -> NDArray[Any]:
    return stored.astype(np.float32) if stored.dtype == np.float16 else stored


def trajectories(run: DistillRun[TrajectoryRecipe], kept: Steps) -> Path:
    """The file of the teacher's states at the student's levels, on its path over random crops; in the run folder.

    Images and states are stored in float16, and the path starts from the stored values. kept: the student's steps; the
    teacher's sampler must pass all their levels. Raises TrainingError if the file cannot be written.
    """
    run.system.frozen.to(run.device)
    record = _record(_draw(run, 0), kept.step_count)
    count = max(1, min(run.recipe.crops, run.recipe.megabytes * 2**20 // record.itemsize))
    name = _hash(run, kept, count)
    path, part = run.folder / f"trajectories-{name}.npy", run.folder / f".trajectories-{name}.part"
    if not path.exists():
        with clear_errors(path):
            run.folder.mkdir(parents=True, exist_ok=True)
            rows = np.lib.format.open_memmap(part, "r+" if part.exists() else "w+", record, (count,))
            _fill(rows, run, kept)
            rows.flush()
            part.replace(path)
    return path


def _draw(run: DistillRun[TrajectoryRecipe], index: int) -> Arrays:
    rng = Generator(Philox(key=[TRAJECTORY_KEY + run.recipe.seed, index]))
    return run.system.draw(run.data.train.at(0), run.recipe.crop, rng)


def _record(sample: Mapping[str, NDArray[Any]], steps: int) -> np.dtype[Any]:
    """The type of a record: floats in half precision, the rest unchanged."""
    fields = [(n, np.float16 if a.dtype == np.float32 else a.dtype, a.shape) for n, a in sample.items()]
    return np.dtype([*fields, (STATES, np.float16, (steps, *sample["noise"].shape)), (DONE, np.bool_, ())])


def _fill(rows: NDArray[Any], run: DistillRun[TrajectoryRecipe], kept: Steps) -> None:
    pieces = [slice(first, min(first + BATCH, len(rows))) for first in range(0, len(rows), BATCH)]
    drawn = [name for name in rows.dtype.names or () if name not in (STATES, DONE)]
    for piece in bar([p for p in pieces if not rows[DONE][p].all()], "trajectories", f"x{BATCH} crops"):
        for i in range(piece.start, piece.stop):
            for name, array in _draw(run, i).items():
                rows[i][name] = array
        batch = {name: torch.from_numpy(_plain(np.array(rows[name][piece]))).to(run.device) for name in drawn}
        rows[STATES][piece] = _states(run, kept, batch)
        rows[DONE][piece] = True


@torch.no_grad()
def _states(run: DistillRun[TrajectoryRecipe], kept: Steps, batch: dict[str, Tensor]) -> NDArray[np.float32]:
    """The teacher's states at the end of each of the kept steps, (N, kept, ...)."""
    steps, precision = run.system.steps(run.recipe.teacher_steps), resolve(run.recipe.precision, run.device)
    passed: list[Tensor] = []
    with torch.autocast(run.device.type, torch.bfloat16, enabled=precision == "bf16"):
        end = run.system.problem(batch).sample(run.system.teacher, steps, passed)
    wanted = [steps.times.index(time) for time in kept.times[1:]]
    return torch.stack([*(passed[i] for i in wanted), end], dim=1).float().cpu().numpy()


def _hash(run: DistillRun[TrajectoryRecipe], kept: Steps, count: int) -> str:
    recipe, system = run.recipe, run.system
    steps, precision = system.steps(recipe.teacher_steps), resolve(recipe.precision, run.device)
    facts = (steps, kept, system.task, count, recipe.crop, recipe.seed, precision)
    digest = hashlib.sha256(repr(facts).encode())
    for name, tensor in sorted(system.teacher.state_dict().items()):
        digest.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


METHOD = TrajectoryStage
