"""Each layout, built from tiny pictures, and the real folders where they lie beside the checkout."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import pytest
from PIL import Image

from pocketprior.core.errors import TrainingError, UnknownNameError, UsageError
from pocketprior.core.photo.listing import LIST_NAME
from pocketprior.core.training.data.pairs import CONVENTIONS, find_pairs

DATA = Path(os.environ.get("POCKETPRIOR_DATA", Path(__file__).parents[5] / "shared" / "data"))


def make(root: Path, names: Iterable[str], size: tuple[int, int] = (4, 3)) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size).save(path)


# layout: files, pairs of the train split, pairs of the test split (None: the set has no such part)
LAYOUTS: dict[str, tuple[list[str], dict[str, str], dict[str, str] | None]] = {
    "LOL": (
        [f"{part}/{half}/{n}.png" for part in ("our485", "eval15") for half in ("low", "high") for n in (1, 22)],
        {f"our485/low/{n}.png": f"our485/high/{n}.png" for n in (1, 22)},
        {f"eval15/low/{n}.png": f"eval15/high/{n}.png" for n in (1, 22)},
    ),
    "Rain100, one folder": (
        [f"{kind}-00{n}.png" for kind in ("rain", "norain") for n in (1, 2)],
        {"rain-001.png": "norain-001.png"},
        {f"rain-00{n}.png": f"norain-00{n}.png" for n in (1, 2)},
    ),
    "Rain100, rainy and gt": (
        [f"train/{kind}-00{n}.png" for kind in ("rainy/rain", "gt/norain") for n in (1, 2)],
        {"train/rainy/rain-001.png": "train/gt/norain-001.png"},
        None,
    ),
    "Rain100, as published": (
        [*(f"rain/X2/norain-00{n}x2.png" for n in (1, 2)), *(f"norain/norain-00{n}.png" for n in (1, 2))],
        {"rain/X2/norain-001x2.png": "norain/norain-001.png"},
        {f"rain/X2/norain-00{n}x2.png": f"norain/norain-00{n}.png" for n in (1, 2)},
    ),
    "RainDrop": (
        [
            *(f"{part}/data/{n}_rain.png" for part in ("train", "test_a") for n in (0, 1)),
            *(f"{part}/gt/{n}_clean.png" for part in ("train", "test_a") for n in (0, 1)),
        ],
        {"train/data/0_rain.png": "train/gt/0_clean.png"},
        {f"test_a/data/{n}_rain.png": f"test_a/gt/{n}_clean.png" for n in (0, 1)},
    ),
    "Snow100K": (
        [f"train/{half}/snow_{n}.jpg" for half in ("synthetic", "gt", "mask") for n in (1, 2)],
        {"train/synthetic/snow_1.jpg": "train/gt/snow_1.jpg"},
        None,
    ),
    "RESIDE": (
        ["hazy/0001_1_0.9.png", "hazy/0001_2_0.8.png", "hazy/0002_1_0.7.png", "clear/0001.png", "clear/0002.png"],
        {"hazy/0001_1_0.9.png": "clear/0001.png", "hazy/0001_2_0.8.png": "clear/0001.png"},
        {
            "hazy/0001_1_0.9.png": "clear/0001.png",
            "hazy/0001_2_0.8.png": "clear/0001.png",
            "hazy/0002_1_0.7.png": "clear/0002.png",
        },
    ),
    "RESIDE, gt": (
        ["train/hazy/1400_1.png", "train/hazy/1400_2.png", "train/gt/1400.png"],
        {"train/hazy/1400_1.png": "train/gt/1400.png"},
        None,
    ),
    "input and target": (
        [f"train/{half}/{n}.png" for half in ("input", "target") for n in (1, 2)],
        {"train/input/1.png": "train/target/1.png"},
        None,
    ),
    "GoPro": (
        [
            f"{place}/{half}/{n}.png"
            for place in ("train/GOPR1", "test/GOPR2")
            for half in ("blur", "sharp")
            for n in "12"
        ],
        {"train/GOPR1/blur/1.png": "train/GOPR1/sharp/1.png"},
        {f"test/GOPR2/blur/{n}.png": f"test/GOPR2/sharp/{n}.png" for n in "12"},
    ),
    "DPDD": (
        [
            *(
                f"{part}_{eye}/{half}/1P0A.png"
                for part in ("train", "val")
                for eye in "clr"
                for half in ("source", "target")
            ),
            *(f"test_c/{half}/1P0B.png" for half in ("source", "target")),
        ],
        {"train_c/source/1P0A.png": "train_c/target/1P0A.png"},
        {"test_c/source/1P0B.png": "test_c/target/1P0B.png"},
    ),
    "DPDD, inputC": (
        [f"{part}/{half}/1.png" for part in ("train", "val") for half in ("inputC", "inputL", "target")],
        {"train/inputC/1.png": "train/target/1.png"},
        None,
    ),
    "SIDD": (
        [f"0001_S6/0001_{kind}_SRGB_01{n}.PNG" for kind in ("NOISY", "GT") for n in (0, 1)],
        {"0001_S6/0001_NOISY_SRGB_010.PNG": "0001_S6/0001_GT_SRGB_010.PNG"},
        {f"0001_S6/0001_NOISY_SRGB_01{n}.PNG": f"0001_S6/0001_GT_SRGB_01{n}.PNG" for n in (0, 1)},
    ),
    "lq and gt, other suffixes": (
        ["lq/a.jpg", "gt/a.png", "lq/b.png", "gt/b.webp"],
        {"lq/a.jpg": "gt/a.png"},
        {"lq/a.jpg": "gt/a.png", "lq/b.png": "gt/b.webp"},
    ),
}


def found(folder: Path, split: str) -> dict[str, str]:
    pairs = find_pairs(folder, split)
    return {pair.damaged.relative_to(folder).as_posix(): pair.clean.relative_to(folder).as_posix() for pair in pairs}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layout_is_found(layout: str, tmp_path: Path) -> None:
    files, train, test = LAYOUTS[layout]
    make(tmp_path, files)
    assert found(tmp_path, "train") == train
    assert found(tmp_path, "val").keys().isdisjoint(train)
    if test is not None:
        assert found(tmp_path, "test") == test


def test_every_convention_is_built_here() -> None:
    names = [f"/{name}" for files, *_ in LAYOUTS.values() for name in files]
    for convention in CONVENTIONS:
        halves = (convention.damaged, convention.clean)
        assert all(any(f"/{half}/".replace("//", "/") in name for name in names) for half in halves), convention


def test_the_last_tenth_is_held_back(tmp_path: Path) -> None:
    make(tmp_path, [f"{half}/{n:02}.png" for half in ("input", "target") for n in range(25)])
    train, val = found(tmp_path, "train"), found(tmp_path, "val")
    assert (len(train), list(val)) == (23, ["input/23.png", "input/24.png"])


def test_nothing_is_held_back_where_the_held_back_pairs_lie_elsewhere(tmp_path: Path) -> None:
    make(tmp_path, [f"plain/{half}/{n}.png" for half in ("lq", "gt") for n in range(3)])
    make(
        tmp_path, [f"parted/{part}/{half}/{n}.png" for part in ("train", "test") for half in ("lq", "gt") for n in "12"]
    )
    plain = [len(find_pairs(tmp_path / "plain", split, whole=True)) for split in ("train", "val")]
    parted = [len(find_pairs(tmp_path / "parted", split, whole=True)) for split in ("train", "val")]
    assert plain == [3, 3]
    assert parted == [2, 1]  # the photos of "train" do not become held-back ones


def test_a_lone_pair_cannot_be_split(tmp_path: Path) -> None:
    make(tmp_path, ["lq/1.png", "gt/1.png"])
    assert len(find_pairs(tmp_path, "test")) == 1
    with pytest.raises(UsageError, match="holds one pair"):
        find_pairs(tmp_path, "train")


def test_photos_without_partner_are_named_with_the_convention(tmp_path: Path) -> None:
    make(tmp_path, ["low/1.png", "high/1.png", "low/2.png", "high/3.png"])
    with pytest.raises(TrainingError, match=r"LOL \(low/ -> high/.*2 photos .*: high/3\.png, low/2\.png; add"):
        find_pairs(tmp_path, "train")


def test_many_photos_without_partner_are_counted(tmp_path: Path) -> None:
    make(tmp_path, ["low/1.png", "high/1.png", *(f"low/x{n}.png" for n in range(8))])
    with pytest.raises(TrainingError, match=r"8 photos .*x4\.png and 3 more"):
        find_pairs(tmp_path, "train")


def test_unknown_layout_lists_what_was_tried(tmp_path: Path) -> None:
    make(tmp_path, ["before/1.png", "after/1.png"])
    with pytest.raises(UsageError, match=r"LOL .*RainDrop .*SIDD"):
        find_pairs(tmp_path, "train")


def test_missing_part_is_named(tmp_path: Path) -> None:
    make(tmp_path, ["train/blur/1.png", "train/sharp/1.png"])
    with pytest.raises(UsageError, match="has folders for train, but none for 'test'"):
        find_pairs(tmp_path, "test")


def test_sizes_that_differ_are_named(tmp_path: Path) -> None:
    make(tmp_path, ["lq/1.png", "gt/1.png", "lq/2.png"])
    make(tmp_path, ["gt/2.png"], size=(5, 3))
    with pytest.raises(TrainingError, match=r"1 pairs differ in size: .*2\.png \(4 x 3\) and 2\.png \(5 x 3\)"):
        find_pairs(tmp_path, "test")


def test_damaged_file_is_named(tmp_path: Path) -> None:
    make(tmp_path, ["lq/1.png", "gt/1.png"])
    (tmp_path / "gt/1.png").write_bytes(b"nothing")
    with pytest.raises(TrainingError, match=r"gt/1\.png' cannot be read"):
        find_pairs(tmp_path, "test")


def test_unknown_split(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="unknown split 'dev'"):
        find_pairs(tmp_path, "dev")


@pytest.fixture
def listed(tmp_path: Path) -> Path:
    rows = [
        "rain/lq/1.png,train,lq,rain/gt/1.png,any",
        "rain/gt/1.png,train,gt,,any",
        "rain/lq/2.png,val,lq,rain/gt/2.png,any",
        "fog/lq/1.png,train,lq,fog/gt/1.png,non-commercial",
        "fog/lq/2.png,train,lq,fog/gt/2.png,eval-only",
        "old/1.png,train,lq-nogt,,any",
    ]
    (tmp_path / LIST_NAME).write_text("\n".join(["file,split,role,pair_gt,use", *rows]))
    make(tmp_path, [f"{kind}/{half}/{n}.png" for kind in ("rain", "fog") for half in ("lq", "gt") for n in (1, 2)])
    return tmp_path


def test_list_decides_split_and_use(listed: Path) -> None:
    assert found(listed, "train") == {"rain/lq/1.png": "rain/gt/1.png"}
    assert found(listed, "val") == {"rain/lq/2.png": "rain/gt/2.png"}
    more = find_pairs(listed, "train", use="non-commercial")
    assert [pair.damaged for pair in more] == [listed / "fog/lq/1.png", listed / "rain/lq/1.png"]


def test_list_above_the_folder_counts(listed: Path) -> None:
    assert found(listed / "rain", "train") == {"lq/1.png": "gt/1.png"}
    with pytest.raises(
        UsageError, match=r"no 'train' pairs .*fog' for the use 'any' .*1 for eval-only, 1 for non-comm"
    ):
        find_pairs(listed / "fog", "train")


def test_listed_file_that_is_missing_is_named(listed: Path) -> None:
    (listed / "rain/gt/1.png").unlink()
    with pytest.raises(TrainingError, match=r"not there: rain/gt/1\.png"):
        find_pairs(listed, "train")


def test_list_without_pairs_column(listed: Path) -> None:
    (listed / LIST_NAME).write_text("file,split,role,use\n")
    with pytest.raises(UsageError, match="lacks the columns pair_gt"):
        find_pairs(listed, "train")


@pytest.mark.skipif(not (DATA / "paired").is_dir(), reason="needs the photo collection beside the checkout")
def test_real_folders_pair_up() -> None:
    counts = {
        (folder, split): len(find_pairs(DATA / "paired" / folder, split, use="non-commercial"))
        for folder, split in (
            *(("denoise_polyu", split) for split in ("train", "val")),
            *(("dehaze_sots_indoor", split) for split in ("train", "val")),
            *((folder, "test") for folder in ("derain_rain100l", "denoise_cc15", "deblur_levin")),
        )
    }
    assert list(counts.values()) == [53, 13, 7, 3, 9, 8, 24]
