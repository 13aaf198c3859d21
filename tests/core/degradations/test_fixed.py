from __future__ import annotations

import numpy as np
import pytest

from pocketprior.core.degradations.fixed import CLEAN, DAMAGES, damages_named, image_digest
from pocketprior.core.errors import UnknownNameError
from pocketprior.core.metrics import psnr
from support import packs

PHOTO = packs.photo(100, 200)
CHANGING = [damage for damage in DAMAGES if damage.name != CLEAN]
GREY = np.full((200, 200, 3), 128, np.uint8)


def test_names():
    assert [damage.name for damage in DAMAGES] == [
        "noise 15",
        "noise 25",
        "noise 50",
        "correlated 15",
        "JPEG 10",
        "JPEG 20",
        "JPEG 40",
        "mixed",
        "clean",
    ]
    assert [damage.name for damage in damages_named(["clean", "noise 25"])] == ["noise 25", "clean"]
    with pytest.raises(UnknownNameError, match="unknown damage 'rain'; choose one of: noise 15, "):
        damages_named(["rain"])


@pytest.mark.parametrize("damage", CHANGING, ids=lambda damage: damage.name)
def test_damage_depends_on_the_photo_alone(damage):
    damaged = damage(PHOTO)
    assert (damaged.shape, damaged.dtype) == (PHOTO.shape, np.uint8)
    assert np.array_equal(damaged, damage(PHOTO.copy()))
    assert not np.array_equal(damaged, PHOTO)
    other = PHOTO.copy()
    other[0, 0, 0] ^= 1
    if damage.sigma is not None:
        assert np.mean(damage(other) != damaged) > 0.5


def test_clean_is_the_photo_itself():
    assert np.array_equal(damages_named([CLEAN])[0](PHOTO), PHOTO)


@pytest.mark.parametrize("damage", [d for d in DAMAGES if d.sigma is not None], ids=lambda damage: damage.name)
def test_noise_has_the_sigma_that_it_names(damage):
    errors = damage(GREY).astype(float) - 128
    assert errors.std() == pytest.approx(damage.sigma, rel=0.03)
    assert errors.mean() == pytest.approx(0, abs=0.5)


def test_correlated_noise_is_as_strong_as_white_noise_but_smooth():
    white, correlated = (damages_named([name])[0](GREY) - 128.0 for name in ("noise 15", "correlated 15"))
    assert correlated.std() == pytest.approx(15, rel=0.01)
    along, across = (float((e[:, 1:] * e[:, :-1]).mean() / e.var()) for e in (correlated, white))
    assert along == pytest.approx(np.exp(-1 / (4 * 0.7**2)), abs=0.03)  # a Gaussian filter's autocorrelation at 1 pixel
    assert across == pytest.approx(0, abs=0.02)
    assert psnr(damages_named(["correlated 15"])[0](GREY), GREY) == pytest.approx(24.6, abs=0.1)


def test_digest_tells_shapes_and_depths_apart():
    images = [PHOTO, PHOTO.reshape(200, 100, 3), PHOTO.astype(np.uint16), PHOTO[::-1]]
    assert len({image_digest(image) for image in images}) == 4
    assert image_digest(PHOTO[::-1]) == image_digest(PHOTO[::-1].copy())
