from __future__ import annotations

import io
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import webdataset
from PIL import Image

from pocketprior.core.cli import main
from pocketprior.core.errors import TrainingError, UsageError
from pocketprior.core.training.data import sources
from pocketprior.core.training.data.photos import Pool, gather
from pocketprior.core.training.data.sources import expand, is_shards, read_shard


def png(level: int, size: tuple[int, int] = (40, 48)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size[::-1], (level, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def write_shards(folder: Path, entries: list[dict[str, bytes]], count: int) -> str:
    """Entries spread over shards as `webdataset.ShardWriter` does it; the pattern of them."""
    folder.mkdir(exist_ok=True)
    with webdataset.ShardWriter(str(folder / "photos-%03d.tar"), maxcount=count, verbose=0) as writer:
        for i, entry in enumerate(entries):
            writer.write({"__key__": f"{i:05d}", **entry})
    return f"{folder}/photos-{{000..{(len(entries) - 1) // count:03d}}}.tar"


Read = Callable[[int], Pool]


def source(urls: list[str], seed: int = 0) -> Read:
    return partial(read_shard, urls, seed, partial(gather, minimum=32, side=8, structures=False))


def levels(read: Read, place: int) -> list[int]:
    return [int(photo[0, 0, 0]) for photo in read(place).photos]


@pytest.fixture
def few_photos(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "GROUP_PHOTOS", 2)


@pytest.mark.usefixtures("few_photos")
def test_photos_of_a_place_depend_on_seed_and_place_alone(tmp_path: Path) -> None:
    urls = expand(write_shards(tmp_path, [{"png": png(i)} for i in range(20)], 5))
    straight = source(urls)
    places = [levels(straight, place) for place in range(12)]
    assert levels(source(urls), 7) == places[7]
    assert [levels(source(urls, seed=1), place) for place in range(12)] != places


@pytest.mark.usefixtures("few_photos")
def test_a_place_has_photos_of_one_shard_and_all_shards_take_turns(tmp_path: Path) -> None:
    """Two photos of a shard; every shard once before any comes again."""
    urls = expand(write_shards(tmp_path, [{"png": png(i)} for i in range(20)], 5))
    places = [levels(source(urls), place) for place in range(120)]
    assert all(len({level // 5 for level in place}) == 1 and len(set(place)) == 2 for place in places)
    for first in range(0, 120, 4):
        assert sorted(place[0] // 5 for place in places[first : first + 4]) == [0, 1, 2, 3]
    assert {level for place in places for level in place} == set(range(20))


def test_pairs_stay_together(tmp_path: Path) -> None:
    entries = [{"clean.png": png(i), "damaged.png": png(100 + i)} for i in range(6)]
    pool = source(expand(write_shards(tmp_path, entries, 3)))(0)
    crop = pool.crop(32, np.random.default_rng(0))
    np.testing.assert_allclose(crop.damaged[..., 0] - crop.clean[..., 0], 100 / 255, atol=1e-6)
    assert crop.thumbnail.shape == (3, 8, 8)


@pytest.mark.parametrize(
    ("entries", "named"),
    [
        ([{"txt": b"hello"}], r"\['txt'\]"),
        ([{"png": b"hello"}], "cannot be decoded"),
        ([{"png": png(0)}, {"clean.png": png(0), "damaged.png": png(1)}], "mix pairs"),
        ([{"clean.png": png(0), "damaged.png": png(1, (40, 40))}], "differ in size"),
        ([{"png": png(0, (16, 16))}], "smaller than the crop"),
    ],
    ids=["no photo", "damaged", "mixed", "sizes", "small"],
)
def test_bad_entry_is_told(entries: list[dict[str, bytes]], named: str, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=named):
        source(expand(write_shards(tmp_path, entries, 9)))(0)


def test_cut_off_shard_is_told(tmp_path: Path) -> None:
    (url,) = expand(write_shards(tmp_path, [{"png": png(i)} for i in range(9)], 9))
    content = Path(url).read_bytes()
    Path(url).write_bytes(content[: content.rindex(b"IDAT")])
    with pytest.raises(TrainingError, match=r"cannot read the shard .*photos-000\.tar"):
        source([url])(0)


def test_places_that_are_shards(tmp_path: Path) -> None:
    pattern = write_shards(tmp_path / "there", [{"png": png(i)} for i in range(4)], 2)
    assert is_shards(pattern)
    assert is_shards(str(tmp_path / "there"))
    assert not is_shards(str(tmp_path))
    assert expand(pattern) == expand(str(tmp_path / "there"))
    assert expand("https://host/a-{0..1}.tar") == ["https://host/a-0.tar", "https://host/a-1.tar"]
    with pytest.raises(UsageError, match=r"photos-002\.tar"):
        expand(pattern.replace("001", "002"))


def test_training_from_shards_needs_held_back_photos(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pattern = write_shards(tmp_path / "shards", [{"png": png(i, (300, 300))} for i in range(4)], 2)
    held_back = tmp_path / "val"
    held_back.mkdir()
    (held_back / "one.png").write_bytes(png(9, (300, 300)))
    quick = [w for s in ("steps=2", "save_every=1", "batch=4", "crop=32") for w in ("--set", s)]
    arguments = ["train", "dtpm", "semantic", "--data", pattern, "--out", str(tmp_path / "run"), *quick]
    assert main(arguments) == 2
    assert "--val" in capsys.readouterr().err
    assert main([*arguments, "--val", str(held_back)]) == 0
    assert (tmp_path / "run" / "model.safetensors").exists()
