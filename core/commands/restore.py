"""`pocketprior restore PHOTO...`: restore photos, folders of photos, or all files that match a pattern."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any

from ..arguments import percentage, size_in_bytes, whole_number
from ..errors import INTERRUPTED
from ..limits import MAX_PIXELS
from ..restore.batch import FileJob, FileOptions, Outcome, plan_jobs, restore_files
from ..restore.restorer import RestoreOptions, Restorer

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.description = "Restore photos. Folders are searched recursively; a photo is never overwritten."
    add = parser.add_argument
    add("photos", nargs="+", metavar="PHOTO", help="files, folders, or patterns such as 'a/**/*.jpg'")
    add("-o", "--out", help="file or folder for the result (default: next to the photo, as NAME.restored.EXT)")
    add("--task", help="what to restore (default: the first task of the pack)")
    add("--strength", type=float, default=1.0, metavar="0..1", help="how much texture (%(default)s)")
    add("--amount", type=float, default=1.0, metavar="0..2", help="how much damage to remove (%(default)s); 0: none")
    help_noise = "noise of the photo, in grey levels of 255, for a Gen2Res pack (default: measured)"
    add("--noise", type=float, metavar="SIGMA", help=help_noise)
    add("--seed", type=int, default=0, metavar="N", help="another number draws other texture (%(default)s)")
    add("--tile", type=int, metavar="PIXELS", help="edge of the tiles (default: by the memory)")
    add("--max-memory", type=size_in_bytes, metavar="SIZE", help="for the whole program, such as 700MB (1GiB)")
    help_pixels = "refuse larger photos before they are decoded (%(default)s)"
    add("--max-pixels", type=whole_number, default=MAX_PIXELS, metavar="N", help=help_pixels)
    add("--compare", action="store_true", help="also write NAME.compare.EXT, before and after")
    add("--quality", type=percentage, metavar="1..100", help="of JPEG, WebP, AVIF and HEIC results")
    existing = parser.add_mutually_exclusive_group()
    existing.add_argument("--overwrite", action="store_true", help="replace results that exist")
    existing.add_argument("--resume", action="store_true", help="keep results that exist, restore the rest")
    add("--pack", type=Path, metavar="FOLDER", help="a model other than the one included")
    add("--runtime", default="onnxruntime", metavar="NAME", help="what runs the graphs (%(default)s)")
    add("--device", default="CPU", metavar="NAME", help="where the runtime runs them (%(default)s)")
    add("--arithmetic", metavar="fp32|bf16|fp16", help="of floats (default: as the pack says)")
    add("--json", action="store_true", help="print a report as JSON, for programs")


def run(args: argparse.Namespace) -> int:
    """Restore the photos; returns the lowest exit code of those that failed."""
    jobs, left_out = plan_jobs(args.photos, args.out)
    restorer = Restorer.from_pack(
        args.pack, args.runtime, device=args.device, arithmetic=args.arithmetic, task=args.task
    )
    options: RestoreOptions = {"task": args.task, "strength": args.strength, "amount": args.amount, "noise": args.noise}
    options |= {"seed": args.seed, "tile": args.tile, "max_memory": args.max_memory}
    restorer.check(**options)
    files = FileOptions(args.overwrite, args.resume, args.compare, args.quality, args.max_pixels)
    if left_out:
        _log(f"{len(left_out)} earlier results, such as '{left_out[0]}', are skipped; name only them to restore them")
    outcomes: list[Outcome] = []
    bar = _Bar(jobs)
    try:
        for outcome in restore_files(restorer, jobs, options, files, bar.update):
            bar.close()
            outcomes.append(outcome)
            _print(outcome)
        code = min((outcome.code for outcome in outcomes if outcome.code), default=0)
    except KeyboardInterrupt:
        bar.close()
        finished = sum(outcome.code == 0 for outcome in outcomes)
        _log(f"interrupted: {finished} of {len(jobs)} photos are done; --resume continues with the others")
        code = INTERRUPTED
    if args.json:
        names = ("runtime", "strength", "amount", "noise", "seed")
        head = {"pack": restorer.manifest.name, "task": args.task or restorer.manifest.tasks[0]}
        report = {**head, **{name: getattr(args, name) for name in names}, "photos": list(map(asdict, outcomes))}
        print(json.dumps(report, indent=1))
    return code


class _Bar:
    """A progress bar on stderr for one photo at a time, where stderr is a terminal."""

    def __init__(self, jobs: list[FileJob]) -> None:
        self.jobs, self.bar = jobs, None

    def update(self, job: FileJob, done: int, total: int) -> None:
        """Show the tiles done of a photo."""
        if not sys.stderr.isatty():
            return
        if self.bar is None:
            tqdm: Any = import_module("tqdm").tqdm
            title = f"{self.jobs.index(job) + 1}/{len(self.jobs)} {job.photo.name}"
            self.bar: Any = tqdm(total=total, desc=title, unit="tile", leave=False)
        self.bar.update(done - self.bar.n)

    def close(self) -> None:
        """Take the bar away; the next `update` shows a new one."""
        if self.bar is not None:
            self.bar.close()
        self.bar = None


def _print(outcome: Outcome) -> None:
    for notice in outcome.notices:
        _log(f"note: '{outcome.photo}': {notice}")
    if outcome.state == "failed":
        place = "" if outcome.photo in outcome.error else f"'{outcome.photo}': "
        _log(f"error: {place}{outcome.error}")
    elif outcome.state == "kept":
        _log(f"'{outcome.output}' exists and is kept")
    else:
        size = f"{outcome.width} x {outcome.height} pixels, {outcome.tiles} tiles"
        _log(f"'{outcome.output}' is done: {size}, {outcome.seconds:.1f} s")


def _log(text: str) -> None:
    print(f"pocketprior: {text}", file=sys.stderr)
