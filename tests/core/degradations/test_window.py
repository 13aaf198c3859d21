"""What a task makes of a window is a part of what it makes of the whole photo."""

from __future__ import annotations

import numpy as np
import pytest

from pocketprior.core.degradations import SHRINKS, TASKS, Window
from pocketprior.core.degradations.filters import LUMA
from pocketprior.core.degradations.weather import depth_map
from pocketprior.core.degradations.window import local, softened

HEIGHT, WIDTH = 210, 150
PLACES = [(0, 0), (3, 7), (70, 41), (HEIGHT - 48, WIDTH - 40)]  # of a window of 48 x 40
# What is drawn does not depend on the size of the window, so that the same seed does the same damage.
SAME_DRAWS = ("jpeg", "sr2", "sr4", "motionblur", "haze", "raindrop")
ROUNDING = {"motionblur", "raindrop"}  # transforms of another size, other origins: a value may round to the next level


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    """8-bit waves and grain."""
    y, x = np.mgrid[:HEIGHT, :WIDTH].astype(np.float32)
    waves = np.stack([0.5 + 0.3 * np.sin(y / 9 + x / 7 + phase) for phase in (0, 1, 2)], axis=2)
    grain = np.random.default_rng(0).normal(0, 0.05, waves.shape)
    return np.round(np.clip(waves + grain, 0, 1) * 255).astype(np.uint8)


def window(photo: np.ndarray, place: tuple[int, int]) -> Window:
    return Window(photo, *place, 48, 40)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("task", SAME_DRAWS)
def test_window_of_the_damaged_photo(task: str, place: tuple[int, int], photo: np.ndarray) -> None:
    for seed in range(4):
        small = window(photo, place)
        part = TASKS[task].damage(small, np.random.default_rng(seed))
        whole = TASKS[task].damage(Window.whole(photo), np.random.default_rng(seed))
        expected = Window.whole(photo).cut(whole, small)
        if task in ROUNDING:
            assert np.abs(part - expected).max() * 255 < 1.01
            assert (part == expected).mean() > 0.99
        else:
            np.testing.assert_array_equal(part, expected)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", ["sr2", "sr4"])
def test_window_of_the_shrunk_photo_starts_where_the_window_does(
    name: str, place: tuple[int, int], photo: np.ndarray
) -> None:
    shrink, small = SHRINKS[name], window(photo, place)
    y, x = (at % shrink.factor for at in place)
    whole = shrink(Window.whole(photo[y:, x:]).pixels(), np.random.default_rng(0))
    top, left = (at // shrink.factor for at in place)
    expected = whole[top : top + 48 // shrink.factor, left : left + 40 // shrink.factor]
    np.testing.assert_array_equal(shrink.damage(small, np.random.default_rng(0)), expected)


@pytest.mark.parametrize("place", PLACES)
def test_depth_of_a_window_is_that_of_the_whole_photo(place: tuple[int, int], photo: np.ndarray) -> None:
    for seed in range(6):
        small = window(photo, place)
        whole = depth_map(Window.whole(photo), np.random.default_rng(seed))
        part = depth_map(small, np.random.default_rng(seed))
        np.testing.assert_array_equal(part, Window.whole(photo).cut(whole, small))


def test_a_small_window_does_not_see_the_haze_of_a_whole_photo(photo: np.ndarray) -> None:
    spans = [np.ptp(depth_map(window(photo, (90, 50)), np.random.default_rng(seed))) for seed in range(20)]
    assert np.mean(spans) < 0.7


@pytest.mark.parametrize("place", PLACES)
def test_blur_reaches_beyond_the_window(place: tuple[int, int], photo: np.ndarray) -> None:
    small, every = window(photo, place), Window.whole(photo)
    np.testing.assert_array_equal(softened(small, 1.2), every.cut(softened(every, 1.2), small))


@pytest.mark.parametrize("task", TASKS)
def test_every_task_damages_windows_of_their_size(task: str, photo: np.ndarray) -> None:
    for place in PLACES:
        damaged = TASKS[task].damage(window(photo, place), np.random.default_rng(1))
        assert damaged.shape == (48, 40, 3)
        assert damaged.dtype == np.float32


def test_widened_windows_stay_in_the_photo_and_keep_to_the_grid(photo: np.ndarray) -> None:
    wide = window(photo, (70, 41)).widened(2, 16)
    assert (wide.top, wide.left, wide.height, wide.width) == (64, 32, 64, 64)
    assert window(photo, (0, 0)).widened(500) == Window.whole(photo)
    assert window(photo, (HEIGHT - 48, 3)).widened(0, 16).height == HEIGHT - (HEIGHT - 48) // 16 * 16


def test_local_damage_sees_its_margin_and_no_more(photo: np.ndarray) -> None:
    seen = []

    def note(image: np.ndarray, _: np.random.Generator) -> np.ndarray:
        seen.append(image.shape)
        return image

    damaged = local(note, margin=5).damage(window(photo, (70, 41)), np.random.default_rng(0))
    assert seen == [(58, 50, 3)]
    np.testing.assert_array_equal(damaged, window(photo, (70, 41)).pixels())


def test_grey_window_is_the_luma_of_8_bits(photo: np.ndarray) -> None:
    grey = Window(photo, 3, 5, 20, 30, grey=True).pixels()
    np.testing.assert_allclose(grey[..., 0] * 255, photo[3:23, 5:35] @ LUMA, atol=0.51)
    np.testing.assert_array_equal(grey[..., :1], grey[..., 1:2])
    np.testing.assert_allclose(grey * 255, np.round(grey * 255), atol=1e-4)
