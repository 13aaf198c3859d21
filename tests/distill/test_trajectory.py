"""The teacher's trajectories: computed once, what the sampler passes, and found again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from pocketprior.core.training.data.photos import Pool, TrainingData
from pocketprior.core.training.loop.stage import stacked
from pocketprior.distill import trajectory as module
from pocketprior.distill.distillation import DistillRun, open_system
from pocketprior.distill.system import DistillSystem
from pocketprior.distill.trajectory import STATES, TrajectoryRecipe, TrajectoryStage, sample_of, trajectories

CPU = torch.device("cpu")
RECIPE = TrajectoryRecipe(steps=1, batch=2, crop=16, precision="fp32", crops=20, teacher_steps=6, sampling_steps=3)


@pytest.fixture(params=["dtpm", "gen2res"])
def system(request: pytest.FixtureRequest, files: dict[str, tuple[Path, str | None]]) -> DistillSystem:
    return open_system(*files[request.param], RECIPE)


def paths(system: DistillSystem, pool: Pool, folder: Path, recipe: TrajectoryRecipe = RECIPE) -> Path:
    run = DistillRun(recipe, system, TrainingData(pool, pool), folder, CPU)
    return trajectories(run, system.student_steps(3, system.steps(6)))


def batch(path: Path) -> dict[str, torch.Tensor]:
    rows = np.load(path)
    return stacked([sample_of(rows[i]) for i in range(2)])


def test_states_are_those_that_the_sampler_passes(system: DistillSystem, pool: Pool, tmp_path: Path) -> None:
    found = batch(paths(system, pool, tmp_path))
    passed: list[torch.Tensor] = []
    end = system.problem(found).sample(system.teacher, system.steps(6), passed)
    for i, state in enumerate([passed[2], passed[4], end]):
        torch.testing.assert_close(found[STATES][:, i], state, rtol=2e-3, atol=4e-3)  # stored in half precision


def test_teacher_that_has_the_students_steps_has_nothing_to_learn(
    system: DistillSystem, pool: Pool, tmp_path: Path
) -> None:
    recipe = replace(RECIPE, teacher_steps=3)
    stage = TrajectoryStage(DistillRun(recipe, system, TrainingData(pool, pool), tmp_path, CPU))
    assert stage.rows is not None
    with torch.no_grad():
        error = stage.loss(batch(stage.rows))["loss"]
    assert float(error) < 1e-4  # what half precision leaves


def test_file_is_found_again_and_not_that_of_another_teacher(
    system: DistillSystem, pool: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = paths(system, pool, tmp_path)
    before = first.stat().st_mtime_ns
    monkeypatch.setattr(module, "_fill", None)
    assert paths(system, pool, tmp_path).stat().st_mtime_ns == before
    monkeypatch.undo()
    with torch.no_grad():
        next(system.teacher.parameters()).mul_(1.01)
    assert paths(system, pool, tmp_path) != first
    assert paths(system, pool, tmp_path, replace(RECIPE, seed=1)) != first


def test_killed_computation_goes_on(
    system: DistillSystem, pool: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = paths(system, pool, tmp_path / "whole")
    states, calls = module._states, []

    def killed(run: object, kept: object, batch: dict[str, torch.Tensor]) -> object:
        calls.append(len(batch["noise"]))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return states(run, kept, batch)

    monkeypatch.setattr(module, "_states", killed)
    with pytest.raises(KeyboardInterrupt):
        paths(system, pool, tmp_path / "killed")
    resumed = paths(system, pool, tmp_path / "killed")
    assert calls == [16, 4, 4]
    assert resumed.read_bytes() == whole.read_bytes()


def test_size_is_bounded(system: DistillSystem, pool: Pool, tmp_path: Path) -> None:
    found = paths(system, pool, tmp_path, replace(RECIPE, crops=10**6, megabytes=1))
    assert len(np.load(found)) < 10**3
    assert found.stat().st_size <= 2**20 + 4096
