"""Each threshold of the layer, with a breach that it catches."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pocketprior.core import limits
from pocketprior.core.errors import PhotoTooLargeError, UsageError
from pocketprior.core.metrics.baselines import paired
from pocketprior.core.photo.colour import SRGB, checked, profile
from pocketprior.core.photo.photo import check_size
from pocketprior.core.restore.restorer import Restorer, tile_edge


def test_a_photo_with_too_many_pixels_is_refused() -> None:
    check_size((limits.MAX_PIXELS, 1), limits.MAX_PIXELS)
    with pytest.raises(PhotoTooLargeError, match="256"):
        check_size((limits.MAX_PIXELS + 1, 1), limits.MAX_PIXELS)


@pytest.mark.parametrize(("gamma", "notices"), [(1.8, 0), (2.2, 0), (2.6, 0), (1.0, 1)])
def test_a_profile_with_a_linear_tone_curve_is_reported(gamma: float, notices: int) -> None:
    assert limits.LIGHTNESS_TOLERANCE < 23  # L*, how far linear light is from sRGB
    kept, found = checked(profile(SRGB, gamma), grey=False)
    assert kept is not None
    assert len(found) == notices


def test_too_few_photos_show_no_difference() -> None:
    for count, shown in ((limits.FEWEST_PHOTOS - 1, False), (limits.FEWEST_PHOTOS, True)):
        assert paired([1.0] * count, [0.0] * count).shown is shown


def test_the_largest_amount_and_nothing_above_it_is_taken(built_pack: Path) -> None:
    restorer = Restorer.from_pack(built_pack)
    with pytest.raises(UsageError, match=f"to {limits.LARGEST_AMOUNT} "):
        restorer.check(amount=np.nextafter(limits.LARGEST_AMOUNT, 3))


def test_tiles_and_memory_stay_within_their_limits() -> None:
    large = np.broadcast_to(np.uint8(0), (20_000, 20_000, 3))
    assert tile_edge(large, 2**40, 1, 0, 4) == limits.LARGEST_TILE
    small = np.broadcast_to(np.uint8(0), (2_000, 2_000, 3))
    edge = tile_edge(small, None, 1000, 0, 4)
    assert edge**2 * 1000 + small.nbytes < limits.MAX_MEMORY_BYTES
    assert tile_edge(large, None, 1000, 0, 4) ** 2 * 1000 <= limits.WORKING_BYTES
