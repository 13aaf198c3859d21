from __future__ import annotations

import numpy as np
import pytest

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
    steps = np.diff(blur.shake(40, 1.5, rng, instants=400), axis=0)
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
