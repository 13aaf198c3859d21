from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from pocketprior.core.limits import FEWEST_PHOTOS
from pocketprior.core.metrics import psnr
from pocketprior.core.metrics.baselines import _CLOSE, NULLS, null_result, paired
from support import packs

DETAIL, SHAPED_NOISE = NULLS["unsharp mask"], NULLS["shaped noise"]
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
    result = null_result(DETAIL, BASES, TRUTHS, psnr, 90.0)
    assert result.gain == 0
    assert all(np.array_equal(a, b) for a, b in zip(result.images, BASES, strict=True))


def test_detail_is_what_a_blur_takes_away():
    flat = np.full((20, 24, 3), 77, np.uint8)
    assert np.abs(DETAIL(flat)).max() < 1e-4
    spot = flat.copy()
    spot[10, 12, 1] = 177
    band = DETAIL(spot)
    assert band[10, 12, 1] == pytest.approx(100 * (1 - 0.3991**2), abs=0.3)  # the centre of the normalised Gaussian
    assert abs(band[..., 1].sum()) < 0.01
    assert np.abs(band[..., [0, 2]]).max() < 1e-4


def test_shaped_noise_is_grey_and_lies_where_detail_is():
    image = np.full((40, 60, 3), 90, np.uint8)
    image[:, 30:] = packs.photo(40, 30)
    noise = SHAPED_NOISE(image)
    assert np.array_equal(noise[..., 0], noise[..., 2])
    assert np.abs(noise[:, :25]).max() < 1e-3
    assert noise[:, 32:].std() > 1
    assert np.array_equal(noise, SHAPED_NOISE(image.copy()))


def test_interval_of_equal_differences_is_a_point() -> None:
    found = paired([1.5, 2.5, 3.5, 0.5, 9.5, 4.5], [1.0, 2.0, 3.0, 0.0, 9.0, 4.0])
    assert found == (0.5, 0.5, 0.5, 6)
    assert found.shown


def test_interval_holds_the_true_mean_about_as_often_as_it_says() -> None:
    """Of 200 draws of 20 normal differences; a percentile bootstrap of 20 is known to be a little narrow."""
    rng = np.random.default_rng(1)
    held = 0
    for _ in range(200):
        found = paired(list(rng.normal(0.3, 1.0, 20)), [0.0] * 20)
        held += found.low <= 0.3 <= found.high
    assert 0.88 <= held / 200 <= 0.98


def test_interval_is_about_that_of_the_t_test() -> None:
    rng = np.random.default_rng(1)
    theirs = rng.normal(30, 4, 40)
    ours = theirs + rng.normal(0.2, 0.3, 40)
    found = paired(list(ours), list(theirs))
    low, high = stats.ttest_rel(ours, theirs).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.02)


def test_few_photos_show_nothing() -> None:
    assert not paired([1.0] * (FEWEST_PHOTOS - 1), [0.0] * (FEWEST_PHOTOS - 1)).shown
    assert paired([1.0] * FEWEST_PHOTOS, [0.0] * FEWEST_PHOTOS).shown
    assert paired([0.0] * FEWEST_PHOTOS, [1.0] * FEWEST_PHOTOS).shown
    assert not paired([1.0, -1.0] * 4, [0.0] * 8).shown


def test_interval_is_repeatable() -> None:
    rng = np.random.default_rng(2)
    ours, theirs = list(rng.normal(size=10)), list(rng.normal(size=10))
    assert paired(ours, theirs) == paired(ours, theirs)


@pytest.mark.parametrize(("ours", "theirs"), [([1.0], [1.0, 2.0]), ([], [])])
def test_lists_that_do_not_pair_are_refused(ours: list[float], theirs: list[float]) -> None:
    with pytest.raises(ValueError, match=r"longer|at least one"):
        paired(ours, theirs)
