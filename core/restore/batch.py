"""Restoring photo files one after another, so that one that fails does not stop the others."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ..errors import PhotoReadError, PhotoWriteError, PocketPriorError
from ..files import failure_reason
from ..limits import MAX_PIXELS
from ..photo.io import read, write
from ..photo.photo import Photo
from ..photo.resize import side_by_side
from .jobs import FileJob, compare_path
from .noise_sigma import white_sigma
from .restorer import ProgressCallback, RestoreOptions, Restorer

__all__ = ["FileOptions", "Outcome", "restore_files"]

FileProgress = Callable[[FileJob, int, int], None]  # (file, tiles done, tiles in all)


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


def restore_files(
    restorer: Restorer, jobs: Iterable[FileJob], options: RestoreOptions, files: FileOptions, progress: FileProgress
) -> Iterator[Outcome]:
    """Restore photo after photo, and yield what became of each.

    Args:
        restorer: The open model.
        jobs: Photos and the files for their results, as `plan_jobs` finds them.
        options: As for `Restorer.__call__`, `progress` excepted. `noise` is the standard deviation of each channel.
        files: How files are read and written.
        progress: Called with a job, the tiles done and the tiles in all.
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


def _kept(job: FileJob) -> Outcome:
    if not job.photo.exists():
        raise PhotoReadError(f"'{job.photo}': there is no such file, only its result; check the path")
    if job.photo.stat().st_mtime > job.output.stat().st_mtime:
        raise PhotoWriteError(
            f"'{job.photo}' was changed after its result '{job.output}' was written; restore it with --overwrite"
        )
    return Outcome(str(job.photo), "kept", str(job.output))


def _restore(
    restorer: Restorer, job: FileJob, options: RestoreOptions, files: FileOptions, progress: FileProgress
) -> Outcome:
    started, tiles = time.monotonic(), 0
    compare = compare_path(job.output) if files.compare else None
    for path in filter(None, (job.output, compare)):
        _check_place(path, files.overwrite)

    def report(done: int, total: int) -> None:
        nonlocal tiles
        tiles = total
        progress(job, done, total)

    restored, comparison = _restored(restorer, job, options, files, report)
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


def _restored(
    restorer: Restorer, job: FileJob, options: RestoreOptions, files: FileOptions, progress: ProgressCallback
) -> tuple[Photo, Photo | None]:
    """The result, and both side by side; the photo itself is out of memory before anything is written."""
    photo = read(job.photo, max_pixels=files.max_pixels)
    options = RestoreOptions(**options, progress=progress)
    if options.get("noise") is not None:
        options["noise"] = white_sigma(photo.pixels, options["noise"])
    restored = restorer.photo(photo, **options)
    if not files.compare:
        return restored, None
    both = side_by_side(photo.pixels, restored.pixels)
    return restored, Photo(both, grey=photo.grey, icc=photo.icc, format=photo.format)


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
