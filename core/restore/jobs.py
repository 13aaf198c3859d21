"""Which photos a call means, and which files their results go to."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from ..errors import PhotoReadError, UsageError
from ..photo.io import READABLE, WRITABLE, is_photo

__all__ = ["FileJob", "compare_path", "plan_jobs"]

RESTORED = ".restored"  # photo.jpg -> photo.restored.jpg
COMPARE = ".compare"


@dataclass(frozen=True)
class FileJob:
    """One photo and the file its result goes to."""

    photo: Path
    output: Path


@dataclass(frozen=True)
class _Found:
    """A photo, and its path below the folder that was named (only its name where none was)."""

    path: Path
    place: Path


def plan_jobs(arguments: Sequence[str], out: str | None) -> tuple[list[FileJob], list[Path]]:
    """What to restore, and which earlier results were left out.

    Args:
        arguments: Files, folders (searched recursively, except for `out`) and patterns. Results of earlier calls are
            left out unless nothing else was named.
        out: None: next to each photo. A folder if it is one, ends with a separator, or there is more than one photo;
            otherwise a file.

    Raises:
        UsageError: Nothing is found, a result has no suffix that can be written, or two results, or a result and a
            photo, would be one file.
        PhotoReadError: A folder cannot be searched.
    """
    avoid = os.path.realpath(out) if out else ""
    found = _unique([f for argument in arguments for f in _find(argument, avoid)])
    photos = [f for f in found if not _is_result(f.path)] or found
    many = len(found) > 1 or any(os.path.isdir(argument) for argument in arguments)
    jobs = [FileJob(f.path, _output(f, out, many)) for f in photos]
    _check_suffixes(jobs)
    _check_distinct(jobs)
    return jobs, [f.path for f in found if f not in photos]


def compare_path(output: Path) -> Path:
    """The file of the before/after image, next to the result."""
    return output.with_name(f"{output.stem.removesuffix(RESTORED)}{COMPARE}{output.suffix}")


def _find(argument: str, avoid: str) -> list[_Found]:
    path = Path(argument)
    if path.is_dir():
        return _in_folder(path, avoid)
    if os.path.lexists(path) or not glob.has_magic(argument):
        return [_Found(path, Path(path.name))]
    matches = sorted(glob.glob(argument, recursive=True))
    if not matches:
        raise UsageError(f"no file fits the pattern '{argument}'; check it, or name the files")
    return [f for match in matches for f in _find(match, avoid)]


def _in_folder(folder: Path, avoid: str) -> list[_Found]:
    photos = sorted(path for path in _walk(folder, avoid) if is_photo(path))
    if not photos:
        raise UsageError(f"the folder '{folder}' has no photos in it; expected files with {', '.join(READABLE)}")
    return [_Found(path, path.relative_to(folder)) for path in photos]


def _walk(folder: Path, avoid: str) -> Iterator[Path]:
    """All files below a folder, except those in hidden folders and in the folder `avoid`."""
    for parent, folders, files in os.walk(folder, onerror=_unreadable):
        folders[:] = [name for name in folders if name[0] != "." and os.path.realpath(Path(parent, name)) != avoid]
        yield from (Path(parent, name) for name in files)


def _unreadable(error: OSError) -> NoReturn:
    raise PhotoReadError(f"the folder '{error.filename}' cannot be searched: {error.strerror}; make it readable")


def _unique(found: Iterable[_Found]) -> list[_Found]:
    return list({os.path.realpath(f.path): f for f in found}.values())


def _is_result(path: Path) -> bool:
    return path.stem.endswith((RESTORED, COMPARE))


def _output(found: _Found, out: str | None, many: bool) -> Path:
    if out is None:
        return found.path.with_name(f"{found.path.stem}{RESTORED}{found.path.suffix}")
    if not many and not out.endswith(("/", os.sep)) and not os.path.isdir(out):
        return Path(out)
    if os.path.exists(out) and not os.path.isdir(out):
        raise UsageError(f"'{out}' is a file, but several photos were given; name a folder with -o")
    return Path(out) / found.place


def _check_suffixes(jobs: Sequence[FileJob]) -> None:
    for job in jobs:
        if job.output.suffix.lower() not in WRITABLE:
            raise UsageError(f"'{job.output}' cannot be written; name a file with -o that has {', '.join(WRITABLE)}")


def _check_distinct(jobs: Sequence[FileJob]) -> None:
    photos = {os.path.realpath(job.photo): job.photo for job in jobs}
    written: dict[str, Path] = {}
    for job in jobs:
        output = os.path.realpath(job.output)
        if output in photos:
            raise UsageError(f"the result would be written over the photo '{photos[output]}'; choose another -o")
        if output in written:
            raise UsageError(
                f"'{written[output]}' and '{job.photo}' would both be written to '{job.output}'; "
                "restore them in two calls, with two folders"
            )
        written[output] = job.photo
