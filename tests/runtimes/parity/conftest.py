"""A tiny pack with a recording of itself."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import NamedTuple

import pytest

from support.references import known_pack, record_pack


class Known(NamedTuple):
    """Folders: the pack, and the file that was recorded of it."""

    pack: Path
    recording: Path


@pytest.fixture(scope="session")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Known:
    """Not to be changed."""
    folder = tmp_path_factory.mktemp("kept")
    known_pack(folder / "pack")
    record_pack(folder / "pack", folder / "known.npz", [((61, 130), 5, 1.0), ((33, 42), 6, 0.5)])
    return Known(folder / "pack", folder / "known.npz")


@pytest.fixture
def known(kept: Known, tmp_path: Path) -> Known:
    """A copy of it that a test may damage."""
    shutil.copytree(kept.pack, tmp_path / "pack")
    shutil.copy(kept.recording, tmp_path / "known.npz")
    return Known(tmp_path / "pack", tmp_path / "known.npz")
