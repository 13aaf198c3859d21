from __future__ import annotations

import numpy as np
import pytest

from pocketprior.core.degradations import drops
from pocketprior.core.degradations.srgb import linear_to_srgb
from pocketprior.core.degradations.windows import Window

SIDE = 120


def drop(y: float = 60, x: float = 60, radius: float = 20, minified: float = 2) -> drops.Drop:
    return drops.Drop(np.array([[y, x, radius]]), minified, 0.2)


def through(light: np.ndarray, *found: drops.Drop) -> np.ndarray:
    return drops.refracted(Window.whole(linear_to_srgb(light)), list(found))


def ramp() -> np.ndarray:
    """Light: dark above, bright below."""
    return np.broadcast_to(np.linspace(0.1, 1, SIDE, dtype=np.float32)[:, None, None], (SIDE, SIDE, 3)).copy()


def test_only_the_drop_changes() -> None:
    seen = through(ramp(), drop())
    y, x = np.mgrid[:SIDE, :SIDE]
    outside = np.hypot(y - 60, x - 60) > 20 * drops.FOOTPRINT
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
    seen = drops._inside(window, drop(y=110, minified=3), *np.mgrid[90:120, 50:70].astype(np.float32))
    assert (np.diff(seen[20:, 10, 0]) < 0).all()


@pytest.mark.parametrize("radius", [5.0, 20.0, 40.0])
def test_half_of_the_rim_is_covered(radius: float) -> None:
    one = drop(radius=radius)
    y = np.array([[60.0, 60 - radius, 60 - 3 * radius]], np.float32)
    np.testing.assert_allclose(drops._share(one, y, np.full((1, 3), 60, np.float32)), [[1, 0.5, 0]], atol=1e-5)


def test_neighbours_merge() -> None:
    pair = drops.Drop(np.array([[60, 50, 10], [60, 72, 10]]), 2, 0.2)
    between = np.full((1, 1), 60, np.float32), np.full((1, 1), 61, np.float32)
    lone = max(drops._share(drop(60, x, 10), *between)[0, 0] for x in (50, 72))
    assert drops._share(pair, *between)[0, 0] > lone + 0.3
    assert pair.centre == (60, 61)
    assert pair.reach == 21


def test_drops_outside_the_image_and_larger_than_it() -> None:
    light = ramp()
    np.testing.assert_allclose(through(light, drop(-100, -100)), light, atol=1e-5)
    tiny = np.full((2, 3, 3), 0.5, np.float32)
    assert through(tiny, drop(1, 1, 30)).shape == (2, 3, 3)
