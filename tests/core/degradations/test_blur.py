from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import special

from pocketprior.core.degradations import blur
from pocketprior.core.degradations.blur import disc
from pocketprior.core.degradations.filters import convolve


@pytest.mark.parametrize("size", [1, 3, 15, 61])
@pytest.mark.parametrize("seed", range(4))
def test_kernel_of_a_path_adds_up_to_one(size: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    kernel = blur.path_kernel(blur.shake(size * 1.2, 2.0, rng) + blur.drift(size, rng), size)
    assert kernel.shape == (size, size)
    assert kernel.sum() == pytest.approx(1, abs=1e-5)
    assert kernel.min() >= 0


def test_path_has_the_given_length(rng) -> None:
    steps = np.diff(blur.shake(40, 1.5, rng), axis=0)
    assert np.hypot(*steps.T).sum() == pytest.approx(40, rel=0.02)
    ends = blur.drift(25, rng)[[0, -1]]
    assert np.hypot(*(ends[1] - ends[0])) == pytest.approx(25)


def test_a_calm_hand_draws_a_straight_line(rng) -> None:
    path = blur.shake(40, 0.0, rng)
    assert np.hypot(*(path[-1] - path[0])) == pytest.approx(40, rel=0.05)


def test_kernel_is_centred_and_as_long_as_its_path() -> None:
    path = np.stack([np.zeros(200), np.linspace(0, 10, 200)], axis=1)
    kernel = blur.path_kernel(path, 21)
    assert kernel.sum(axis=1).argmax() == 10
    offsets = np.arange(21) - 10
    assert (kernel.sum(axis=0) * offsets).sum() == pytest.approx(0, abs=1e-5)
    assert np.count_nonzero(kernel.sum(axis=0) > 0.01) == 11


def test_still_region_stays_and_the_moving_one_is_blurred(waves) -> None:
    left = np.zeros((64, 48), np.float32)
    left[:, :24] = 1
    still, moving = np.ones((1, 1), np.float32), np.full((1, 15), 1 / 15, np.float32)
    moved = blur.moved(waves, [(left, still), (1 - left, moving)])
    np.testing.assert_allclose(moved[:, :24], waves[:, :24], atol=1e-6)
    np.testing.assert_allclose(moved[:, 24:], convolve(waves, moving)[:, 24:], atol=1e-6)


def test_one_plane_out_of_focus_is_a_disc_blur(waves) -> None:
    plane = np.full((64, 48), 0.5, np.float32)
    seen = blur.defocused(waves, plane, [9.0, 9.0, 4.0, 9.0, 9.0])
    np.testing.assert_allclose(seen, convolve(waves, disc(4.0)), atol=1e-5)


def test_near_things_in_focus_keep_their_outline_before_a_blurred_background() -> None:
    """A dark post in front of a bright wall: no light leaks onto the post, none is lost beside it."""
    light, depth = np.ones((40, 60, 3), np.float32), np.ones((40, 60), np.float32)
    light[:, 20:30], depth[:, 20:30] = 0, 0
    seen = blur.defocused(light, depth, [0.0, 6.0])
    np.testing.assert_allclose(seen[:, 20:30], 0, atol=1e-5)
    np.testing.assert_allclose(seen[:, :20], 1, atol=1e-5)


def test_near_things_out_of_focus_spread_over_what_is_behind() -> None:
    light, depth = np.ones((40, 60, 3), np.float32), np.ones((40, 60), np.float32)
    light[:, 20:30], depth[:, 20:30] = 0, 0
    seen = blur.defocused(light, depth, [6.0, 0.0])
    assert 0.2 < seen[20, 18, 0] < 0.8
    np.testing.assert_allclose(seen[:, 40:], 1, atol=1e-5)


ALL = {
    "disc": blur.disc(3.7),
    "gaussian": blur.gaussian(21, (0.2, 3.0), 0.7),
    "generalized": blur.gaussian(21, (1.0, 2.0), 0.7, 0.5),
    "plateau": blur.plateau(21, (1.0, 2.0), 0.7, 2.0),
    "sinc": blur.sinc(21, 2.0),
}


@pytest.mark.parametrize("kernel", ALL.values(), ids=ALL)
def test_kernel_adds_up_to_one_and_is_symmetric_about_its_middle(kernel) -> None:
    assert kernel.dtype == np.float32
    assert kernel.shape[0] == kernel.shape[1]
    assert kernel.shape[0] % 2 == 1
    assert kernel.sum() == pytest.approx(1, abs=1e-5)
    np.testing.assert_allclose(kernel, kernel[::-1, ::-1], atol=1e-7)


def test_gaussian_has_the_given_deviations_along_its_axes() -> None:
    kernel = blur.gaussian(41, (1.5, 3.0), 0.0).astype(float)
    offsets = np.arange(41) - 20
    assert math.sqrt((kernel.sum(axis=0) * offsets**2).sum()) == pytest.approx(1.5, rel=1e-3)
    assert math.sqrt((kernel.sum(axis=1) * offsets**2).sum()) == pytest.approx(3.0, rel=1e-3)
    np.testing.assert_allclose(blur.gaussian(41, (1.5, 3.0), math.pi / 2), kernel.T, atol=1e-7)


def test_shape_bends_the_profile() -> None:
    """A generalised kernel is a Gaussian at shape 1; flat-topped ones have more weight near the middle's edge."""
    middle = {shape: blur.gaussian(21, (2.0, 2.0), 0.0, shape)[10, 8:11] for shape in (0.5, 1.0, 4.0)}
    flatness = [profile[1] / profile[2] for profile in middle.values()]
    assert flatness == sorted(flatness)
    assert blur.plateau(21, (2.0, 2.0), 0.0, 1.0)[10, 0] > blur.gaussian(21, (2.0, 2.0), 0.0)[10, 0] * 100


def test_disc_has_its_radius() -> None:
    disc = blur.disc(5.0)
    assert disc.shape == (11, 11)
    assert 1 / disc.max() == pytest.approx(math.pi * 25, rel=0.03)


def test_bessel_function_agrees_with_scipy() -> None:
    x = np.linspace(0, 45, 300)
    np.testing.assert_allclose(blur._bessel_j1(x), special.j1(x), atol=1e-14)


def test_sinc_passes_what_is_below_its_cutoff_only() -> None:
    response = np.abs(np.fft.fft2(blur.sinc(61, 1.5), (256, 256)))[0]  # along one axis
    frequency = np.arange(256) * 2 * np.pi / 256
    assert response[frequency < 1.1].min() > 0.85
    assert response[(frequency > 1.9) & (frequency < np.pi)].max() < 0.15
