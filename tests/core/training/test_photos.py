from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from pocketprior.core import texture
from pocketprior.core.errors import TrainingError
from pocketprior.core.image import read
from pocketprior.core.photo_list import LIST_NAME, released_photos
from pocketprior.core.training import photos
from pocketprior.core.training.prior import residual_scale

EXAMPLES = Path(__file__).parents[3] / "examples"
DATA = Path(os.environ.get("POCKETPRIOR_DATA", Path(__file__).parents[4] / "shared" / "data"))


@pytest.fixture(scope="module")
def pool() -> photos.Pool:
    return photos.load(sorted(EXAMPLES.glob("*.jpg")), minimum=96, side=24, structures=True)


def test_crop_is_part_of_a_photo_with_its_structure(pool: photos.Pool) -> None:
    for seed in range(6):
        crop = pool.crop(40, np.random.default_rng(seed))
        photo = pool.photos[crop.context // photos.CONTEXTS]
        windows = np.lib.stride_tricks.sliding_window_view(photo, (40, 40), axis=(0, 1))
        corner = np.round(crop.clean * 255).astype(np.uint8)
        turned = [np.rot90(side, k) for side in (corner, corner[:, ::-1]) for k in range(4)]
        found = any((windows[..., 0, 0] == t[0, 0]).all(axis=2).any() for t in turned)
        assert found
        assert np.abs(crop.clean - crop.smooth).mean() < 0.1


def test_crop_is_seeded(pool: photos.Pool) -> None:
    first, second = (pool.crop(32, np.random.default_rng(3)) for _ in range(2))
    np.testing.assert_array_equal(first.clean, second.clean)
    assert first.context == second.context


def test_structures_are_those_of_the_photos(pool: photos.Pool) -> None:
    expected = texture.structure(pool.photos[0].astype(np.float32) / 255)
    assert np.abs(pool.structures[0] / 255 - expected).max() <= 0.5 / 255 + 1e-6


def test_contexts_show_every_photo(pool: photos.Pool) -> None:
    assert pool.contexts.shape == (len(pool.photos) * photos.CONTEXTS, 3, 24, 24)


def test_large_photo_is_halved(tmp_path: Path) -> None:
    from PIL import Image

    path = tmp_path / "large.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (1002, 1001, 3), dtype=np.uint8)).save(path)
    (photo,) = photos.load([path], minimum=96, side=8, structures=False).photos
    assert photo.shape == (501, 500, 3)
    quad = read(path).pixels[:2, :2].mean(axis=(0, 1))
    np.testing.assert_allclose(photo[0, 0], quad, atol=0.51)


def test_photos_too_small_for_the_crop_are_an_error() -> None:
    with pytest.raises(TrainingError, match="smaller than the crop"):
        photos.load([EXAMPLES / "dog.jpg"], minimum=100_000, side=8, structures=False)


@pytest.mark.skipif(not (DATA / LIST_NAME).exists(), reason="needs the photo collection beside the checkout")
def test_residual_on_real_photos_has_unit_variance_after_scaling() -> None:
    """The scale measured on training photos brings held-back photos to a variance of 0.8 to 1.25."""
    train = photos.load(released_photos(DATA, split="train")[::8], minimum=96, side=8, structures=True)
    held_back = photos.load(released_photos(DATA, split="val")[::2], minimum=96, side=8, structures=True)
    scale = residual_scale(train)
    assert 0.02 < scale < 0.06
    assert 0.8 <= (residual_scale(held_back) / scale) ** 2 <= 1.25
