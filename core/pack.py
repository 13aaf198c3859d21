"""The folder of a pack: where the one that comes with this package is, and whether files are those that were packed."""

from __future__ import annotations

import hashlib
from pathlib import Path

from .errors import PackError, PackTamperedError
from .manifest import FILE, PackedFile

__all__ = ["SHARED", "check_file", "default_pack", "packed_file"]

# Weights that the graph files of a target have together, in a pack of several tasks. Core ML packages hold their own.
SHARED = {"onnx": "onnx.bin", "openvino": "openvino.bin"}

_DEFAULT = Path(__file__).parent / "packs" / "cleanup"


def default_pack() -> Path:
    """The folder of the embedded pack; PackError where this installation has none."""
    if not (_DEFAULT / FILE).is_file():
        raise PackError(
            f"this installation has no embedded pack (there is no {_DEFAULT / FILE}); "
            "install pocketprior again, or name the folder of a pack"
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
    """Raise PackTamperedError unless the file in `folder` is, bit by bit, the one that was packed."""
    found = packed_file(folder, packed.file)
    if found != packed:
        raise PackTamperedError(
            f"{folder / packed.file} was changed after packing: it has {found.bytes} bytes and sha256 "
            f"{found.sha256[:16]}..., the manifest says {packed.bytes} bytes and {packed.sha256[:16]}...; "
            "copy the pack again"
        )
