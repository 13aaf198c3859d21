"""What every method has in common, on every system that it distils."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from pocketprior.core.models import checkpoints
from pocketprior.core.sampling.steps import own_steps
from pocketprior.core.training.data.photos import Pool, TrainingData
from pocketprior.core.training.loop.loop import train
from pocketprior.distill import DISTILL_METHODS, distillation
from pocketprior.distill.distillation import method_of
from support.small_checkpoints import Build, batch_of
from support.toy_training import record

PAIRS = [(method, system) for method in DISTILL_METHODS for system in method_of(method).systems]
ASSISTED = ("progressive", "consistency", "one_step")
OWN = {("quantized", "diffir"): 4}  # steps that a method keeps; others are asked for 2


@pytest.fixture(autouse=True)
def _one_photo(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distillation, "GATE_PHOTOS", 1)


@pytest.mark.parametrize(("method", "system"), PAIRS)
def test_every_trained_weight_learns_and_the_teacher_does_not(
    method: str, system: str, build: Build, pool: Pool
) -> None:
    stage = build(method, system, sampling_steps=OWN.get((method, system), 2))
    before = {name: tensor.clone() for name, tensor in stage.system.teacher.state_dict().items()}
    learnt = {n: p for part in stage.trained for n, p in stage.model.get_submodule(part).named_parameters(part)}
    for parameter in learnt.values():
        parameter.requires_grad_(True)
    with torch.no_grad():  # a student that is its teacher may have nothing to learn
        for parameter in learnt.values():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    figures = stage.loss(batch_of(stage, pool))
    figures["loss"].backward()
    assert all(value.isfinite() and not value.dim() for value in figures.values())
    assert [name for name, parameter in learnt.items() if parameter.grad is None] == []
    assert all(before[name].equal(tensor) for name, tensor in stage.system.teacher.state_dict().items())


@pytest.mark.parametrize(("method", "system"), [p for p in PAIRS if p[0] != "one_step"])
def test_loss_falls_on_one_batch(method: str, system: str, build: Build, pool: Pool) -> None:
    stage = build(method, system, sampling_steps=OWN.get((method, system), 2))
    parts = [stage.model.get_submodule(part).requires_grad_(True) for part in stage.trained]
    with torch.no_grad():  # away from the teacher, so that there is something to learn
        for parameter in stage.model.parameters():
            parameter.mul_(0.8)
    optimizer = torch.optim.Adam([p for part in parts for p in part.parameters()], lr=1e-2)
    batch, losses = batch_of(stage, pool), []
    for _ in range(12):
        loss = stage.loss(batch)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.98 * losses[0]


@pytest.mark.parametrize("method", [*ASSISTED, "quantized"])
def test_resumed_run_walks_the_same_path_whatever_learns_beside(
    method: str, build: Build, pool: Pool, tmp_path: Path
) -> None:
    """The critics, the slow copy and the teacher of the phase are part of the state, bit for bit; bounds of 8 bits are
    found again."""
    for run, parts in ((tmp_path / "whole", 1), (tmp_path / "resumed", 2)):
        for part in range(parts):
            stage = build(method, sampling_steps=2)
            assert hasattr(stage, "auxiliary") is (method in ASSISTED)
            steps = train(stage, TrainingData(pool, pool), stage.recipe, run, workers=0)
            if part < parts - 1:
                assert next(steps).step == 2
                steps.close()
            else:
                assert list(steps)[-1].step == 4
    whole, resumed = record(tmp_path / "whole"), record(tmp_path / "resumed")
    assert [name for name in whole if whole[name] != resumed[name]] == []


def test_checkpoint_says_how_the_student_samples_and_where_it_is_from(build: Build, pool: Pool, tmp_path: Path) -> None:
    stage = build("unrolled", "gen2res", sampling_steps=2)
    recipe = replace(stage.recipe, steps=1, save_every=1)
    (step,) = train(stage, TrainingData(pool, pool), recipe, tmp_path, workers=0)
    facts = checkpoints.load(tmp_path / "model.safetensors", "gen2res").facts
    assert own_steps(facts) == stage.steps
    assert (facts["steps"], facts["method"], facts["teacher_steps"]) == (2, "unrolled", 8)
    assert facts["teacher"] == stage.system.source
    assert facts["gates"]["val_psnr"] == pytest.approx(step.figures["val_psnr"])
    assert {"val_psnr", "val_niqe", "val_swd", "val_teacher_niqe", distillation.LOST} <= set(step.figures)
