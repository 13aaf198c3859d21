"""The files of a pack: the embedded pack, hashes, and named arrays in .npz files.

Golden restorations and recorded graph calls are .npz files without pickle, with the same bytes for the same arrays
(`numpy.savez` promises nothing about its bytes).
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path

import numpy as np

from ..arrays import Array
from ..errors import PackError, PackTamperedError
from .manifest import FILE, PackedFile

__all__ = ["SHARED", "check_file", "default_pack", "packed_file", "read_arrays", "write_arrays"]

# File of the weights that the graphs of a target share, in a pack of several tasks. Core ML packages have their own.
SHARED = {"onnx": "onnx.bin", "openvino": "openvino.bin"}

_DEFAULT = Path(__file__).parents[1] / "packs" / "cleanup"
_DATE = (1980, 1, 1, 0, 0, 0)  # the earliest that a zip file knows


def default_pack() -> Path:
    """The folder of the embedded pack. Raises PackError where this installation has none."""
    if not (_DEFAULT / FILE).is_file():
        raise PackError(
            f"this installation has no embedded pack (there is no {_DEFAULT / FILE}); "
            "reinstall pocketprior, or give the folder of a pack"
        )
    return _DEFAULT


def packed_file(folder: Path, file: str) -> PackedFile:
    """The entry of the manifest for the file `file` (with / between names) of the pack in `folder`."""
    path = folder / file
    try:
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
            return PackedFile(file, digest, stream.tell())
    except OSError as error:
        raise PackError(f"{path} of the pack cannot be read ({error.strerror}); copy the whole folder again") from error


def check_file(folder: Path, packed: PackedFile) -> None:
    """Raise PackTamperedError unless the file in `folder` has the size and hash of the one that was packed."""
    found = packed_file(folder, packed.file)
    if found != packed:
        raise PackTamperedError(
            f"{folder / packed.file} was changed after packing: it has {found.bytes} bytes and sha256 "
            f"{found.sha256[:16]}..., the manifest says {packed.bytes} bytes and {packed.sha256[:16]}...; "
            "copy the pack again"
        )


def write_arrays(path: Path, arrays: Mapping[str, Array]) -> None:
    """Write `arrays` to `path`, sorted by name, not compressed."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(arrays):
            with archive.open(zipfile.ZipInfo(f"{name}.npy", _DATE), "w", force_zip64=True) as file:
                np.save(file, np.asarray(arrays[name], order="C"), allow_pickle=False)


def read_arrays(path: Path) -> dict[str, Array]:
    """The arrays of a file. Raises PackError where it is missing, damaged, or holds anything but arrays."""
    try:
        with zipfile.ZipFile(path) as archive:
            contents = {name.removesuffix(".npy"): BytesIO(archive.read(name)) for name in archive.namelist()}
            return {name: np.asarray(np.load(content, allow_pickle=False)) for name, content in contents.items()}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise PackError(f"the arrays in {path} cannot be read ({error}); copy the pack again") from error
