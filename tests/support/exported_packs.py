"""Small models as packs, with recordings of them in PyTorch."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pocketprior.export.parity_reference import Shot, record_shots
from pocketprior.export.systems.source import CheckpointSource
from pocketprior.export.writer.pack import PackOptions, write_pack
from pocketprior.runtimes.parity.comparison import CompareOptions, compare
from pocketprior.runtimes.parity.findings import ParityReport
from support import packs
from support.small_models import PHOTOS

__all__ = ["Known", "exported"]


class Known(NamedTuple):
    pack: Path
    recording: Path

    def run(self, pack: Path | None = None, **options: Any) -> ParityReport:
        return compare(pack or self.pack, CompareOptions(against=self.recording, threads=1, **options))

    def copy(self, place: Path) -> Path:
        return Path(shutil.copytree(self.pack, place / "pack"))


def exported(folder: Path, source: CheckpointSource, sizes: tuple[tuple[int, int], ...]) -> Known:
    write_pack(source, folder / "pack", PHOTOS[:1], PackOptions(name="small"))
    shots = [
        Shot(f"photo {i}", _bright(packs.photo(*size, np.uint16, seed=i)), i + 3, (1.0, 0.5)[i % 2])
        for i, size in enumerate(sizes)
    ]
    record_shots(source.open(), source.digest(), shots, folder / "known.npz", device="cpu")
    return Known(folder / "pack", folder / "known.npz")


def _bright(photo: NDArray[np.uint16]) -> NDArray[np.uint16]:
    """With an area of white, where a clamp is needed."""
    photo[: len(photo) // 4] = 65535
    return photo
