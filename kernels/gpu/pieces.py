"""Folders as a few small files, for places that give back little: one tar, cut into pieces, and joined again."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Sequence
from pathlib import Path

from ...core.errors import UsageError
from ...core.files import atomic_output
from ...core.pack.systems import SYSTEMS

__all__ = ["FILES", "FILE_BYTES", "cut", "join"]

FILES = 8  # that a run may leave, results and recordings among them
FILE_BYTES = 15 * 2**20  # how large each may be
PIECES = FILES - 1 - len(SYSTEMS)


def cut(paths: Sequence[Path], folder: Path, name: str) -> list[Path]:
    """Write files as `folder`/NAME-0.tar, NAME-1.tar, ...: pieces of one archive, each whole or not there.

    The same files give the same bytes. Raises UsageError where they need more than PIECES pieces.
    """
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for path in paths:
            entry = tarfile.TarInfo(path.name)
            entry.size = path.stat().st_size
            with path.open("rb") as file:
                archive.addfile(entry, file)
    whole = buffer.getvalue()
    count = -(-len(whole) // FILE_BYTES)
    if count > PIECES:
        raise UsageError(
            f"{len(whole) / 2**20:.0f} MiB were to be given back; {PIECES} pieces of {FILE_BYTES / 2**20:.0f} MiB are "
            "the most: train a smaller model here"
        )
    pieces = [folder / f"{name}-{i}.tar" for i in range(count)]
    for i, piece in enumerate(pieces):
        with atomic_output(piece) as temporary:
            temporary.write_bytes(whole[i * FILE_BYTES : (i + 1) * FILE_BYTES])
    return pieces


def join(pieces: Sequence[Path], folder: Path) -> list[Path]:
    """Put the files of the pieces, given in their order, into `folder`, replacing those of the same name."""
    folder.mkdir(parents=True, exist_ok=True)
    whole = io.BytesIO(b"".join(piece.read_bytes() for piece in pieces))
    written: list[Path] = []
    with tarfile.open(fileobj=whole) as archive:
        for entry in archive:
            content = archive.extractfile(entry)
            if content is None or Path(entry.name).name != entry.name:
                raise UsageError(f"{pieces[0]} holds '{entry.name}', which is no plain file; it is not ours")
            with atomic_output(folder / entry.name, overwrite=True) as temporary:
                temporary.write_bytes(content.read())
            written.append(folder / entry.name)
    return written
