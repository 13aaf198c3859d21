from __future__ import annotations

import numpy as np
import pytest

from pocketprior.core.metrics import psnr
from pocketprior.core.metrics.baselines import _CLOSE, NULLS, detail, null_result, shaped_noise
from support import packs

TRUTHS = [packs.photo(64, 80, seed=i) for i in range(3)]
RNG = np.random.default_rng(0)
BASES = [np.clip(true + RNG.integers(-3, 4, true.shape), 0, 255).astype(np.uint8) for true in TRUTHS]


@pytest.mark.parametrize("texture", NULLS.values(), ids=NULLS)
@pytest.mark.parametrize("loss", [0.3, 4.0])
def test_the_gain_gives_the_psnr_that_is_asked_for(texture, loss):
    alone = np.mean([psnr(base, true) for base, true in zip(BASES, TRUTHS, strict=True)])
    result = null_result(texture, BASES, TRUTHS, psnr, float(alone) - loss)
    reached = np.mean([psnr(image, true) for image, true in zip(result.images, TRUTHS, strict=True)])
    assert result.psnr == pytest.approx(reached)
    assert reached == pytest.approx(alone - loss, abs=_CLOSE)
    assert result.gain > 0
    assert all(image.dtype == np.uint8 and image.shape == (64, 80, 3) for image in result.images)


def test_no_texture_where_the_predictor_alone_is_no_better():
    result = null_result(detail, BASES, TRUTHS, psnr, 90.0)
    assert result.gain == 0
    assert all(np.array_equal(a, b) for a, b in zip(result.images, BASES, strict=True))


def test_detail_is_what_a_blur_takes_away():
    flat = np.full((20, 24, 3), 77, np.uint8)
    assert np.abs(detail(flat)).max() < 1e-4
    spot = flat.copy()
    spot[10, 12, 1] = 177
    band = detail(spot)
    assert band[10, 12, 1] == pytest.approx(100 * (1 - 0.3991**2), abs=0.3)  # the centre of the normalised Gaussian
    assert abs(band[..., 1].sum()) < 0.01
    assert np.abs(band[..., [0, 2]]).max() < 1e-4


def test_shaped_noise_is_grey_and_lies_where_detail_is():
    image = np.full((40, 60, 3), 90, np.uint8)
    image[:, 30:] = packs.photo(40, 30)
    noise = shaped_noise(image)
    assert np.array_equal(noise[..., 0], noise[..., 2])
    assert np.abs(noise[:, :25]).max() < 1e-3
    assert noise[:, 32:].std() > 1
    assert np.array_equal(noise, shaped_noise(image.copy()))
