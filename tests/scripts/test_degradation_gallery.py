"""docs/degradations.md shows every task, in images that the gallery command makes."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pocketprior.core.degradations import TASKS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/degradations.md").read_text(encoding="utf-8")
CLEANUP = ("cleanup-kinds", "cleanup-noise")
FOLDER = ROOT / "docs/degradations"
GALLERY = runpy.run_path(str(ROOT / "scripts/degradation_gallery.py"))


def test_the_page_has_a_row_and_an_image_for_every_task() -> None:
    assert re.findall(r"^\| `([\w-]+)` \|", PAGE, re.MULTILINE) == list(TASKS)
    shown = re.findall(r"\]\(degradations/([\w-]+)\.jpg\)", PAGE)
    assert sorted(shown) == sorted(["clean", *TASKS, *CLEANUP, "masks"])


def test_every_image_exists_and_is_small() -> None:
    files = {path.stem: path.stat().st_size for path in FOLDER.iterdir()}
    assert set(files) == {"clean", *TASKS, *CLEANUP, "masks"}
    assert max(files.values()) <= GALLERY["LARGEST"]


def test_the_command_on_the_page_makes_the_images(tmp_path: Path) -> None:
    """As pixels: another version of libjpeg may write other bytes, but hardly another image."""
    (command,) = re.findall(r"python scripts/degradation_gallery\.py (\S+) (\S+)", PAGE)
    assert command[1] == "docs/degradations"
    assert GALLERY["main"]([str(ROOT / command[0]), str(tmp_path)]) == 0
    for path in sorted(FOLDER.iterdir()):
        made, shown = (np.asarray(Image.open(folder / path.name), float) for folder in (tmp_path, FOLDER))
        assert np.abs(made - shown).mean() < 2, f"{path.name} is out of date; run the command on the page"


def test_a_photo_too_small_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.new("RGB", (100, 300)).save(tmp_path / "small.png")
    assert GALLERY["main"]([str(tmp_path / "small.png"), str(tmp_path / "out")]) == 2
    assert "100 x 300" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
