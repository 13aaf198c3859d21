from __future__ import annotations

import torch

from pocketprior.core.training.data.photos import Pool
from pocketprior.core.training.losses import psnr_loss
from support.small_checkpoints import Build, batch_of


def test_fresh_predictor_is_judged_on_what_it_restores(build: Build, pool: Pool) -> None:
    stage = build("predictor")
    batch = batch_of(stage, pool)
    expected = psnr_loss(stage.model(batch["damaged"]), batch["clean"])
    torch.testing.assert_close(stage.loss(batch)["loss"], expected)
    assert not torch.equal(batch["damaged"], batch["clean"])
    assert stage.facts() == {"task": "cleanup"}
