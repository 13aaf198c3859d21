from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pocketprior.core.errors import UsageError
from pocketprior.core.models.dtpm import Dtpm
from pocketprior.core.training.data.photos import Pool
from pocketprior.core.training.loop.stage import TrainingStage
from support.small_checkpoints import MODELS, Build, batch_of, earlier


def dtpm(stage: TrainingStage) -> Dtpm:
    assert isinstance(stage.model, Dtpm)
    return stage.model


def test_scale_is_that_of_the_residual_of_this_predictor(build: Build, pool: Pool) -> None:
    model = dtpm(build("adapters"))
    batch = batch_of(build("adapters"), pool, count=100)
    with torch.no_grad():
        measured = (batch["clean"] - model.predictor(batch["damaged"])).square().mean().sqrt()
    assert float(model.residual_scale) == pytest.approx(float(measured), rel=0.15)


def test_weights_are_those_of_the_earlier_stages(build: Build) -> None:
    model, before = dtpm(build("adapters")), earlier(MODELS["rep"])
    for part, kind in ((model.denoiser, "prior"), (model.predictor, "predictor")):
        assert all(torch.equal(tensor, before[kind].tensors[name]) for name, tensor in part.state_dict().items())


@pytest.mark.parametrize("prediction", ["v", "x0"])
def test_perfect_prediction_leaves_the_predictors_error(prediction: str, build: Build, pool: Pool) -> None:
    stage = build("adapters", model={"prediction": prediction}, content=2.0, detail=1.0, detail_until=2.0)
    batch, model = batch_of(stage, pool), dtpm(stage)
    base = model.predictor(batch["damaged"]).detach()
    residual, bar = (batch["clean"] - base) / model.residual_scale, batch["alpha_bar"].reshape(-1, 1, 1, 1)

    def perfect(*_: Any) -> Tensor:
        return bar.sqrt() * batch["noise"] - (1 - bar).sqrt() * residual if prediction == "v" else residual

    model.denoiser.forward = perfect
    figures = {name: value.detach() for name, value in stage.loss(batch).items()}
    assert float(figures["texture"]) == pytest.approx(0, abs=1e-6)
    assert float(figures["detail"]) == pytest.approx(0, abs=1e-4)
    content = (base - batch["clean"]).abs().mean()
    assert float(figures["loss"]) == pytest.approx(2 * float(content), rel=1e-3)


def test_detail_counts_at_late_times_alone(build: Build, pool: Pool) -> None:
    stage = build("adapters", detail=1.0, detail_until=0.3)
    batch = batch_of(stage, pool)
    batch["t"] = torch.tensor([0.3, 0.9])
    assert float(stage.loss(batch)["detail"].detach()) == 0
    batch["t"] = torch.tensor([0.29, 0.9])
    assert float(stage.loss(batch)["detail"].detach()) > 0


def test_no_content_is_refused(build: Build) -> None:
    with pytest.raises(UsageError, match="content must be above 0"):
        build("adapters", content=0.0)


def test_paired_photos_are_taken_as_they_are(build: Build, pool: Pool) -> None:
    paired = Pool(pool.photos, [], pool.contexts, [255 - photo for photo in pool.photos])
    sample = build("adapters").draw(paired, 16, np.random.default_rng(0))
    np.testing.assert_allclose(sample["damaged"], 1 - sample["clean"], atol=1e-6)
