"""`pocketprior bench design`: trained predictors of different designs, measured as they are deployed, on one page.

The page holds a table, a plot and the decision; the decision is written by hand between two marks and kept.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

import numpy as np

from ..core.arrays import Image
from ..core.degradations.fixed import CLEAN, DAMAGES
from ..core.errors import UsageError
from ..core.files import write_text
from ..core.markdown import Panel, Point, scatter, table
from ..core.photo.io import read
from ..core.photo.listing import released_photos
from .design import (
    LARGEST_OVERLAP,
    PRECISIONS,
    RUNTIMES,
    TILE,
    Costs,
    Files,
    Speed,
    candidate,
    image_run,
    overlap_needed,
    psnr_by_damage,
    quantized,
    speeds,
)
from .race import machine

__all__ = ["Measured", "add_arguments", "kept_decision", "measured", "page", "plot", "run"]

SIDE = 512  # of the validation photos, pixels
CALIBRATION_SIDE = 256  # of their centres, pixels
CALIBRATION = 16  # photos that int8 has its ranges from, under every damage in turn
BASELINE_MULTIPLE = 16  # of the sides of images for networks of others
MARKS = ("<!-- decision: kept when the page is made again -->", "<!-- end of the decision -->")
GOAL = 2.5  # times the speed of the first baseline


class Measured(NamedTuple):
    """What is known of all networks, by name; quality by name and precision, then by damage, in dB.

    quality: of candidates alone. overlaps: pixels, and the error that is left, in grey levels. speeds: by name
    and runtime.
    """

    costs: Mapping[str, Costs]
    overlaps: Mapping[str, tuple[int, float]]
    speeds: Mapping[tuple[str, str], Speed]
    quality: Mapping[tuple[str, str], Mapping[str, float]]

    @property
    def candidates(self) -> list[str]:
        """Names of those whose quality is known."""
        return list(dict.fromkeys(name for name, _ in self.quality))

    @property
    def baselines(self) -> list[str]:
        """Names of those that are only timed."""
        return [name for name in self.overlaps if name not in self.candidates]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("candidates", nargs="+", type=_named, metavar="NAME=FILE", help="a predictor's checkpoint")
    parser.add_argument("--baseline", type=_named, action="append", default=[], metavar="NAME=FILE.onnx")
    parser.add_argument("--data", type=Path, required=True, help="folder of photos with a manifest.csv: its val split")
    parser.add_argument("--limit", type=int, default=10, help="validation photos, evenly spaced (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="runs of each network (default: %(default)s)")
    parser.add_argument("--tile", type=int, default=TILE, help="edge of the tiles that are timed (%(default)s)")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="keep the files of every network there")
    parser.add_argument("-o", "--out", type=Path, required=True, help="the page, such as docs/design-choice.md")


def _named(text: str) -> tuple[str, Path]:
    name, equals, path = text.partition("=")
    if not (name and equals and path):
        raise argparse.ArgumentTypeError(
            f"'{text}' was given; give a name and a file, such as A=runs/a/model.safetensors"
        )
    return name, Path(path)


def run(args: argparse.Namespace) -> int:
    """Measure the networks, write the page and its plot."""
    names = [name for name, _ in (*args.candidates, *args.baseline)]
    if len(set(names)) < len(names):
        raise UsageError(f"each network needs a name of its own; {', '.join(names)} were given")
    if args.tile <= 2 * LARGEST_OVERLAP + BASELINE_MULTIPLE or args.tile % BASELINE_MULTIPLE:
        raise UsageError(f"--tile {args.tile} was given; expected a multiple of 16 from {2 * LARGEST_OVERLAP + 32}")
    decision = kept_decision(args.out)
    photos = _photos(args.data, args.limit)
    with tempfile.TemporaryDirectory() as temporary:
        found = measured(args.candidates, args.baseline, photos, args.keep or Path(temporary), args.rounds, args.tile)
    drawn = args.out.with_suffix(".svg")
    write_text(drawn, plot(found))
    write_text(args.out, page(found, len(photos), args.tile, drawn.name, decision))
    print(f"{args.out}: {len(args.candidates)} candidates")
    return 0


def _photos(data: Path, limit: int) -> list[Image]:
    """Centres of released validation photos, evenly spaced; UsageError where none is large enough."""
    paths = released_photos(data, split="val")
    images = [read(path).pixels for path in paths]
    large = [_centre(image, SIDE) for image in images if image.dtype == np.uint8 and min(image.shape[:2]) >= SIDE]
    if not large:
        raise UsageError(
            f"'{data}' has no validation photo of {SIDE} x {SIDE} pixels or more that may be used; add one"
        )
    return [large[i * len(large) // limit] for i in range(limit)] if limit < len(large) else large


def _centre(image: Image, side: int) -> Image:
    top, left = ((size - side) // 2 for size in image.shape[:2])
    return image[top : top + side, left : left + side].copy()


def measured(
    candidates: Sequence[tuple[str, Path]],
    baselines: Sequence[tuple[str, Path]],
    photos: Sequence[Image],
    folder: Path,
    rounds: int,
    tile: int = TILE,
) -> Measured:
    """Everything about trained predictors, and the speed of networks of others, whose ONNX files are given.

    Args:
        candidates: Names and checkpoints.
        baselines: Names and ONNX files.
        photos: Validation photos, (SIDE, SIDE, 3) uint8.
        folder: Where the files of each network are written, in a folder of its name.
        rounds: Timed runs of each network.
        tile: Edge of the tiles that are timed.
    """
    damaging = [damage for damage in DAMAGES if damage.name != CLEAN]
    damaged = [damaging[i % len(damaging)](photos[i % len(photos)]) for i in range(CALIBRATION)]
    calibration = [_centre(image, CALIBRATION_SIDE) for image in damaged]
    networks, costs = list[Files](), dict[str, Costs]()
    for name, path in (*candidates, *baselines):
        own = folder / name
        own.mkdir(parents=True, exist_ok=True)
        if len(networks) < len(candidates):
            files, costs[name] = candidate(name, path, own, calibration)
        else:
            files, costs[name] = quantized(name, path, own, calibration, BASELINE_MULTIPLE)
        networks.append(files)
    overlaps = {
        n.name: overlap_needed(image_run(n.files["fp32"]), damaged[: len(photos)], n.multiple) for n in networks
    }
    timed = speeds(networks, {name: overlap for name, (overlap, _) in overlaps.items()}, rounds, tile)
    quality = {
        (network.name, precision): psnr_by_damage(image_run(network.files[precision]), photos, network.multiple)
        for network in networks[: len(candidates)]
        for precision in PRECISIONS
    }
    return Measured(costs, overlaps, timed, quality)


def plot(found: Measured) -> str:
    """Effective speed against the mean PSNR, one panel per runtime, as SVG; dashed: the baselines' speed."""
    panels: list[Panel] = []
    for runtime, precision in RUNTIMES.items():
        quality = {name: _mean(found, name, precision.rpartition(" ")[2]) for name in found.candidates}
        points = [Point(name, found.speeds[name, runtime].effective, db, "candidates") for name, db in quality.items()]
        verticals = {name: found.speeds[name, runtime].effective for name in found.baselines}
        if found.baselines:
            verticals[f"{GOAL:g} x {found.baselines[0]}"] = GOAL * verticals[found.baselines[0]]
        panels.append(Panel(runtime, "mean PSNR, dB", points, verticals))
    return scatter(panels, "megapixels per second on one core, overlap counted", columns=2)


def _mean(found: Measured, name: str, precision: str) -> float:
    return fmean(found.quality[name, precision].values())


def kept_decision(path: Path) -> str:
    """What stands between the marks of an older page at `path`; a sentence to be replaced where there is none."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return "Not made yet."
    except OSError as error:
        raise UsageError(
            f"'{path}' cannot be read ({error.strerror}); give the page of an earlier run, or a new one"
        ) from error
    before, first, rest = text.partition(MARKS[0])
    decision, last, _ = rest.partition(MARKS[1])
    if not (before and first and last):
        raise UsageError(f"'{path}' has no decision between '{MARKS[0]}' and '{MARKS[1]}'; give another file")
    return decision.strip()


def page(found: Measured, photos: int, tile: int, drawn: str, decision: str) -> str:
    """The page, in Markdown; drawn: the name of the plot beside it."""
    head = HEAD.format(photos=photos, tile=tile, machine=machine())
    decided = "\n".join(["## Decision", "", MARKS[0], decision, MARKS[1]])
    picture = f"![Mean PSNR against megapixels per second in each runtime]({drawn})"
    parts = [head, decided, "## Cost and speed", picture, _cost_table(found), "## Quality", _quality_table(found)]
    return "\n\n".join(parts) + "\n"


def _cost_table(found: Measured) -> str:
    rows = [["network", "kMAC/px", "weights, M", "fp32, MB", "int8, MB", "overlap", "error left", *RUNTIMES]]
    for name, (overlap, error) in found.overlaps.items():
        kmac, *sizes = found.costs[name]
        told = [f"{kmac:.1f}", *(f"{size / 1e6:.2f}" for size in sizes)]
        rows.append(
            [name, *told, str(overlap), f"{error:.3f}", *(_speed(found, name, runtime) for runtime in RUNTIMES)]
        )
    return table(rows, left=1)


def _speed(found: Measured, name: str, runtime: str) -> str:
    """Raw and effective MPix/s, and how many times the effective speed of the first baseline that is."""
    speed = found.speeds[name, runtime]
    words = f"{speed.raw:.2f}, {speed.effective:.2f}"
    if not found.baselines or name in found.baselines:
        return words
    return f"{words} ({speed.effective / found.speeds[found.baselines[0], runtime].effective:.1f} x)"


def _quality_table(found: Measured) -> str:
    damages = list(next(iter(found.quality.values())))
    rows = [["candidate", "precision", *damages, "mean"]]
    for (name, precision), values in found.quality.items():
        rows.append([name, precision, *(f"{values[d]:.2f}" for d in damages), f"{_mean(found, name, precision):.2f}"])
    return table(rows, left=2)


HEAD = """\
# The design of the predictor

Made by `pocketprior bench design NAME=CHECKPOINT ... --baseline NAME=FILE.onnx --data DATA -o docs/design-choice.md`;
only the decision is written by hand. Candidates are predictors of the task `cleanup`, trained on the same stream of
photos for the same time; baselines are networks of others, which are only timed.

- Speed: MPix/s in CPU time of one thread on tiles of {tile} pixels, all networks in turn. Of two numbers the second
  counts only what a tile gives besides its overlap and the seam; in brackets: times the first baseline. OpenVINO uses
  AMX for int8 where the processor has it, unless `ONEDNN_MAX_CPU_ISA` limits it.
- Machine: {machine}.
- Overlap: pixels on each side of a tile, the least (at most 64) at which the centre of a photo differs by at most 1/16
  grey level from the same pixels of the whole photo; error left: the difference at that overlap, in grey levels.
- Quality: PSNR in dB at strength 0, mean over {photos} validation photos of 512 x 512 pixels, 8 bits in and out.
- int8: every convolution of 256 weights or more, per channel, no training for it; ranges from the same photos under
  every damage. Its quality is that in ONNX Runtime."""
