"""The phase with a discriminator: what it learns against, and that it resumes exactly."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from pocketprior.core.training.data.photos import Pool, TrainingData
from pocketprior.core.training.diffir.phases import AdversarialStage, Discriminator, real_loss
from pocketprior.core.training.loop.loop import train
from pocketprior.core.training.loop.stage import TrainingStage
from pocketprior.core.training.losses import detail_loss
from support.small_checkpoints import batch_of
from support.toy_training import record

from .conftest import MODEL

Build = Callable[..., TrainingStage]


def adversarial(build: Build, **changes: object) -> AdversarialStage:
    stage = build("adversarial", discriminator_width=4, **changes)
    assert isinstance(stage, AdversarialStage)
    return stage


@pytest.mark.parametrize("size", [(16, 16), (9, 30)])
def test_discriminator_scores_every_pixel(size: tuple[int, int]) -> None:
    image = torch.rand(2, 3, *size, requires_grad=True)
    scores = Discriminator(4)(image)
    assert scores.shape == (2, 1, *size)
    scores.sum().backward()
    assert image.grad is not None
    assert float(image.grad.abs().amin(dim=(0, 1)).min()) > 0


def test_spectral_norms_are_one() -> None:
    torch.manual_seed(0)
    judge = Discriminator(4)
    for _ in range(20):
        judge(torch.rand(1, 3, 16, 16))
    for layer in (*judge.downs, *judge.ups, judge.refine):
        largest = torch.linalg.matrix_norm(layer.weight.detach().flatten(1), ord=2)
        assert float(largest) == pytest.approx(1, abs=0.02)


def test_a_score_of_zero_is_undecided() -> None:
    assert float(real_loss(torch.zeros(3))) == pytest.approx(0.6931, abs=1e-4)
    assert float(real_loss(torch.tensor([9.0]))) < 0.001
    assert float(real_loss(torch.tensor([-9.0]))) == pytest.approx(9, abs=1e-3)


def test_loss_adds_what_the_joint_phase_lacks(build: Build, pool: Pool) -> None:
    stage = adversarial(build, detail=0.5, adversarial=0.25)
    batch = batch_of(stage, pool)
    state = {name: tensor.clone() for name, tensor in stage.auxiliary.state().items()}
    with torch.no_grad():
        figures, again = stage.loss(batch), stage.loss(batch)
        made = stage.made(batch)
        detail, judged = detail_loss(made, batch["clean"]).mean(), real_loss(stage.opponent.judge(made))
    torch.testing.assert_close(figures["detail"], detail)
    torch.testing.assert_close(figures["adversarial"], judged)
    joint = figures["content"] + figures["prior"]
    torch.testing.assert_close(figures["loss"], joint + 0.5 * detail + 0.25 * judged)
    assert all(torch.equal(value, again[name]) for name, value in figures.items())
    assert all(torch.equal(tensor, stage.auxiliary.state()[name]) for name, tensor in state.items())


def test_discriminator_learns_what_is_made_and_the_model_stays(build: Build, pool: Pool) -> None:
    stage = adversarial(build, discriminator_rate=5e-4)
    batch = batch_of(stage, pool, 4)
    before = {name: tensor.clone() for name, tensor in stage.model.state_dict().items()}
    found = [float(stage.auxiliary.step(i, batch, lambda tensor: tensor)["discriminator"]) for i in range(40)]
    assert found[-1] < 0.9 * found[0]
    assert all(torch.equal(before[name], tensor) for name, tensor in stage.model.state_dict().items())


def test_known_pixels_are_never_judged_as_made(build: Build, pool: Pool) -> None:
    stage = adversarial(build, model=replace(MODEL, inputs=4), mask="thick")
    batch = batch_of(stage, pool)
    known = (batch["image"][:, 3:] == 0).expand(-1, 3, -1, -1)
    with torch.no_grad():
        made = stage.made(batch)
    assert torch.equal(made[known], batch["clean"][known])
    assert not torch.equal(made, batch["clean"])


def test_resumed_run_walks_the_same_path(build: Build, pool: Pool, tmp_path: Path) -> None:
    """The discriminator, its spectral norms and its optimiser are part of the state, and crops go on growing."""
    changes = {"batch": 2, "steps": 4, "save_every": 2, "warmup": 1, "grown": (24,), "grow_every": 1}
    for run, parts in ((tmp_path / "whole", 1), (tmp_path / "resumed", 2)):
        for part in range(parts):
            stage = adversarial(build, **changes)
            steps = train(stage, TrainingData(pool, pool), stage.recipe, run, workers=0)
            if part < parts - 1:
                assert next(steps).step == 2
                steps.close()
            else:
                last = list(steps)[-1]
                assert last.step == 4
                assert {"detail", "adversarial", "discriminator"} <= set(last.figures)
    assert record(tmp_path / "whole") == record(tmp_path / "resumed")


def test_growing_crops_reach_the_loss_at_their_steps(build: Build, pool: Pool, tmp_path: Path) -> None:
    stage = build("pretrain", batch=2, steps=5, save_every=5, warmup=1, grown=(24, 32), grow_every=2)
    sides: list[int] = []
    stage.model.cpen.register_forward_pre_hook(lambda _cpen, given: sides.append(given[0].shape[-1]))
    list(train(stage, TrainingData(pool, pool), stage.recipe, tmp_path, workers=0))
    assert sides[:5] == [16, 16, 24, 24, 32]  # then held-back photos are judged
