"""The eight orientations, against Pillow's transpositions."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from pocketprior.core.photo.samples import TRANSPOSES, swaps_sides, unturned


@pytest.mark.parametrize("orientation", range(1, 9))
def test_writing_stored_rows_into_the_view_turns_them(orientation: int) -> None:
    stored = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    upright = np.zeros((3, 2, 3) if swaps_sides(orientation) else (2, 3, 3), np.uint8)
    unturned(upright, orientation)[:] = stored
    image = Image.fromarray(stored)
    expected = image.transpose(TRANSPOSES[orientation]) if orientation > 1 else image
    assert np.array_equal(upright, np.asarray(expected))
