from __future__ import annotations

import pytest
import torch

from pocketprior.core.training.dtpm.dtpm_stage import calibration
from pocketprior.core.training.evaluation.score import batch_psnr, in_parts, side_by_side
from support.small_checkpoints import STAGES, Build

FIGURES = {
    "predictor": {"val_psnr"},
    "prior": {"val_loss", "val_loss_without_code"},
    "adapters": {"val_psnr_0", "val_psnr_0.5", "val_psnr_1", "val_calibration"},
    "finish": {"val_psnr_0", "val_psnr_0.5", "val_psnr_1", "val_calibration"},
}


@pytest.mark.parametrize("name", STAGES)
def test_stage_is_judged_by_figures_and_a_picture(name: str, build: Build) -> None:
    stage = build(name)
    with torch.no_grad():
        first, again = stage.validate(stage.model.eval()), stage.validate(stage.model)
    assert first.figures.keys() == FIGURES[name]
    assert first.figures == again.figures
    (picture,) = first.images.values()
    assert picture.shape[0] == 3
    assert 0 <= float(picture.min()) <= float(picture.max()) <= 1


def test_parts_are_joined_in_order() -> None:
    x = torch.arange(20.0)[:, None]
    assert torch.equal(in_parts(lambda a, b: a + b, torch.device("cpu"), x, 2 * x), 3 * x)


def test_psnr_is_of_the_clipped_picture() -> None:
    clean = torch.zeros(1, 3, 4, 4)
    assert batch_psnr(torch.full_like(clean, 0.1), clean) == pytest.approx(20, abs=0.01)
    assert batch_psnr(torch.full_like(clean, -0.1), clean) == pytest.approx(60, abs=0.01)


def test_pictures_stand_side_by_side() -> None:
    row = side_by_side(torch.zeros(2, 3, 4, 5), torch.full((2, 3, 4, 5), 2.0))
    assert row.shape == (3, 4, 10)
    assert (float(row[:, :, :5].max()), float(row[:, :, 5:].min())) == (0, 1)


def test_calibration_is_the_error_of_how_much_texture_each_photo_has_lost() -> None:
    random = torch.Generator().manual_seed(0)
    true = torch.randn(2, 3, 64, 64, generator=random) * torch.tensor([0.1, 0.02]).reshape(2, 1, 1, 1)
    assert calibration(true.flip(3), true) == 0
    assert calibration(true * torch.tensor([2.0, 0.5]).reshape(2, 1, 1, 1), true) == pytest.approx(0.6931, abs=1e-4)
