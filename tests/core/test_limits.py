"""Each threshold of the layer, with a breach that it catches."""

from __future__ import annotations

import pytest

from pocketprior.core import limits
from pocketprior.core.errors import PhotoTooLargeError
from pocketprior.core.metrics.intervals import paired
from pocketprior.core.photo.colour import SRGB, checked, profile
from pocketprior.core.photo.decode import check_size


def test_a_photo_with_too_many_pixels_is_refused() -> None:
    check_size((limits.MAX_PIXELS, 1), limits.MAX_PIXELS)
    with pytest.raises(PhotoTooLargeError, match="256"):
        check_size((limits.MAX_PIXELS + 1, 1), limits.MAX_PIXELS)


@pytest.mark.parametrize(("gamma", "notices"), [(1.8, 0), (2.2, 0), (2.6, 0), (1.0, 1)])
def test_a_profile_with_a_linear_tone_curve_is_reported(gamma: float, notices: int) -> None:
    kept, found = checked(profile(SRGB, gamma), grey=False)
    assert kept is not None
    assert len(found) == notices


def test_too_few_photos_show_no_difference() -> None:
    for count, shown in ((limits.FEWEST_PHOTOS - 1, False), (limits.FEWEST_PHOTOS, True)):
        assert paired([1.0] * count, [0.0] * count).shown is shown
