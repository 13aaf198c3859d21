"""What `--data` and `--val` name together."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from pocketprior.core.training.data.photos import Pool
from pocketprior.core.training.data.sources import open_data


def pairs(folder: Path, *names: str) -> str:
    for half in ("low", "high"):
        (folder / half).mkdir(parents=True)
        for name in names:
            Image.new("RGB", (256, 256)).save(folder / half / f"{name}.png")
    return str(folder)


def opened(data: str, val: str | None) -> tuple[int, int]:
    """Numbers of pairs to train on and of those held back."""
    found, _ = open_data(data, val, use="any", seed=0, crop=32, side=0, structures=False)
    assert isinstance(found.train, Pool)
    return len(found.train.damaged), len(found.val.damaged)


def test_one_folder_of_pairs_is_parted(tmp_path: Path) -> None:
    data = pairs(tmp_path / "data", *"abcde")
    assert opened(data, None) == opened(data, data) == (4, 1)


def test_held_back_pairs_of_another_folder_all_count(tmp_path: Path) -> None:
    data, val = pairs(tmp_path / "data", *"abcde"), pairs(tmp_path / "val", *"xyz")
    assert opened(data, val) == (5, 3)


@pytest.mark.parametrize("name", ["b", "c"])
def test_hash_tells_another_listing(name: str, tmp_path: Path) -> None:
    """Wherever the folder lies, and not by the time of its files."""
    listings = pairs(tmp_path / "one", *"abd"), pairs(tmp_path / "two", *f"a{name}d")
    first, second = (open_data(p, p, use="any", seed=0, crop=32, side=0, structures=False)[1] for p in listings)
    assert (first == second) == (name == "b")
