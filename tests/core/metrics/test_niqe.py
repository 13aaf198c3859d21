from __future__ import annotations

import math

import numpy as np
import pytest

from pocketprior.core.errors import UsageError
from pocketprior.core.metrics import NiqeModel, niqe
from pocketprior.core.metrics.niqe import NIQE_PATCH, _asymmetric_fit, _half, _symmetric_fit, patch_features


def generalised_gaussian(shape: float, size: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Draws of unit scale: |x|^shape is Gamma(1 / shape) distributed."""
    return rng.choice([-1.0, 1.0], size) * rng.gamma(1 / shape, 1, size) ** (1 / shape)


@pytest.mark.parametrize("shape", [0.6, 1.0, 2.0, 3.5])
def test_symmetric_fit_finds_shape_and_variance(shape):
    x = generalised_gaussian(shape, (2, 600, 600), np.random.default_rng(0))
    found, variance = _symmetric_fit(x)
    assert found == pytest.approx(shape, rel=0.03)
    assert variance == pytest.approx(math.gamma(3 / shape) / math.gamma(1 / shape), rel=0.03)


@pytest.mark.parametrize(("shape", "left", "right"), [(0.8, 1.0, 2.0), (2.0, 1.5, 0.7)])
def test_asymmetric_fit_finds_all_four(shape, left, right):
    """Each side of scale b has weight b / (left + right), as the density of Eq. 5 demands."""
    rng = np.random.default_rng(1)
    x = np.abs(generalised_gaussian(shape, (1, 700, 700), rng))
    is_left = rng.uniform(size=x.shape) < left / (left + right)
    found, mean, left_variance, right_variance = _asymmetric_fit(np.where(is_left, -left * x, right * x))
    unit = math.gamma(3 / shape) / math.gamma(1 / shape)
    assert found == pytest.approx(shape, rel=0.03)
    assert left_variance == pytest.approx(unit * left**2, rel=0.03)
    assert right_variance == pytest.approx(unit * right**2, rel=0.03)
    expected = (right - left) * math.gamma(2 / shape) / math.gamma(1 / shape)
    assert mean == pytest.approx(expected, rel=0.03)


def test_half_keeps_flat_and_linear_images():
    assert _half(np.full((8, 12), 3.0)) == pytest.approx(np.full((4, 6), 3.0))
    ramp = np.broadcast_to(np.arange(32.0), (32, 32))
    assert _half(ramp)[:, 2:-2] == pytest.approx(np.broadcast_to(np.arange(16) * 2 + 0.5, (16, 16))[:, 2:-2])


def test_features_are_of_whole_patches(photo):
    features, sharpness = patch_features(photo)
    assert features.shape == (6, 36)
    assert sharpness.shape == (6,)
    corner, _ = patch_features(photo[: 2 * NIQE_PATCH, : 3 * NIQE_PATCH])
    assert np.array_equal(features, corner)


def test_rises_with_noise_and_blur(photo, damage):
    values = [niqe(damage.noisy(photo, sigma)) for sigma in (5, 25, 50)]
    assert values == sorted(values)
    assert niqe(photo) < values[1]
    assert niqe(photo) < niqe(damage.blurred(photo, 2))


def test_does_not_change_with_the_colours_of_equal_luma(photo):
    grey = np.repeat(photo[..., 1:2], 3, axis=2)
    assert niqe(grey) == pytest.approx(niqe(grey[..., ::-1]))


def test_flat_patches_are_left_out(photo):
    bordered = photo.copy()
    bordered[: NIQE_PATCH + 3] = 128  # the window of 7 x 7 reaches 3 pixels into the next patch
    features, _ = patch_features(bordered)
    assert np.isnan(features[:3]).any(axis=1).all()
    assert np.isfinite(niqe(bordered))


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((95, 300, 3), np.uint8), "at least 96 x 96"),
        (np.zeros((96, 191, 3), np.uint8), "not flat, got 0"),
        (np.full((300, 300, 3), 255, np.uint8), "not flat, got 0"),
        (np.zeros((300, 300, 3)), "uint8 or uint16"),
    ],
    ids=["small", "black", "white", "float"],
)
def test_refuses_what_it_cannot_judge(image, message):
    with pytest.raises(UsageError, match=message):
        niqe(image)


def test_model_file_round_trip(tmp_path, photo):
    features, _ = patch_features(photo)
    model = NiqeModel(features.mean(axis=0), np.cov(features, rowvar=False), "0" * 64, len(features))
    for name in ("a.npz", "b.npz"):
        model.save(tmp_path / name)
    loaded = NiqeModel.load(tmp_path / "a.npz")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    assert (loaded.photos_sha256, loaded.patches) == ("0" * 64, 6)
    assert niqe(photo, loaded) == pytest.approx(0, abs=1e-6)
