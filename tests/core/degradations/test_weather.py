from __future__ import annotations

import math

import numpy as np
import pytest

from pocketprior.core.degradations import weather
from pocketprior.core.degradations.filters import linear_to_srgb
from pocketprior.core.degradations.weather import depth_map, scattered, smooth_field
from pocketprior.core.degradations.window import Window


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
    field = smooth_field(200, 160, 40, rng)(Window.whole(np.zeros((200, 160, 3), np.uint8)))
    assert field.shape == (200, 160)
    assert 0 <= field.min() < 0.2
    assert 0.8 < field.max() <= 1
    assert np.abs(np.diff(field, axis=0)).max() < 0.06


def test_smooth_field_of_one_pixel(rng) -> None:
    assert smooth_field(1, 1, 100, rng)(Window.whole(np.zeros((1, 1, 3), np.uint8))).shape == (1, 1)


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


SIDE = 120


def drop(y: float = 60, x: float = 60, radius: float = 20, minified: float = 2) -> weather.Drop:
    return weather.Drop(np.array([[y, x, radius]]), minified, 0.2)


def through(light: np.ndarray, *found: weather.Drop) -> np.ndarray:
    return weather.refracted(Window.whole(linear_to_srgb(light)), list(found))


def ramp() -> np.ndarray:
    """Light: dark above, bright below."""
    return np.broadcast_to(np.linspace(0.1, 1, SIDE, dtype=np.float32)[:, None, None], (SIDE, SIDE, 3)).copy()


def test_only_the_drop_changes() -> None:
    seen = through(ramp(), drop())
    y, x = np.mgrid[:SIDE, :SIDE]
    outside = np.hypot(y - 60, x - 60) > 20 * weather._FOOTPRINT
    np.testing.assert_allclose(seen[outside], ramp()[outside], atol=1e-5)
    assert np.abs(seen - ramp())[~outside].mean() > 0.05


def test_scene_is_upside_down_and_minified() -> None:
    """Inside, brightness falls downwards, twice as fast as it rises in the scene (below, where nothing darkens it)."""
    seen = through(ramp(), drop())[60:72, 60, 0]
    slope = 0.9 / (SIDE - 1)
    np.testing.assert_allclose(np.diff(seen), -2 * slope, rtol=0.05)


def test_view_is_moved_inside_the_photo() -> None:
    """At the foot of the photo a drop shows what is there, not mirrored copies."""
    window = Window.whole(linear_to_srgb(ramp()))
    seen = weather._inside(window, drop(y=110, minified=3), *np.mgrid[90:120, 50:70].astype(np.float32))
    assert (np.diff(seen[20:, 10, 0]) < 0).all()


@pytest.mark.parametrize("radius", [5.0, 20.0, 40.0])
def test_half_of_the_rim_is_covered(radius: float) -> None:
    one = drop(radius=radius)
    y = np.array([[60.0, 60 - radius, 60 - 3 * radius]], np.float32)
    np.testing.assert_allclose(weather._share(one, y, np.full((1, 3), 60, np.float32)), [[1, 0.5, 0]], atol=1e-5)


def test_neighbours_merge() -> None:
    pair = weather.Drop(np.array([[60, 50, 10], [60, 72, 10]]), 2, 0.2)
    between = np.full((1, 1), 60, np.float32), np.full((1, 1), 61, np.float32)
    lone = max(weather._share(drop(60, x, 10), *between)[0, 0] for x in (50, 72))
    assert weather._share(pair, *between)[0, 0] > lone + 0.3
    assert pair.centre == (60, 61)
    assert pair.radius == 21


def test_drops_outside_the_image_and_larger_than_it() -> None:
    light = ramp()
    np.testing.assert_allclose(through(light, drop(-100, -100)), light, atol=1e-5)
    tiny = np.full((2, 3, 3), 0.5, np.float32)
    assert through(tiny, drop(1, 1, 30)).shape == (2, 3, 3)


@pytest.mark.parametrize("seed", range(5))
def test_depth_spans_near_to_far(waves, seed: int) -> None:
    depth = depth_map(Window.whole(waves), np.random.default_rng(seed))
    assert depth.shape == (64, 48)
    assert depth.dtype == np.float32
    assert 0 <= depth.min() < 0.05
    assert 0.95 < depth.max() <= 1


def test_the_top_of_the_image_is_usually_farther_than_its_foot(waves) -> None:
    maps = [depth_map(Window.whole(waves), np.random.default_rng(seed)) for seed in range(40)]
    farther = [depth[:16].mean() > depth[-16:].mean() for depth in maps]
    assert np.mean(farther) > 0.8


def test_one_pixel_has_a_depth(rng) -> None:
    assert depth_map(Window.whole(np.full((1, 1, 3), 0.5, np.float32)), rng).shape == (1, 1)
