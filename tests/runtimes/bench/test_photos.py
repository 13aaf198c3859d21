from __future__ import annotations

from pathlib import Path

import numpy as np
import packs
import pytest
from PIL import Image as PilImage

from pocketprior.core.errors import UsageError
from pocketprior.runtimes.bench.photos import (
    DAMAGES,
    bench_set,
    digest,
    evenly,
    in_folder,
    load,
    validation_crops,
    validation_set,
)

PHOTO = packs.photo(100, 200)


def save(path: Path, pixels: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    PilImage.fromarray(pixels).save(path)
    return path


def test_the_issue_names_these_damages():
    assert [damage.name for damage in DAMAGES] == [
        "noise 15",
        "noise 25",
        "noise 50",
        "JPEG 10",
        "JPEG 20",
        "JPEG 40",
        "mixed",
    ]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.name)
def test_damage_depends_on_the_photo_alone(damage):
    damaged = damage(PHOTO)
    assert (damaged.shape, damaged.dtype) == (PHOTO.shape, np.uint8)
    assert np.array_equal(damaged, damage(PHOTO.copy()))
    assert not np.array_equal(damaged, PHOTO)
    other = PHOTO.copy()
    other[0, 0, 0] ^= 1
    if damage.sigma is not None:
        assert np.mean(damage(other) != damaged) > 0.5


@pytest.mark.parametrize("damage", [d for d in DAMAGES if d.sigma is not None], ids=lambda damage: damage.name)
def test_noise_has_the_sigma_that_bm3d_is_told(damage):
    grey = np.full((200, 200, 3), 128, np.uint8)
    errors = damage(grey).astype(float) - 128
    assert errors.std() == pytest.approx(damage.sigma, rel=0.03)
    assert errors.mean() == pytest.approx(0, abs=0.5)


def test_digest_tells_shapes_and_depths_apart():
    pictures = [PHOTO, PHOTO.reshape(200, 100, 3), PHOTO.astype(np.uint16), PHOTO[::-1]]
    assert len({digest(picture) for picture in pictures}) == 4
    assert digest(PHOTO[::-1]) == digest(PHOTO[::-1].copy())


def test_evenly():
    assert evenly(range(10), 4) == [0, 2, 5, 7]
    assert evenly(range(3), 7) == evenly(range(3), None) == [0, 1, 2]
    assert evenly(range(3), 0) == []


def test_photos_of_a_data_folder(tmp_path):
    rows = ["file,split,set,role,use"]
    rows += [f"test/bsd100/{i:03}.png,test,B,clean,any" for i in range(48)]
    rows += ["test/mcmaster/1.png,test,M,clean,any", "test/other/1.png,test,O,clean,any"]
    rows += ["hq/cid22_val/1.png,val,C,clean,any", "test/bsd100/x.png,val,B,clean,any"]
    (tmp_path / "manifest.csv").write_text("\n".join(rows))
    names = [path.relative_to(tmp_path / "test").as_posix() for path in bench_set(tmp_path)]
    assert names == [*(f"bsd100/{i:03}.png" for i in range(0, 48, 2)), "mcmaster/1.png"]
    assert validation_set(tmp_path) == [tmp_path / "hq/cid22_val/1.png"]


def test_photos_of_any_folder(tmp_path):
    save(tmp_path / "b/2.png", PHOTO)
    save(tmp_path / "1.png", PHOTO)
    (tmp_path / "notes.txt").write_text("no photo")
    assert [path.name for path in in_folder(tmp_path)] == ["1.png", "2.png"]
    with pytest.raises(UsageError, match="has no photos"):
        in_folder(tmp_path / "none")


def test_load(tmp_path):
    (photo,) = load([save(tmp_path / "set/a.png", PHOTO)])
    assert photo.name == "set/a"
    assert np.array_equal(photo.pixels, PHOTO)
    with pytest.raises(UsageError, match="191 x 100"):
        load([save(tmp_path / "small.png", PHOTO[:, :191])])


def test_validation_crops_are_cut_from_the_middle_after_the_damage(tmp_path):
    photos = load([save(tmp_path / "set/a.png", PHOTO)])
    ((true, damaged),) = validation_crops(photos, DAMAGES[0], 50)
    assert np.array_equal(true, PHOTO[25:75, 75:125])
    assert np.array_equal(damaged, DAMAGES[0](PHOTO)[25:75, 75:125])
    ((whole, _),) = validation_crops(photos, DAMAGES[0], 500)
    assert whole.shape == PHOTO.shape
