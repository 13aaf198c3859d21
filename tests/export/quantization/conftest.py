"""One tiny pack, opened once for all tests of quantization."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import packs
import pytest
from PIL import Image

from pocketprior.export.quantization.samples import Sample, samples
from pocketprior.export.quantization.variant import FloatPack, Reference, open_float, reference


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six small pictures."""
    folder = tmp_path_factory.mktemp("photos")
    for seed in range(6):
        Image.fromarray(packs.photo(40, 48, seed=seed)).save(folder / f"{seed}.png")
    return folder


@pytest.fixture(scope="session")
def chosen(photos: Path) -> list[Sample]:
    return samples(sorted(photos.iterdir())[:2], "cleanup", 32)


@pytest.fixture(scope="session")
def opened(built_pack: Path, chosen: list[Sample]) -> FloatPack:
    return open_float(built_pack, chosen)


@pytest.fixture(scope="session")
def truth(built_pack: Path, chosen: list[Sample]) -> Reference:
    return reference(built_pack, chosen)


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
