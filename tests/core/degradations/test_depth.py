from __future__ import annotations

import numpy as np
import pytest

from pocketprior.core.degradations.depth import depth_map
from pocketprior.core.degradations.windows import Window


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
