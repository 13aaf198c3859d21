from __future__ import annotations

import torch

from pocketprior.core.training.data.photos import Pool
from pocketprior.distill.one_step import OneStepStage, PatchCritic, high_pass
from support.small_checkpoints import Build, batch_of


def test_high_pass_takes_away_colour_and_slope_but_not_grain() -> None:
    ramp = torch.linspace(0, 1, 32).expand(1, 3, 32, 32)
    grain = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    inside = high_pass(ramp + 0.3)[..., 2:-2, 2:-2]
    assert float(inside.abs().max()) < 1e-6
    assert 0.7 < float(high_pass(grain).std()) < 1.0


def test_patches_are_judged_at_two_scales() -> None:
    scores = PatchCritic(4, 1.0)(torch.rand(1, 3, 16, 16))
    assert len(scores) == 2
    assert scores[0].shape[2] > scores[1].shape[2]


def test_critics_learn_what_the_student_makes(build: Build, pool: Pool) -> None:
    """On one batch the fake-score model gets to know the student's end, the patch critic tells it from photos."""
    stage = build("one_step", sampling_steps=1, updates=2, fake_rate=5e-3, patch_rate=5e-3)
    assert isinstance(stage, OneStepStage)
    with torch.no_grad():
        for parameter in stage.model.parameters():
            parameter.mul_(1.5)
    batch = batch_of(stage, pool)
    before = {name: tensor.clone() for name, tensor in stage.model.state_dict().items()}
    found = [stage.auxiliary.step(i, batch, lambda tensor: tensor) for i in range(8)]
    assert float(found[-1]["fake"]) < 0.9 * float(found[0]["fake"])
    assert float(found[-1]["patch"]) < 0.9 * float(found[0]["patch"])
    assert all(before[name].equal(tensor) for name, tensor in stage.model.state_dict().items())


def test_scores_pull_the_student_towards_its_teacher(build: Build, pool: Pool) -> None:
    """Where the fake scores are the teacher's, the distributions match and nothing pulls; elsewhere something does."""
    stage = build("one_step", sampling_steps=1, score=1.0, l1=0.0, adversarial=0.0)
    assert isinstance(stage, OneStepStage)
    batch = batch_of(stage, pool)
    assert float(stage.loss(batch)["score"].detach()) == 0.0
    with torch.no_grad():
        for parameter in stage.critics.fake.parameters():
            parameter.mul_(1.3)
    assert float(stage.loss(batch)["score"].detach()) > 0.0
