"""A data folder's `manifest.csv`: which photo may be used for what.

Columns read here: file (path under the folder), split (train, val, test), set, role (clean, gt, lq, lq-nogt),
use (any, non-commercial, eval-only) and, where there are pairs, pair_gt (the file of the clean partner). Other columns
are ignored.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..errors import UsageError
from .io import is_photo

__all__ = ["LIST_NAME", "ListedPhoto", "clean_photos", "damaged_photos", "listed_in", "photos_in", "released_photos"]

LIST_NAME = "manifest.csv"


@dataclass(frozen=True)
class ListedPhoto:
    """One row of the list; clean: the clean partner of a damaged photo, None where the list names none."""

    path: Path
    set: str
    use: str
    clean: Path | None


def clean_photos(data: Path, *, split: str, folder: str = "", use: str = "") -> list[ListedPhoto]:
    """The clean photos of a split under `data`, sorted by path.

    folder: only files whose path in the list starts with it; use: only that value; empty for all. UsageError when
    there is no list, it lacks a column, or no row fits.
    """
    found = [row for row in _rows(data, split, "clean", folder) if not use or row.use == use]
    if not found:
        raise UsageError(
            f"'{data / LIST_NAME}' lists no clean '{split}' photos under '{folder or '.'}' (use: {use or 'all'}); "
            "give a data folder that has some"
        )
    return sorted(found, key=lambda row: row.path)


def damaged_photos(data: Path, *, split: str, folder: str) -> list[tuple[Path, Path]]:
    """(damaged, clean) files of the pairs of a split under `folder` of `data`, sorted by path; empty for none.

    Raises UsageError when there is no list or it lacks a column.
    """
    return sorted((row.path, row.clean) for row in _rows(data, split, "lq", folder) if row.clean is not None)


def released_photos(data: Path, *, split: str) -> list[Path]:
    """The clean photos of a split under `data`.

    With a `manifest.csv` in it or above it: those rows of that split whose `use` is "any", so that weights may be
    released. Without one: every photo in the folder, whatever the split. Raises UsageError when there is none.
    """
    root = listed_in(data)
    if root is None or not data.is_dir():
        return photos_in(data)
    folder = data.resolve().relative_to(root).as_posix()
    return [photo.path for photo in clean_photos(root, split=split, folder=folder, use="any")]


def photos_in(folder: Path) -> list[Path]:
    """Every photo under `folder`, listed or not, sorted by path. Raises UsageError when there is none."""
    if not folder.is_dir():
        raise UsageError(f"'{folder}' is not a folder; give a folder of photos or one with a {LIST_NAME}")
    paths = sorted(p for p in folder.rglob("*") if is_photo(p))
    if not paths:
        raise UsageError(f"there are no photos under {folder}; give a folder of photos or one with a {LIST_NAME}")
    return paths


def listed_in(folder: Path) -> Path | None:
    """The folder of the nearest list, in `folder` or above it; None where there is none."""
    here = folder.resolve()
    return next((place for place in (here, *here.parents) if (place / LIST_NAME).is_file()), None)


def _rows(data: Path, split: str, role: str, folder: str) -> Iterator[ListedPhoto]:
    """The rows of a split and a role with a file under `folder` of `data`."""
    path = data / LIST_NAME
    if not path.is_file():
        raise UsageError(f"'{data}' has no {LIST_NAME}; give a folder with one (columns file, split, set, role, use)")
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        missing = sorted({"file", "split", "set", "role", "use"} - set(reader.fieldnames or ()))
        if missing:
            raise UsageError(f"'{path}' lacks the columns {', '.join(missing)}; add them to its first line")
        for row in reader:
            file_path, partner = data / row["file"], data / row["pair_gt"] if row.get("pair_gt") else None
            if (row["split"], row["role"]) == (split, role) and file_path.is_relative_to(data / folder):
                yield ListedPhoto(file_path, row["set"], row["use"], partner)
