"""Photos written to disk for tests, and what a folder holds."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from support import packs

__all__ = ["content", "save"]


def save(path: Path, height: int = 24, width: int = 32) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(packs.photo(height, width)).save(path)
    return str(path)


def content(folder: Path) -> dict[str, bytes | None]:
    """Every path below a folder, with the bytes of regular files."""
    paths = sorted(path for path in folder.rglob("*"))
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() and not path.is_symlink() else None
        for path in paths
    }
