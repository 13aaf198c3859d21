"""Named arrays in an .npz file: without pickle, and with the same bytes for the same arrays.

Golden restorations and recorded graph calls are such files. (`numpy.savez` promises nothing about its bytes.)
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import PackError

__all__ = ["Array", "read_arrays", "write_arrays"]

Array = NDArray[Any]

_DATE = (1980, 1, 1, 0, 0, 0)  # the earliest that a zip file knows


def write_arrays(path: Path, arrays: Mapping[str, Array]) -> None:
    """Write `arrays` to `path`, sorted by name, not compressed."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(arrays):
            with archive.open(zipfile.ZipInfo(f"{name}.npy", _DATE), "w", force_zip64=True) as file:
                np.save(file, np.asarray(arrays[name], order="C"), allow_pickle=False)


def read_arrays(path: Path) -> dict[str, Array]:
    """The arrays of a file; PackError where it is missing, damaged, or holds anything but arrays."""
    try:
        with zipfile.ZipFile(path) as archive:
            return {name.removesuffix(".npy"): _array(archive.read(name)) for name in archive.namelist()}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise PackError(f"the recording {path} cannot be read ({error}); copy the pack again") from error


def _array(content: bytes) -> Array:
    return np.asarray(np.load(BytesIO(content), allow_pickle=False))
