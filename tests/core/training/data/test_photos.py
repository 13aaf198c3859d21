from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pocketprior.core.degradations import filters
from pocketprior.core.errors import TrainingError
from pocketprior.core.photo.io import read
from pocketprior.core.photo.listing import LIST_NAME, released_photos
from pocketprior.core.training.data import photos
from pocketprior.core.training.dtpm.prior import residual_scale

EXAMPLES = Path(__file__).parents[4] / "examples"
DATA = Path(os.environ.get("POCKETPRIOR_DATA", Path(__file__).parents[5] / "shared" / "data"))


@pytest.fixture(scope="module")
def pool() -> photos.Pool:
    return photos.load(sorted(EXAMPLES.glob("*.jpg")), minimum=96, side=24, structures=True)


def places(photo: np.ndarray, square: np.ndarray) -> set[tuple[int, int, int]]:
    """Where a float square is a part of a photo: y, x and one of the eight ways to turn and mirror it."""
    levels = np.round(square * 255).astype(np.uint8)
    found = set()
    for way in range(8):
        turned = np.rot90(levels[:, ::-1] if way > 3 else levels, way % 4)
        for y, x in np.argwhere((photo[: 1 - len(turned), : 1 - len(turned)] == turned[0, 0]).all(axis=2)):
            if np.array_equal(photo[y : y + len(turned), x : x + len(turned)], turned):
                found.add((int(y), int(x), way))
    return found


def test_crop_is_part_of_a_photo_with_its_structure(pool: photos.Pool) -> None:
    for seed in range(3):
        crop = pool.crop(40, np.random.default_rng(seed))
        ((index, (place,)),) = ((i, at) for i, photo in enumerate(pool.photos) if (at := places(photo, crop.clean)))
        y, x, way = place
        smooth = np.rot90(crop.smooth[:, ::-1] if way > 3 else crop.smooth, way % 4)
        np.testing.assert_allclose(smooth * 255, pool.structures[index][y : y + 40, x : x + 40], atol=1e-4)
        own = pool.contexts[index * photos.CONTEXTS : (index + 1) * photos.CONTEXTS]
        assert any(np.array_equal(crop.thumbnail, view) for view in own)
        assert crop.damaged.size == 0


def test_photos_are_drawn_by_area() -> None:
    sizes = ((40, 40), (40, 80), (40, 40))
    pool = photos.gather(
        [np.full((*s, 3), i, np.uint8) for i, s in enumerate(sizes)], minimum=8, side=0, structures=False
    )
    rng = np.random.default_rng(0)
    drawn = [round(float(pool.crop(8, rng).clean[0, 0, 0]) * 255) for _ in range(4000)]
    np.testing.assert_allclose(np.bincount(drawn) / 4000, [0.25, 0.5, 0.25], atol=0.03)


def test_crop_is_seeded(pool: photos.Pool) -> None:
    first, second = (pool.crop(32, np.random.default_rng(3)) for _ in range(2))
    np.testing.assert_array_equal(first.clean, second.clean)
    np.testing.assert_array_equal(first.thumbnail, second.thumbnail)


def test_damaged_crop_is_that_of_the_damaged_photo(pool: photos.Pool) -> None:
    """The clean and the damaged square belong together, and the blocks of its JPEG do not start at its corner."""
    firsts = set()
    for seed in range(12):
        crop = pool.crop(48, np.random.default_rng(seed), "jpeg")
        assert crop.clean.shape == crop.damaged.shape == (48, 48, 3)
        assert np.abs(crop.clean - crop.damaged).mean() < 0.1
        steps = np.abs(np.diff(crop.damaged, axis=1)).sum(axis=(0, 2))
        firsts.add(int(np.argmax([steps[i::8].mean() for i in range(8)])))
    assert len(firsts) > 3


def test_some_crops_are_greyscale_and_so_is_their_damage(pool: photos.Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(photos, "GREY", 1.0)
    for seed in range(3):
        crop = pool.crop(64, np.random.default_rng(seed), "noise")
        assert np.ptp(crop.clean, axis=2).max() == np.ptp(crop.damaged, axis=2).max() == 0
        assert not np.array_equal(crop.clean, crop.damaged)
    monkeypatch.setattr(photos, "GREY", 0.0)
    assert np.ptp(pool.crop(64, np.random.default_rng(0), "noise").clean, axis=2).max() > 0


def test_pair_is_cut_at_the_same_place(tmp_path: Path) -> None:
    clean = np.random.default_rng(0).integers(0, 128, (60, 70, 3), dtype=np.uint8)
    for name, levels in (("clean", clean), ("damaged", clean + 100)):
        Image.fromarray(levels).save(tmp_path / f"{name}.png")
    pool = photos.load(
        [tmp_path / "clean.png"], damaged=[tmp_path / "damaged.png"], minimum=32, side=0, structures=False
    )
    rng = np.random.default_rng(0)
    for _ in range(8):
        crop = pool.crop(32, rng, "cleanup")
        np.testing.assert_allclose(crop.damaged - crop.clean, 100 / 255, atol=1e-6)
    damaged, clean = photos.val_pairs(pool, "cleanup", size=48)
    assert damaged.shape == clean.shape == (1, 3, 48, 48)
    np.testing.assert_allclose(damaged - clean, 100 / 255, atol=1e-6)


def test_pair_of_two_sizes_is_refused(tmp_path: Path) -> None:
    for name, side in (("clean", 64), ("damaged", 32)):
        Image.new("RGB", (side, side)).save(tmp_path / f"{name}.png")
    with pytest.raises(TrainingError, match=r"damaged\.png has 32 x 32 pixels.*64 x 64"):
        photos.load([tmp_path / "clean.png"], damaged=[tmp_path / "damaged.png"], minimum=8, side=0, structures=False)


def test_held_back_photos_are_damaged_as_a_whole(pool: photos.Pool) -> None:
    damaged, clean = photos.val_pairs(pool, "cleanup", size=64)
    again, _ = photos.val_pairs(pool, "cleanup", size=64)
    assert damaged.equal(again)
    assert not damaged.equal(clean)
    centre = pool.photos[0][(s := pool.photos[0].shape[0] // 2 - 32) : s + 64]
    np.testing.assert_allclose(clean[0, :, 0, 0], centre[0, pool.photos[0].shape[1] // 2 - 32] / 255, atol=1e-6)


def test_structures_are_those_of_the_photos(pool: photos.Pool) -> None:
    expected = filters.structure(pool.photos[0].astype(np.float32) / 255)
    assert np.abs(pool.structures[0] / 255 - expected).max() <= 0.5 / 255 + 1e-6


def test_contexts_show_every_photo(pool: photos.Pool) -> None:
    assert pool.contexts.shape == (len(pool.photos) * photos.CONTEXTS, 3, 24, 24)


def test_large_photo_is_halved(tmp_path: Path) -> None:
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
