from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from pocketprior.core.errors import UsageError
from pocketprior.core.models.dtpm import Dtpm
from pocketprior.core.sampling.schedule import cosine, trailing
from pocketprior.core.training.data.photos import Pool, TrainingData
from pocketprior.core.training.dtpm.task import FINISH_STAGE
from support.small_checkpoints import MODELS, Build, batch_of, earlier


@pytest.mark.parametrize("steps", [1, 4])
def test_loss_is_of_the_picture_that_the_sampler_restores(steps: int, build: Build, pool: Pool) -> None:
    stage = build("finish", sampling_steps=steps, code_drop=1.0)
    assert isinstance(stage.model, Dtpm)
    batch, code = batch_of(stage, pool), torch.zeros(2, 6)
    sampling = trailing(steps, cosine())
    with torch.no_grad():
        base = stage.model.predictor(batch["damaged"])
        texture = stage.model.residual(batch["damaged"], base, code, batch["noise"], *sampling)
        error = (base + stage.model.residual_scale * texture - batch["clean"]).abs().mean()
        torch.testing.assert_close(stage.loss(batch)["l1"], error)
        assert float(error) > 0


def test_loss_adds_its_terms_as_the_recipe_weighs_them(build: Build, pool: Pool) -> None:
    weights = {"psnr": 0.5, "l1": 2.0, "detail": 3.0, "content": 4.0}
    stage = build("finish", **weights)
    figures = stage.loss(batch_of(stage, pool))
    expected = sum(weight * float(figures[name].detach()) for name, weight in weights.items())
    assert float(figures["loss"].detach()) == pytest.approx(expected, rel=1e-5)


def test_a_few_steps_lower_the_error_of_the_restored_picture(build: Build, pool: Pool) -> None:
    stage = build("finish")
    batch = batch_of(stage, pool, count=2)
    parameters = [p for name in stage.trained for p in stage.model.get_submodule(name).parameters()]
    optimizer = torch.optim.Adam(parameters, lr=5e-3)
    losses = []
    for _ in range(8):
        figures = stage.loss(batch)
        optimizer.zero_grad()
        figures["loss"].backward()
        optimizer.step()
        losses.append(float(figures["l1"].detach()))
    assert losses[-1] < 0.9 * losses[0]


def test_model_of_another_task_is_refused(pool: Pool) -> None:
    recipe = replace(FINISH_STAGE.recipe, model=MODELS["rep"], task="denoise")
    with pytest.raises(UsageError, match="trained for 'cleanup', not 'denoise'"):
        FINISH_STAGE.build(recipe, earlier(MODELS["rep"]), TrainingData(pool, pool))


def test_nothing_to_hold_the_picture_is_refused() -> None:
    with pytest.raises(UsageError, match="psnr or l1 must be above 0"):
        replace(FINISH_STAGE.recipe, psnr=0.0)


@pytest.mark.parametrize("steps", [0, 1001])
def test_number_of_sampling_steps_is_checked_before_anything_is_loaded(steps: int) -> None:
    with pytest.raises(UsageError, match=r"sampling_steps must be in 1\.\.1000"):
        replace(FINISH_STAGE.recipe, sampling_steps=steps)
