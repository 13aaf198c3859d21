from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from pocketprior.core.errors import UsageError
from pocketprior.core.models.dtpm import DtpmConfig
from pocketprior.core.training.dtpm.dtpm_stage import check_model, frozen_encoder
from pocketprior.core.training.dtpm.prior import PRIOR_STAGE
from support.small_checkpoints import MODELS, STAGES, Build, earlier


def test_encoder_is_frozen_and_the_one_of_the_checkpoint() -> None:
    before = earlier(MODELS["rep"])
    encoder = frozen_encoder(before, MODELS["rep"])
    assert not any(p.requires_grad for p in encoder.parameters())
    assert torch.equal(encoder.state_dict()["head.weight"], before["semantic"].tensors["encoder.head.weight"])


def test_settings_that_would_fit_are_told_and_do_fit() -> None:
    with pytest.raises(UsageError, match="another model than this run") as caught:
        frozen_encoder(earlier(MODELS["rep"]), DtpmConfig())
    settings = str(caught.value).split("or: ")[1].replace("--set ", "").split()
    model = PRIOR_STAGE.recipe.with_settings(settings).model
    assert model.semantic == MODELS["rep"].semantic


def test_only_the_named_fields_must_agree() -> None:
    model = replace(MODELS["rep"], schedule="linear", structure_slot="y_d")
    checkpoint = earlier(MODELS["rep"])["prior"]
    check_model("prior", checkpoint, model, "denoiser", "semantic")
    with pytest.raises(UsageError, match=r"'prior' checkpoint .* --set model.schedule=cosine$"):
        check_model("prior", checkpoint, model, "denoiser", "schedule")


@pytest.mark.parametrize("name", STAGES)
def test_crop_that_does_not_suit_the_model_is_refused(name: str, build: Build) -> None:
    with pytest.raises(UsageError, match="crop is 18, this model needs a multiple of 4"):
        build(name, crop=18)
