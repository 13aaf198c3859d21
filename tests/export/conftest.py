"""Packs of the systems beside DTPM, and one tiny pack opened for quantization; each is made once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pocketprior.export.quantization.pack_quality import FloatResults, float_results
from pocketprior.export.targets.calibration import DamagedPhoto, FloatPack, damaged_photos, open_float
from pocketprior.export.writer.pack import PackOptions, write_pack
from support import packs
from support.small_models import PHOTOS, source_of


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of the pack of a system, written when it is first asked for; not to be changed."""
    root = tmp_path_factory.mktemp("systems")

    def pack(system: str) -> Path:
        if not (root / system).exists():
            write_pack(source_of(system, root), root / system, PHOTOS, PackOptions(name=f"small-{system}"))
        return root / system

    return pack


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six small pictures."""
    folder = tmp_path_factory.mktemp("photos")
    for seed in range(6):
        Image.fromarray(packs.photo(40, 48, seed=seed)).save(folder / f"{seed}.png")
    return folder


@pytest.fixture(scope="session")
def chosen(photos: Path) -> list[DamagedPhoto]:
    return damaged_photos(sorted(photos.iterdir())[:2], "cleanup", 32)


@pytest.fixture(scope="session")
def opened(built_pack: Path, chosen: list[DamagedPhoto]) -> FloatPack:
    return open_float(built_pack, chosen)


@pytest.fixture(scope="session")
def truth(built_pack: Path, chosen: list[DamagedPhoto]) -> FloatResults:
    return float_results(built_pack, chosen)


@pytest.fixture
def feed() -> dict[str, np.ndarray]:
    """One call of the fused graph of the tiny pack."""
    rng = np.random.default_rng(0)
    return {
        "image": rng.random((1, 3, 16, 20), np.float32),
        "noise": rng.standard_normal((1, 3, 16, 20)).astype(np.float32),
        "code": rng.standard_normal((1, packs.CODE)).astype(np.float32),
        "strength": np.ones(1, np.float32),
    }
