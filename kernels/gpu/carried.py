"""The folder that goes to the machine with the GPU: what training continues with there.

pack.json                 what there is, with the hash of every file
train.npz, val.npz        squares of photos whose use is "any"
run/                      recipe, input hashes and resume state of the run that goes on
KIND.safetensors          the checkpoints that its stage starts from
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...core.errors import UsageError
from ...core.pack.store import read_arrays

__all__ = [
    "FORMAT",
    "NAME",
    "RUN",
    "TRAIN",
    "VAL",
    "Packed",
    "coded",
    "decoded",
    "hashes",
    "photos",
    "unpacked",
]

NAME, TRAIN, VAL, RUN = "pack.json", "train.npz", "val.npz", "run"
FORMAT = 1


@dataclass(frozen=True)
class Packed:
    """What the folder holds."""

    format: int
    run: str  # name of the run that goes on
    system: str
    stage: str
    earlier: Mapping[str, str]  # kind -> file
    squares: Mapping[str, int]  # file -> how many
    files: Mapping[str, str]  # file -> sha256


def unpacked(folder: Path) -> Packed:
    """What `folder` holds, every hash checked. Raises UsageError where that is not what was packed."""
    try:
        packed = Packed(**json.loads((folder / NAME).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise UsageError(f"{folder / NAME} cannot be read ({error}); pack again with scripts/gpu --pack") from None
    found = hashes(folder)
    wrong = [name for name, digest in packed.files.items() if found.get(name) != digest]
    if packed.format != FORMAT or wrong:
        raise UsageError(f"{folder} is not what was packed ({', '.join(wrong) or 'another format'}); pack again")
    return packed


def photos(path: Path) -> list[NDArray[np.uint8]]:
    """The squares in a file, in their order. Raises PackError where it is damaged."""
    return [decoded(array) for _, array in sorted(read_arrays(path).items())]


def coded(photo: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A photo (H, W, 3) as differences (3, H, W) between neighbours and colours, modulo 256: they pack tighter."""
    red, green, blue = photo.transpose(2, 0, 1)
    planes = np.stack([green, red - green, blue - green])
    zero = np.uint8(0)
    return np.diff(np.diff(planes, axis=1, prepend=zero), axis=2, prepend=zero)


def decoded(differences: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The photo again."""
    planes = differences.cumsum(axis=2, dtype=np.uint8).cumsum(axis=1, dtype=np.uint8)
    green, red, blue = planes
    return np.stack([red + green, green, blue + green], axis=2)


def hashes(folder: Path) -> dict[str, str]:
    """sha256 of every file but the list of them."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != NAME)
    return {path.relative_to(folder).as_posix(): sha256(path.read_bytes()).hexdigest() for path in paths}
