from __future__ import annotations

import numpy as np
import pytest

from pocketprior.core.degradations import age
from pocketprior.core.degradations.window import Part


def test_fully_toned_image_has_one_hue(waves) -> None:
    sepia = np.array([1.0, 0.9, 0.7], np.float32)
    toned = age.toned(waves, sepia, 1.0)
    np.testing.assert_allclose(toned / toned[..., :1], np.broadcast_to(sepia, toned.shape), atol=1e-5)
    np.testing.assert_allclose(age.toned(waves, sepia, 0.0), waves)


def test_grain_is_grey_and_strongest_in_mid_tones(rng) -> None:
    levels = np.repeat(np.array([0.02, 0.5, 0.98], np.float32), 300)[:, np.newaxis, np.newaxis]
    flat = np.broadcast_to(levels, (900, 100, 3))
    grain = age.grained(flat, 0.05, 0.6, rng) - flat
    assert np.ptp(grain, axis=2).max() < 1e-6
    deviations = [part.std() for part in np.split(grain, 3)]
    assert deviations[1] == pytest.approx(0.05, rel=0.1)
    assert max(deviations[0], deviations[2]) < 0.4 * deviations[1]


def test_scratches_are_fine_and_upright(rng) -> None:
    mask = age.scratches(Part.whole(200, 200), 6, 200.0, 0.02, rng)
    assert mask.shape == (200, 200)
    assert 0.4 < mask.max() <= 1
    assert 0.001 < (mask > 0.1).mean() < 0.05
    down, across = (np.abs(np.diff(mask, axis=axis)).sum() for axis in (0, 1))
    assert across > 3 * down


def test_no_scratches_leave_no_mark(rng) -> None:
    assert age.scratches(Part.whole(30, 20), 0, 30.0, 0.1, rng).max() == 0
    assert age.scratches(Part.whole(1, 1), 3, 1.0, 0.1, rng).shape == (1, 1)
