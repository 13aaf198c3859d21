from __future__ import annotations

import numpy as np
import pytest

from pocketprior.core import metrics
from pocketprior.core.errors import UsageError
from pocketprior.core.metrics.planes import gaussian_taps, luma, planes, smooth, valid

PAIR_METRICS = (
    metrics.haarpsi,
    metrics.psnr,
    metrics.ssim,
    metrics.swd,
)
GREY = np.full((200, 200, 3), 7, np.uint8)


@pytest.mark.parametrize("metric", PAIR_METRICS, ids=lambda metric: metric.__name__)
@pytest.mark.parametrize(
    ("a", "b"),
    [
        (GREY, GREY[1:]),
        (GREY, GREY.astype(np.uint16)),
        (GREY[..., 0], GREY[..., 0]),
        (GREY[..., :2], GREY[..., :2]),
        (GREY[:0], GREY[:0]),
        (GREY.astype(np.float32), GREY.astype(np.float32)),
        (np.full(GREY.shape, np.nan), GREY),
    ],
    ids=["size", "depth", "grey", "channels", "empty", "float", "nan"],
)
def test_what_is_no_pair_of_images_is_refused(metric, a, b):
    with pytest.raises(UsageError, match="metrics expect"):
        metric(a, b)


@pytest.mark.parametrize(
    ("metric", "side"),
    [
        (metrics.haarpsi, 16),
        (metrics.ssim, 11),
        (metrics.swd, 16),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_smallest_size(metric, side):
    assert np.isfinite(metric(GREY[:side, :side], GREY[:side, :side]))
    with pytest.raises(UsageError, match=f"at least {side} x {side}"):
        metric(GREY[: side - 1], GREY[: side - 1])


@pytest.mark.parametrize("metric", PAIR_METRICS, ids=lambda metric: metric.__name__)
def test_views_give_what_copies_give(metric, photo, damage):
    other = damage.noisy(photo, 10)
    expected = metric(photo[:, ::-1].copy(), other[:, ::-1].copy())
    assert metric(photo[:, ::-1], other[:, ::-1]) == expected


@pytest.mark.parametrize("metric", PAIR_METRICS, ids=lambda metric: metric.__name__)
def test_sixteen_bits_are_measured_on_the_same_scale(metric, photo, damage):
    other = damage.noisy(photo, 10)
    wide = [image.astype(np.uint16) * 257 for image in (photo, other)]
    assert metric(*wide) == pytest.approx(metric(photo, other), rel=1e-9)


@pytest.mark.parametrize("metric", PAIR_METRICS, ids=lambda metric: metric.__name__)
@pytest.mark.parametrize("value", [0, 255])
def test_flat_images_give_the_value_of_equality(metric, value):
    flat = np.full((176, 176, 3), value, np.uint8)
    perfect = {"psnr": np.inf, "ssim": 1, "haarpsi": 1}.get(metric.__name__, 0)
    assert metric(flat, flat) == pytest.approx(perfect)


def test_scale():
    white = np.full((1, 2, 3), 65535, np.uint16)
    assert planes(white).shape == (3, 1, 2)
    assert np.all(planes(white) == 255)
    assert luma(white) == pytest.approx(255)


def test_valid_is_correlation_without_padding():
    field, taps = np.random.default_rng(0).normal(size=(9, 7)), np.array([1.0, -2.0, 5.0])
    assert valid(field, taps, 0) == pytest.approx(np.apply_along_axis(np.correlate, 0, field, taps))
    assert valid(field, taps, 1) == pytest.approx(np.apply_along_axis(np.correlate, 1, field, taps))
    assert smooth(field, taps) == pytest.approx(valid(valid(field, taps, 1), taps, 0))


def test_gaussian_taps():
    taps = gaussian_taps(5, 1.5)
    assert taps.sum() == pytest.approx(1)
    assert taps[5] / taps[8] == pytest.approx(np.exp(2))
    assert np.array_equal(taps, taps[::-1])
