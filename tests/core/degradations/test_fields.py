from __future__ import annotations

import numpy as np
import pytest

from pocketprior.core.degradations.weather import SmoothField, scattered
from pocketprior.core.degradations.windows import Part


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
