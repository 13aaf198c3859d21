"""Restoring photo files: which photos a call means, where their results go, and one after another to the files."""

from __future__ import annotations

import glob
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from ..errors import PhotoReadError, PhotoWriteError, PocketPriorError, UsageError
from ..files import failure_reason
from ..limits import MAX_PIXELS
from ..photo.io import SUFFIXES, is_photo, read, write
from ..photo.photo import Photo
from ..photo.resize import side_by_side
from .noise_sigma import white_sigma
from .restorer import RestoreOptions, Restorer

__all__ = ["FileJob", "FileOptions", "Outcome", "compare_path", "plan_jobs", "restore_files"]

RESTORED = ".restored"  # photo.jpg -> photo.restored.jpg
COMPARE = ".compare"


@dataclass(frozen=True)
class FileJob:
    """One photo and the file its result goes to."""

    photo: Path
    output: Path


@dataclass(frozen=True)
class FileOptions:
    """How photo files are read and results are written."""

    overwrite: bool = False  # replace results that exist
    resume: bool = False  # keep results that exist
    compare: bool = False  # write the photo and its result side by side, too
    quality: int | None = None  # 1 to 100, of lossy formats; None for each format's default
    max_pixels: int = MAX_PIXELS  # larger photos are refused


@dataclass(frozen=True)
class Outcome:
    """What became of one photo."""

    photo: str
    state: str  # "restored", "kept" (an earlier result, with `resume`) or "failed"
    output: str
    compare: str | None = None
    height: int = 0
    width: int = 0
    tiles: int = 0
    seconds: float = 0.0
    notices: tuple[str, ...] = ()
    error: str = ""
    code: int = 0  # exit code of the error, 0 for none


def plan_jobs(arguments: Sequence[str], out: str | None) -> tuple[list[FileJob], list[Path]]:
    """What to restore, and which earlier results were left out, as they are unless nothing else was named.

    arguments: files, folders (searched recursively, except for `out`) and patterns; out: None: next to each photo. A
    folder if it is one, ends with a separator, or there is more than one photo; otherwise a file.

    Raises UsageError where nothing is found, a result has no suffix that can be written, or two results, or a result
    and a photo, would be one file; PhotoReadError where a folder cannot be searched.
    """
    avoid = os.path.realpath(out) if out else ""
    named = [found for argument in arguments for found in _find(argument, avoid)]
    places = dict({os.path.realpath(path): (path, place) for path, place in named}.values())
    photos = [path for path in places if not path.stem.endswith((RESTORED, COMPARE))] or list(places)
    many = len(places) > 1 or any(os.path.isdir(argument) for argument in arguments)
    jobs = [FileJob(path, _output(path, places[path], out, many)) for path in photos]
    _check_outputs(jobs)
    return jobs, [path for path in places if path not in photos]


def restore_files(
    restorer: Restorer,
    jobs: Iterable[FileJob],
    options: RestoreOptions,
    files: FileOptions,
    progress: Callable[[FileJob, int, int], None],
) -> Iterator[Outcome]:
    """Restore photo after photo, and yield what became of each.

    options: as for `Restorer.__call__`, `progress` excepted; `noise` is the standard deviation of each channel.
    progress: called with a job, the tiles done and the tiles in all.
    """
    for job in jobs:
        try:
            kept = files.resume and job.output.exists()
            yield _kept(job) if kept else _restore(restorer, job, options, files, progress)
        except PocketPriorError as error:
            yield Outcome(str(job.photo), "failed", str(job.output), error=str(error), code=error.exit_code)
        except MemoryError:
            message = f"'{job.photo}' does not fit into the memory of this machine; free some, or give a --max-memory"
            yield Outcome(str(job.photo), "failed", str(job.output), error=message, code=1)


def compare_path(output: Path) -> Path:
    """The file of the before/after image, next to the result."""
    return output.with_name(f"{output.stem.removesuffix(RESTORED)}{COMPARE}{output.suffix}")


def _kept(job: FileJob) -> Outcome:
    if not job.photo.exists():
        raise PhotoReadError(f"'{job.photo}': there is no such file, only its result; check the path")
    if job.photo.stat().st_mtime > job.output.stat().st_mtime:
        raise PhotoWriteError(
            f"'{job.photo}' was changed after its result '{job.output}' was written; restore it with --overwrite"
        )
    return Outcome(str(job.photo), "kept", str(job.output))


def _restore(
    restorer: Restorer,
    job: FileJob,
    options: RestoreOptions,
    files: FileOptions,
    progress: Callable[[FileJob, int, int], None],
) -> Outcome:
    started, tiles = time.monotonic(), 0
    compare = compare_path(job.output) if files.compare else None
    for path in filter(None, (job.output, compare)):
        _check_place(path, files.overwrite)

    def report(done: int, total: int) -> None:
        nonlocal tiles
        tiles = total
        progress(job, done, total)

    photo = read(job.photo, max_pixels=files.max_pixels)
    noise = options.get("noise")
    own: RestoreOptions = {**options, "progress": report}
    own["noise"] = None if noise is None else white_sigma(photo.pixels, noise)
    restored, comparison = restorer.photo(photo, **own), None
    if compare is not None:
        both = side_by_side(photo.pixels, restored.pixels)
        comparison = Photo(both, grey=photo.grey, icc=photo.icc, format=photo.format)
    del photo  # out of memory before anything is written
    try:
        job.output.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PhotoWriteError(f"the folder '{job.output.parent}' cannot be made: {failure_reason(error)}") from error
    lost = write(restored, job.output, overwrite=files.overwrite, quality=files.quality)
    if compare is not None and comparison is not None:
        write(comparison, compare, overwrite=files.overwrite, quality=files.quality)
    return Outcome(
        photo=str(job.photo),
        state="restored",
        output=str(job.output),
        compare=compare and str(compare),
        height=restored.size[0],
        width=restored.size[1],
        tiles=tiles,
        seconds=round(time.monotonic() - started, 3),
        notices=restored.notices + lost,
    )


def _check_place(path: Path, overwrite: bool) -> None:
    """Check an output before any work: a long batch must not fail on an existing file or a read-only folder."""
    if path.is_dir():
        raise PhotoWriteError(f"'{path}' is a folder; give the name of a file with -o")
    if os.path.lexists(path) and not overwrite:
        raise PhotoWriteError(f"'{path}' exists; give another -o, --overwrite to replace it, or --resume to keep it")
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    if not folder.is_dir():
        raise PhotoWriteError(f"'{path}' cannot be written: '{folder}' is a file, not a folder; choose another -o")
    if not os.access(folder, os.W_OK):
        raise PhotoWriteError(f"'{path}' cannot be written: you may not write to '{folder}'; choose another -o")


def _find(argument: str, avoid: str) -> list[tuple[Path, Path]]:
    """Photos, each with its path below the folder that was named (only its name where none was)."""
    path = Path(argument)
    if path.is_dir():
        return _in_folder(path, avoid)
    if os.path.lexists(path) or not glob.has_magic(argument):
        return [(path, Path(path.name))]
    matches = sorted(glob.glob(argument, recursive=True))
    if not matches:
        raise UsageError(f"no file fits the pattern '{argument}'; check it, or name the files")
    return [found for match in matches for found in _find(match, avoid)]


def _in_folder(folder: Path, avoid: str) -> list[tuple[Path, Path]]:
    """All photos below a folder, except those in hidden folders and in the folder `avoid`."""
    photos: list[Path] = []
    for parent, folders, files in os.walk(folder, onerror=_unreadable):
        folders[:] = [name for name in folders if name[0] != "." and os.path.realpath(Path(parent, name)) != avoid]
        photos += [Path(parent, name) for name in files if is_photo(name)]
    if not photos:
        raise UsageError(f"the folder '{folder}' has no photos in it; expected files with {', '.join(SUFFIXES)}")
    return [(path, path.relative_to(folder)) for path in sorted(photos)]


def _unreadable(error: OSError) -> NoReturn:
    raise PhotoReadError(f"the folder '{error.filename}' cannot be searched: {error.strerror}; make it readable")


def _output(photo: Path, place: Path, out: str | None, many: bool) -> Path:
    if out is None:
        return photo.with_name(f"{photo.stem}{RESTORED}{photo.suffix}")
    if not many and not out.endswith(("/", os.sep)) and not os.path.isdir(out):
        return Path(out)
    if os.path.exists(out) and not os.path.isdir(out):
        raise UsageError(f"'{out}' is a file, but several photos were given; name a folder with -o")
    return Path(out) / place


def _check_outputs(jobs: Sequence[FileJob]) -> None:
    """Check that each result can be written, over no photo and over no other result."""
    for job in jobs:
        if job.output.suffix.lower() not in SUFFIXES:
            raise UsageError(f"'{job.output}' cannot be written; name a file with -o that has {', '.join(SUFFIXES)}")
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
