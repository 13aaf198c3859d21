"""Named float arrays from a .safetensors or .npz file; nothing in it is ever executed."""

from __future__ import annotations

import json
import math
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import UsageError

__all__ = ["read_tensors"]

_DTYPES = {"F16": np.dtype("<f2"), "F32": np.dtype("<f4"), "F64": np.dtype("<f8")}


def read_tensors(path: Path) -> dict[str, NDArray[np.float64]]:
    """All float arrays of the file as float64; UsageError when it cannot be read as what its suffix says."""
    readers = {".safetensors": _safetensors, ".npz": _npz}
    if path.suffix not in readers:
        raise UsageError(f"'{path}' is no weights file that can be read; give a .safetensors or .npz file")
    try:
        return readers[path.suffix](path)
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise UsageError(
            f"'{path}' cannot be read as {path.suffix}: {error}; give an undamaged .safetensors or .npz file"
        ) from error


def _npz(path: Path) -> dict[str, NDArray[np.float64]]:
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name].astype(np.float64) for name in file.files if file[name].dtype.kind == "f"}


def _safetensors(path: Path) -> dict[str, NDArray[np.float64]]:
    """Eight bytes with the length of a JSON header, the header, the arrays one after another."""
    content = path.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    header: dict[str, Any] = dict(**json.loads(content[8:start]))
    header.pop("__metadata__", None)
    entries = {name: entry for name, entry in header.items() if entry["dtype"] in _DTYPES}
    return {name: _array(content, start, entry) for name, entry in entries.items()}


def _array(content: bytes, start: int, entry: dict[str, Any]) -> NDArray[np.float64]:
    shape = [int(size) for size in entry["shape"]]
    first = int(entry["data_offsets"][0])
    flat = np.frombuffer(content, _DTYPES[entry["dtype"]], math.prod(shape), start + first)
    return flat.reshape(shape).astype(np.float64)
