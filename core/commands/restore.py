"""`pocketprior restore PHOTO...`: restore photos, folders of photos, or what fits a pattern."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from ..arguments import percentage, size_in_bytes, whole_number
from ..errors import PhotoReadError, PhotoWriteError, PocketPriorError
from ..files import failure_reason
from ..limits import MAX_PIXELS
from ..photo.io import read, write
from ..photo.photo import Photo
from ..photo.resize import side_by_side
from ..restore.noise_sigma import white_sigma
from ..restore.restorer import ProgressCallback, RestoreOptions, Restorer
from .jobs import FileJob, compare_path, plan_jobs

__all__ = ["Outcome", "add_arguments", "run"]

INTERRUPTED = 130


@dataclass(frozen=True)
class Outcome:
    """What became of one photo: `state` is "restored", "kept" (an earlier result, with --resume) or "failed"."""

    photo: str
    state: str
    output: str
    compare: str | None = None
    height: int = 0
    width: int = 0
    tiles: int = 0
    seconds: float = 0.0
    notices: tuple[str, ...] = ()
    error: str = ""
    code: int = 0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.description = "Restore photos. Folders are searched with all that is in them; a photo is never written over."
    parser.add_argument("photos", nargs="+", metavar="PHOTO", help="files, folders, or patterns such as 'a/**/*.jpg'")
    parser.add_argument("-o", "--out", help="file or folder for the result (beside the photo, as NAME.restored.EXT)")
    parser.add_argument("--task", help="what to restore (the first task of the pack)")
    parser.add_argument("--strength", type=float, default=1.0, metavar="0..1", help="how much texture (%(default)s)")
    parser.add_argument(
        "--amount", type=float, default=1.0, metavar="0..2", help="how much damage to remove, 0 for none (%(default)s)"
    )
    parser.add_argument(
        "--noise",
        type=float,
        metavar="SIGMA",
        help="noise of the photo, in grey levels of 255, for a Gen2Res pack (measured on the photo)",
    )
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="another number gives other texture (%(default)s)"
    )
    parser.add_argument("--tile", type=int, metavar="PIXELS", help="edge of the tiles (chosen by the memory)")
    parser.add_argument(
        "--max-memory", type=size_in_bytes, metavar="SIZE", help="for the whole program, such as 700MB (1GiB)"
    )
    parser.add_argument(
        "--max-pixels",
        type=whole_number,
        default=MAX_PIXELS,
        metavar="N",
        help="refuse larger photos before they are decoded (%(default)s)",
    )
    parser.add_argument("--compare", action="store_true", help="write NAME.compare.EXT too, before and after")
    parser.add_argument("--quality", type=percentage, metavar="1..100", help="of JPEG, WebP, AVIF and HEIC results")
    existing = parser.add_mutually_exclusive_group()
    existing.add_argument("--overwrite", action="store_true", help="replace results that exist")
    existing.add_argument("--resume", action="store_true", help="keep results that exist, restore the rest")
    parser.add_argument("--pack", type=Path, metavar="FOLDER", help="another model than the one that comes along")
    parser.add_argument("--runtime", default="onnxruntime", metavar="NAME", help="what runs the graphs (%(default)s)")
    parser.add_argument("--device", default="CPU", metavar="NAME", help="what the runtime runs on (%(default)s)")
    parser.add_argument("--arithmetic", metavar="fp32|bf16|fp16", help="beside integers (what the pack says)")
    parser.add_argument("--json", action="store_true", help="print a report for programs")


def run(args: argparse.Namespace) -> int:
    """Restore photo after photo; one that fails does not stop the others."""
    jobs, left_out = plan_jobs(args.photos, args.out)
    restorer = Restorer.from_pack(
        args.pack, args.runtime, device=args.device, arithmetic=args.arithmetic, task=args.task
    )
    restorer.check(**_options(args))
    if left_out:
        _log(f"{len(left_out)} earlier results, such as '{left_out[0]}', are left out; name one alone to restore it")
    outcomes: list[Outcome] = []
    code = _run_all(restorer, jobs, args, outcomes)
    if args.json:
        print(json.dumps(_report(args, restorer, outcomes), indent=1))
    return code


def _run_all(restorer: Restorer, jobs: list[FileJob], args: argparse.Namespace, outcomes: list[Outcome]) -> int:
    """Adds one outcome per photo; returns the exit code."""
    try:
        for number, job in enumerate(jobs, 1):
            outcomes.append(_attempt(restorer, job, args, f"{number}/{len(jobs)} {job.photo.name}"))
            _tell(outcomes[-1])
    except KeyboardInterrupt:
        finished = sum(outcome.code == 0 for outcome in outcomes)
        _log(f"interrupted: {finished} of {len(jobs)} photos are done and stay; --resume goes on with the others")
        return INTERRUPTED
    return min((outcome.code for outcome in outcomes if outcome.code), default=0)


def _attempt(restorer: Restorer, job: FileJob, args: argparse.Namespace, title: str) -> Outcome:
    try:
        return _kept(job) if args.resume and job.output.exists() else _restore(restorer, job, args, title)
    except PocketPriorError as error:
        return Outcome(str(job.photo), "failed", str(job.output), error=str(error), code=error.exit_code)
    except MemoryError:
        message = f"'{job.photo}' does not fit into the memory of this machine; free some, or give a --max-memory"
        return Outcome(str(job.photo), "failed", str(job.output), error=message, code=1)


def _kept(job: FileJob) -> Outcome:
    if not job.photo.exists():
        raise PhotoReadError(f"'{job.photo}': there is no such file, only its result; check the path")
    if job.photo.stat().st_mtime > job.output.stat().st_mtime:
        raise PhotoWriteError(
            f"'{job.photo}' was changed after its result '{job.output}' was written; restore it with --overwrite"
        )
    return Outcome(str(job.photo), "kept", str(job.output))


def _restore(restorer: Restorer, job: FileJob, args: argparse.Namespace, title: str) -> Outcome:
    started = time.monotonic()
    compare = compare_path(job.output) if args.compare else None
    for path in filter(None, (job.output, compare)):
        _check_place(path, args.overwrite)
    with _Bar(title) as bar:
        restored, comparison = _restored(restorer, job, args, bar.update)
    _make_folder(job.output.parent)
    lost = write(restored, job.output, overwrite=args.overwrite, quality=args.quality)
    if compare is not None and comparison is not None:
        write(comparison, compare, overwrite=args.overwrite, quality=args.quality)
    return Outcome(
        photo=str(job.photo),
        state="restored",
        output=str(job.output),
        compare=compare and str(compare),
        height=restored.size[0],
        width=restored.size[1],
        tiles=bar.total,
        seconds=round(time.monotonic() - started, 3),
        notices=restored.notices + lost,
    )


def _restored(
    restorer: Restorer, job: FileJob, args: argparse.Namespace, progress: ProgressCallback
) -> tuple[Photo, Photo | None]:
    """The result, and both side by side; the photo itself is out of memory before anything is written."""
    photo = read(job.photo, max_pixels=args.max_pixels)
    options = _options(args, progress)
    if args.noise is not None:
        options["noise"] = white_sigma(photo.pixels, args.noise)
    restored = restorer.photo(photo, **options)
    if not args.compare:
        return restored, None
    both = side_by_side(photo.pixels, restored.pixels)
    return restored, Photo(both, grey=photo.grey, icc=photo.icc, format=photo.format)


def _options(args: argparse.Namespace, progress: ProgressCallback | None = None) -> RestoreOptions:
    return RestoreOptions(
        task=args.task,
        strength=args.strength,
        amount=args.amount,
        noise=args.noise,
        seed=args.seed,
        tile=args.tile,
        max_memory=args.max_memory,
        progress=progress,
    )


def _check_place(path: Path, overwrite: bool) -> None:
    """Hours of work are not to end at a file that is in the way, or a folder that is read-only."""
    if path.is_dir():
        raise PhotoWriteError(f"'{path}' is a folder; give the name of a file with -o")
    if os.path.lexists(path) and not overwrite:
        raise PhotoWriteError(f"'{path}' exists; give another -o, --overwrite to replace it, or --resume to keep it")
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    if not folder.is_dir():
        raise PhotoWriteError(f"'{path}' cannot be written: '{folder}' is a file, not a folder; choose another -o")
    if not os.access(folder, os.W_OK):
        raise PhotoWriteError(f"'{path}' cannot be written: you may not write to '{folder}'; choose another -o")


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PhotoWriteError(f"the folder '{folder}' cannot be made: {failure_reason(error)}") from error


class _Bar:
    """A progress bar on stderr, where that is a terminal; `update` is what a Restorer calls."""

    def __init__(self, title: str) -> None:
        self.title, self.total, self.bar = title, 0, None

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.close()

    def update(self, done: int, total: int) -> None:
        self.total = total
        if not sys.stderr.isatty():
            return
        if self.bar is None:
            tqdm: Any = import_module("tqdm").tqdm
            self.bar: Any = tqdm(total=total, desc=self.title, unit="tile", leave=False)
        self.bar.update(done - self.bar.n)


def _tell(outcome: Outcome) -> None:
    """One photo, in sentences."""
    for notice in outcome.notices:
        _log(f"note: '{outcome.photo}': {notice}")
    if outcome.state == "failed":
        place = "" if outcome.photo in outcome.error else f"'{outcome.photo}': "
        _log(f"error: {place}{outcome.error}")
    elif outcome.state == "kept":
        _log(f"'{outcome.output}' is there already and is kept")
    else:
        size = f"{outcome.width} x {outcome.height} pixels, {outcome.tiles} tiles"
        _log(f"'{outcome.output}' is done: {size}, {outcome.seconds:.1f} s")


def _log(text: str) -> None:
    print(f"pocketprior: {text}", file=sys.stderr)


def _report(args: argparse.Namespace, restorer: Restorer, outcomes: list[Outcome]) -> dict[str, Any]:
    return {
        "pack": restorer.manifest.name,
        "task": args.task or restorer.manifest.tasks[0],
        "runtime": args.runtime,
        "strength": args.strength,
        "amount": args.amount,
        "noise": args.noise,
        "seed": args.seed,
        "photos": [asdict(outcome) for outcome in outcomes],
    }
