"""The album that `personalize --around PHOTO` generates first."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from pocketprior.core.errors import PhotoReadError, UsageError
from pocketprior.core.photo.io import read, write
from pocketprior.core.photo.photo import Photo
from pocketprior.core.training.gen2res.album import Album, draw_album, is_generated


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("photo") / "old.png"
    write(Photo(np.random.default_rng(0).integers(0, 256, (70, 50, 3), np.uint8)), path)
    return path


def generate(photo: Path, folder: Path, base: Path, count: int = 3, **changes: int) -> None:
    draw_album(photo, folder, Album(count=count, steps=2, **changes), base=base, side=40, batch=2)


@pytest.fixture(scope="module")
def made(photo: Path, base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "album"
    generate(photo, folder, base)
    return folder


@pytest.fixture
def album(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "album"))


def test_an_album_has_its_pictures_and_says_what_it_is_made_of(album: Path) -> None:
    assert sorted(p.name for p in album.iterdir()) == ["00.png", "01.png", "02.png", "album.json"]
    assert read(album / "00.png").size == (40, 24), "40 x 29, cut to multiples of 8"
    facts = json.loads((album / "album.json").read_text())
    assert (facts["start"], facts["steps"], facts["skip"], facts["last"]) == (300, 2, 10, 200)
    assert len(facts["photo"]) == len(facts["base"]) == 64
    assert is_generated(album)


def test_finished_pictures_are_kept_and_missing_ones_made_again(album: Path, photo: Path, base: Path) -> None:
    lost = (album / "01.png").read_bytes()
    (album / "01.png").unlink()
    times = {p.name: p.stat().st_mtime_ns for p in album.glob("*.png")}
    generate(photo, album, base)
    assert (album / "01.png").stat().st_size > 0
    close = read(album / "01.png").pixels.astype(int)
    again = album / "again.png"
    again.write_bytes(lost)
    assert int(np.abs(close - read(again).pixels).max()) <= 1, "alone in its batch it differs by rounding at most"
    assert all((album / name).stat().st_mtime_ns == time for name, time in times.items())


def test_an_album_can_grow(album: Path, photo: Path, base: Path) -> None:
    generate(photo, album, base, count=4)
    assert len(list(album.glob("*.png"))) == 4


def test_other_inputs_are_refused(album: Path, photo: Path, base: Path) -> None:
    with pytest.raises(UsageError, match="another seed"):
        generate(photo, album, base, seed=5)


def test_a_folder_with_other_files_is_refused(tmp_path: Path, photo: Path, base: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(UsageError, match="holds other files"):
        generate(photo, tmp_path, base)


def test_a_photo_that_is_too_small_is_refused(tmp_path: Path, base: Path) -> None:
    write(Photo(np.zeros((5, 60, 3), np.uint8)), tmp_path / "strip.png")
    with pytest.raises(UsageError, match="at least 8 pixels"):
        generate(tmp_path / "strip.png", tmp_path / "album", base)
    assert not (tmp_path / "album").exists()


def test_something_else_than_a_photo_is_refused(tmp_path: Path, base: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"no photo")
    with pytest.raises(PhotoReadError):
        generate(tmp_path / "broken.png", tmp_path / "album", base)
    assert not (tmp_path / "album").exists()


def test_personal_albums_are_not_taken_for_generated_ones(tmp_path: Path) -> None:
    assert not is_generated(tmp_path)


def test_a_file_in_place_of_the_album_is_refused(tmp_path: Path, photo: Path, base: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(UsageError, match="is a file or holds other files"):
        generate(photo, tmp_path / "mine.txt", base)


def test_a_batch_of_none_is_refused(photo: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="batch of at least 1"):
        draw_album(photo, tmp_path / "album", Album(), side=40, batch=0)
