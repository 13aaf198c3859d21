from __future__ import annotations

import math

import numpy as np
import pytest

from pocketprior.core.degradations import weather
from pocketprior.core.degradations.weather import SmoothField, scattered
from pocketprior.core.degradations.windows import Part


def test_haze_leaves_the_near_and_hides_the_far(waves) -> None:
    air = np.array([0.8, 0.82, 0.85], np.float32)
    transmission = np.ones((64, 48), np.float32)
    transmission[:10] = 0
    hazed = weather.hazed(waves, transmission, air)
    np.testing.assert_allclose(hazed[:10], np.broadcast_to(air, (10, 48, 3)), atol=1e-6)
    np.testing.assert_allclose(hazed[10:], waves[10:], atol=1e-6)


def test_screen_brightens_up_to_white_and_never_beyond(waves) -> None:
    mask = np.zeros((64, 48), np.float32)
    mask[5], mask[6] = 1, 0.5
    seen = weather.screened(waves, [(mask, 0.6), (mask, 0.6)])
    np.testing.assert_allclose(seen[5], 1 - (1 - waves[5]) * 0.16, atol=1e-6)
    np.testing.assert_allclose(seen[6], 1 - (1 - waves[6]) * 0.49, atol=1e-6)
    np.testing.assert_allclose(seen[7:], waves[7:], atol=1e-6)


def test_heavy_rain_adds_up(waves) -> None:
    mask = np.full((64, 48), 0.5, np.float32)
    np.testing.assert_allclose(weather.lit(waves, [(mask, 0.4), (mask, 1.0)]), waves + 0.7, atol=1e-6)


@pytest.mark.parametrize("angle", [0.0, 0.5, -0.5])
def test_streak_is_a_line_of_its_length_width_and_angle(angle: float) -> None:
    streak = weather.streak(40, 2.0, angle)
    assert streak.max() == pytest.approx(1)
    height, width = streak.shape
    y, x = np.nonzero(streak > 0.5)
    y, x = y - height // 2, x - width // 2
    assert np.ptp(y * math.cos(angle) + x * math.sin(angle)) == pytest.approx(40 * 0.5**0.25, abs=3)
    assert np.ptp(x * math.cos(angle) - y * math.sin(angle)) <= 2.01
    assert streak[:, 0].max() < 0.05  # nothing of it was cut off
    assert streak.shape[0] % 2 == streak.shape[1] % 2 == 1


def test_flake_is_round_when_still_and_drawn_out_when_falling() -> None:
    still, falling = weather.flake(3.0, 0.0, 0.0), weather.flake(3.0, 12.0, 0.0)
    assert still.max() == falling.max() == 1
    np.testing.assert_allclose(still, still.T, atol=1e-5)
    rows, columns = (np.count_nonzero(falling.max(axis=axis) > 0.5) for axis in (1, 0))
    assert rows >= columns + 4
    assert math.sqrt((still > 0.5).sum() / math.pi) == pytest.approx(3.0, abs=0.7)


def test_smooth_field_varies_over_its_cells(rng) -> None:
    field = SmoothField.draw(200, 160, 40, rng).at(Part.whole(200, 160))
    assert field.shape == (200, 160)
    assert 0 <= field.min() < 0.2
    assert 0.8 < field.max() <= 1
    assert np.abs(np.diff(field, axis=0)).max() < 0.06


def test_smooth_field_of_one_pixel(rng) -> None:
    assert SmoothField.draw(1, 1, 100, rng).at(Part.whole(1, 1)).shape == (1, 1)


@pytest.mark.parametrize("coverage", [0.02, 0.1])
def test_particles_cover_the_given_share(coverage: float, rng) -> None:
    shape = np.ones((5, 3), np.float32)
    field = scattered(300, 301, shape, coverage, rng)
    assert field.shape == (300, 301)
    assert (field > 1e-3).mean() == pytest.approx(coverage, rel=0.15)  # a little less: some overlap
    strength = field[field > 1e-3]
    assert strength.min() >= 0.5 - 1e-3
    assert strength.max() <= 1


def test_particles_have_the_given_shape(rng) -> None:
    shape = np.array([[0, 0.25, 0], [0.5, 1, 0.125], [0, 0, 0]], np.float32)
    field = scattered(40, 40, shape, 0.005, rng)
    y, x = np.unravel_index(field[2:-2, 2:-2].argmax(), (36, 36))
    found = field[y + 1 : y + 4, x + 1 : x + 4]
    np.testing.assert_allclose(found / found[1, 1], shape, atol=1e-5)
