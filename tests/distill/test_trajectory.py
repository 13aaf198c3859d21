"""The teacher's trajectories: computed once, what the sampler passes, and found again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from pocketprior.core.training.data.photos import Pool, TrainingData
from pocketprior.distill import trajectory as module
from pocketprior.distill.distillation import open_system
from pocketprior.distill.system import DistillSystem
from pocketprior.distill.trajectory import STATES, Trajectories, TrajectoryRecipe, TrajectoryStage, trajectories

CPU = torch.device("cpu")
RECIPE = TrajectoryRecipe(steps=1, batch=2, crop=16, precision="fp32", crops=20, teacher_steps=6, sampling_steps=3)


@pytest.fixture(params=["dtpm", "gen2res"])
def system(request: pytest.FixtureRequest, files: dict[str, tuple[Path, str | None]]) -> DistillSystem:
    return open_system(*files[request.param], RECIPE)


def paths(system: DistillSystem, pool: Pool, folder: Path, recipe: TrajectoryRecipe = RECIPE) -> Trajectories:
    return trajectories(system, pool, system.student_steps(3, 6), recipe, folder, CPU)


def batch(found: Trajectories) -> dict[str, torch.Tensor]:
    rows = [found.row(i) for i in range(2)]
    return {name: torch.from_numpy(np.stack([row[name] for row in rows])) for name in rows[0]}


def test_states_are_those_that_the_sampler_passes(system: DistillSystem, pool: Pool, tmp_path: Path) -> None:
    found = batch(paths(system, pool, tmp_path))
    problem, passed = system.problem(found), []
    end = problem.sample(system.teacher, problem.start, system.steps(6), passed)
    for i, state in enumerate([passed[2], passed[4], end]):
        torch.testing.assert_close(found[STATES][:, i], state, rtol=2e-3, atol=4e-3)  # stored in half precision


def test_teacher_that_has_the_students_steps_has_nothing_to_learn(
    system: DistillSystem, pool: Pool, tmp_path: Path
) -> None:
    recipe = replace(RECIPE, teacher_steps=3)
    stage = TrajectoryStage(recipe, system, TrainingData(pool, pool), tmp_path, CPU)
    assert isinstance(stage.rows, Trajectories)
    with torch.no_grad():
        error = stage.loss(batch(stage.rows))["loss"]
    assert float(error) < 1e-4  # what half precision leaves


def test_file_is_found_again_and_not_that_of_another_teacher(
    system: DistillSystem, pool: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = paths(system, pool, tmp_path)
    before = first.path.stat().st_mtime_ns
    monkeypatch.setattr(module, "_fill", None)
    assert paths(system, pool, tmp_path).path.stat().st_mtime_ns == before
    monkeypatch.undo()
    with torch.no_grad():
        next(system.teacher.parameters()).mul_(1.01)
    assert paths(system, pool, tmp_path).path != first.path
    assert paths(system, pool, tmp_path, replace(RECIPE, seed=1)).path != first.path


def test_killed_computation_goes_on(
    system: DistillSystem, pool: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = paths(system, pool, tmp_path / "whole")
    states, calls = module._Teacher.states, []

    def killed(self: module._Teacher, batch: dict[str, torch.Tensor]) -> object:
        calls.append(len(batch["noise"]))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return states(self, batch)

    monkeypatch.setattr(module._Teacher, "states", killed)
    with pytest.raises(KeyboardInterrupt):
        paths(system, pool, tmp_path / "killed")
    resumed = paths(system, pool, tmp_path / "killed")
    assert calls == [16, 4, 4]
    assert resumed.path.read_bytes() == whole.path.read_bytes()


def test_size_is_bounded(system: DistillSystem, pool: Pool, tmp_path: Path) -> None:
    found = paths(system, pool, tmp_path, replace(RECIPE, crops=10**6, megabytes=1))
    assert found.count < 10**3
    assert found.path.stat().st_size <= 2**20 + 4096
