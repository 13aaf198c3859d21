"""Fixtures that more than one folder of tests uses."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pocketprior.core.pack.manifest import Manifest
from pocketprior.core.restore.restorer import Restorer
from support import packs


@pytest.fixture(scope="session")
def built_pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small real pack, made once; not to be changed."""
    folder = tmp_path_factory.mktemp("pack") / "tiny"
    packs.build(folder)
    return folder


@pytest.fixture
def pack(built_pack: Path, tmp_path: Path) -> Path:
    """A copy of it that a test may damage."""
    return Path(shutil.copytree(built_pack, tmp_path / "pack"))


@pytest.fixture(scope="session")
def manifest(built_pack: Path) -> Manifest:
    return Manifest.load(built_pack)


@pytest.fixture(scope="session")
def fused(built_pack: Path) -> Restorer:
    """The tiny pack as one graph."""
    return Restorer.from_pack(built_pack, graphs="fused", threads=1)


@pytest.fixture(scope="session")
def split(built_pack: Path) -> Restorer:
    """The tiny pack as predict and denoise, with the loop in Python."""
    return Restorer.from_pack(built_pack, graphs="split", threads=1)
