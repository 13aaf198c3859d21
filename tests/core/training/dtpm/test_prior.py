from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from pocketprior.core.training.data.photos import Pool
from pocketprior.core.training.dtpm.prior import residual_scale
from support.small_checkpoints import Build, batch_of


def test_residual_has_unit_variance(build: Build, pool: Pool) -> None:
    """On the photos that the scale was measured on it is 1 by construction; crops must sample them fairly."""
    scale = build("prior").facts()["residual_scale"]
    assert scale == residual_scale(pool)
    rng = np.random.default_rng(0)
    crops = [pool.crop(64, rng) for _ in range(200)]
    variance = np.mean([np.square((c.clean - c.smooth) / scale).mean() for c in crops])
    assert 0.9 <= variance <= 1.1


def test_structure_is_made_imperfect_at_times(build: Build, pool: Pool) -> None:
    """Half of the crops keep some texture, a fifth are blurred and noisy: 60 % are not the filter's output."""
    stage = build("prior")
    changed = []
    for seed in range(200):
        smooth = pool.crop(16, np.random.default_rng(seed)).smooth.transpose(2, 0, 1)
        changed.append(not np.array_equal(stage.draw(pool, 16, np.random.default_rng(seed))["structure"], smooth))
    assert 0.5 <= np.mean(changed) <= 0.7


@pytest.mark.parametrize("prediction", ["v", "x0"])
def test_perfect_prediction_costs_nothing(prediction: str, build: Build, pool: Pool) -> None:
    stage = build("prior", model={"prediction": prediction})
    batch = batch_of(stage, pool)
    residual = (batch["clean"] - batch["structure"]) / stage.facts()["residual_scale"]
    alpha_bar = batch["alpha_bar"].reshape(-1, 1, 1, 1)
    velocity = alpha_bar.sqrt() * batch["noise"] - (1 - alpha_bar).sqrt() * residual

    def perfect(x: Tensor, structure: Tensor, code: Tensor, t: Tensor) -> Tensor:
        del structure, code, t
        torch.testing.assert_close(x, alpha_bar.sqrt() * residual + (1 - alpha_bar).sqrt() * batch["noise"])
        return velocity if prediction == "v" else residual

    stage.model.forward = perfect
    assert float(stage.loss(batch)["loss"]) == pytest.approx(0, abs=1e-9)
