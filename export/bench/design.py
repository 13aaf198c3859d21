"""Trained predictors of different designs, measured as they are deployed, on one page.

The page holds tables, a plot and the decision, which is written by hand between two marks and kept.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

import numpy as np

from ...core.arrays import Image
from ...core.degradations.fixed import CLEAN, DAMAGES
from ...core.errors import UsageError
from ...core.files import write_text
from ...core.markdown import Panel, Point, scatter, table
from ...core.photo.io import read
from ...core.photo.listing import released_photos
from ..limits import LARGEST_OVERLAP
from .candidates import (
    DESIGN_PRECISIONS,
    DESIGN_RUNTIMES,
    TIMED_TILE,
    DesignCosts,
    NetworkFiles,
    TileSpeed,
    candidate,
    image_run,
    overlap_needed,
    psnr_by_damage,
    quantized,
    speeds,
)
from .sessions import machine

__all__ = ["MeasuredDesigns", "design_page", "kept_decision", "page", "plot"]

_PHOTO_SIDE = 512  # of the validation photos, pixels
_CALIBRATION_SIDE = 256  # of their centres, pixels
_CALIBRATION = 16  # photos from which int8 gets its ranges, under every damage in turn
_BASELINE_MULTIPLE = 16  # of the sides of images for networks of others
DECISION_MARKS = ("<!-- decision: kept when the page is made again -->", "<!-- end of the decision -->")
_GOAL = 2.5  # times the speed of the first baseline


class MeasuredDesigns(NamedTuple):
    """What was measured of all networks."""

    costs: Mapping[str, DesignCosts]  # by name
    overlaps: Mapping[str, tuple[int, float]]  # by name: pixels, and the error that is left, grey levels
    speeds: Mapping[tuple[str, str], TileSpeed]  # by name and runtime
    quality: Mapping[tuple[str, str], Mapping[str, float]]  # of candidates: (name, precision) -> damage -> PSNR, dB

    @property
    def candidates(self) -> list[str]:
        """Names of those whose quality is known."""
        return list(dict.fromkeys(name for name, _ in self.quality))

    @property
    def baselines(self) -> list[str]:
        """Names of those that are only timed."""
        return [name for name in self.overlaps if name not in self.candidates]


def design_page(
    candidates: Sequence[tuple[str, Path]],
    baselines: Sequence[tuple[str, Path]],
    data: Path,
    out: Path,
    *,
    limit: int = 10,
    rounds: int = 5,
    tile: int = TIMED_TILE,
    keep: Path | None = None,
) -> None:
    """Measure networks and write a page, Markdown, and its plot; the decision on an older page is kept.

    Candidates are names and checkpoints of predictors, baselines those of ONNX files that are only timed. `limit`
    photos, evenly spaced, are taken of the val split of `data`, a folder with a manifest.csv; each network is run
    `rounds` times on tiles with edges of `tile` pixels. The files of every network are kept in the folder `keep`.
    Raises UsageError where names repeat, or the tile, the photos or the page are not what is needed.
    """
    names = [name for name, _ in (*candidates, *baselines)]
    if len(set(names)) < len(names):
        raise UsageError(f"each network needs a name of its own, got {', '.join(names)}")
    if tile <= 2 * LARGEST_OVERLAP + _BASELINE_MULTIPLE or tile % _BASELINE_MULTIPLE:
        raise UsageError(f"expected --tile to be a multiple of 16 from {2 * LARGEST_OVERLAP + 32}, got {tile}")
    decision = kept_decision(out)
    photos = _photos(data, limit)
    damaging = [damage for damage in DAMAGES if damage.name != CLEAN]
    damaged = [damaging[i % len(damaging)](photos[i % len(photos)]) for i in range(_CALIBRATION)]
    calibration = [_centre(image, _CALIBRATION_SIDE) for image in damaged]
    networks, costs = list[NetworkFiles](), dict[str, DesignCosts]()
    with tempfile.TemporaryDirectory() as temporary:
        for name, path in (*candidates, *baselines):
            own = (keep or Path(temporary)) / name
            own.mkdir(parents=True, exist_ok=True)
            if len(networks) < len(candidates):
                files, costs[name] = candidate(name, path, own, calibration)
            else:
                files, costs[name] = quantized(name, path, own, calibration, _BASELINE_MULTIPLE)
            networks.append(files)
        overlaps = {
            n.name: overlap_needed(image_run(n.files["fp32"]), damaged[: len(photos)], n.multiple) for n in networks
        }
        timed = speeds(networks, {name: overlap for name, (overlap, _) in overlaps.items()}, rounds, tile)
        quality = {
            (network.name, precision): psnr_by_damage(image_run(network.files[precision]), photos, network.multiple)
            for network in networks[: len(candidates)]
            for precision in DESIGN_PRECISIONS
        }
    found = MeasuredDesigns(costs, overlaps, timed, quality)
    drawn = out.with_suffix(".svg")
    write_text(drawn, plot(found))
    write_text(out, page(found, len(photos), tile, drawn.name, decision))


def _photos(data: Path, limit: int) -> list[Image]:
    """Centres of released validation photos, evenly spaced; UsageError where none is large enough."""
    paths = released_photos(data, split="val")
    images = [read(path).pixels for path in paths]
    fitting = (image for image in images if image.dtype == np.uint8 and min(image.shape[:2]) >= _PHOTO_SIDE)
    large = [_centre(image, _PHOTO_SIDE) for image in fitting]
    if not large:
        raise UsageError(
            f"'{data}' has no released validation photo of {_PHOTO_SIDE} x {_PHOTO_SIDE} pixels or more; add one"
        )
    return [large[i * len(large) // limit] for i in range(limit)] if limit < len(large) else large


def _centre(image: Image, side: int) -> Image:
    top, left = ((size - side) // 2 for size in image.shape[:2])
    return image[top : top + side, left : left + side].copy()


def plot(found: MeasuredDesigns) -> str:
    """Effective speed against the mean PSNR, one panel per runtime, as SVG; dashed: the baselines' speed."""
    panels: list[Panel] = []
    for runtime, precision in DESIGN_RUNTIMES.items():
        quality = {name: _mean(found, name, precision.rpartition(" ")[2]) for name in found.candidates}
        points = [Point(name, found.speeds[name, runtime].effective, db, "candidates") for name, db in quality.items()]
        verticals = {name: found.speeds[name, runtime].effective for name in found.baselines}
        if found.baselines:
            verticals[f"{_GOAL:g} x {found.baselines[0]}"] = _GOAL * verticals[found.baselines[0]]
        panels.append(Panel(runtime, "mean PSNR, dB", points, verticals))
    return scatter(panels, "megapixels per second on one core, overlap counted", columns=2)


def _mean(found: MeasuredDesigns, name: str, precision: str) -> float:
    return fmean(found.quality[name, precision].values())


def kept_decision(path: Path) -> str:
    """The decision between the marks of an older page at `path`; a placeholder if there is no page."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return "Not made yet."
    except OSError as error:
        raise UsageError(
            f"'{path}' cannot be read ({error.strerror}); give the page of an earlier run, or a new one"
        ) from error
    before, first, rest = text.partition(DECISION_MARKS[0])
    decision, last, _ = rest.partition(DECISION_MARKS[1])
    if not (before and first and last):
        raise UsageError(
            f"'{path}' has no decision between '{DECISION_MARKS[0]}' and '{DECISION_MARKS[1]}'; give another file"
        )
    return decision.strip()


def page(found: MeasuredDesigns, photos: int, tile: int, drawn: str, decision: str) -> str:
    """The page in Markdown; `drawn` is the name of the plot next to it."""
    head = _HEAD.format(photos=photos, tile=tile, machine=machine())
    decided = "\n".join(["## Decision", "", DECISION_MARKS[0], decision, DECISION_MARKS[1]])
    image = f"![Mean PSNR against megapixels per second in each runtime]({drawn})"
    parts = [head, decided, "## Cost and speed", image, _cost_table(found), "## Quality", _quality_table(found)]
    return "\n\n".join(parts) + "\n"


def _cost_table(found: MeasuredDesigns) -> str:
    rows = [["network", "kMAC/px", "weights, M", "fp32, MB", "int8, MB", "overlap", "error left", *DESIGN_RUNTIMES]]
    for name, (overlap, error) in found.overlaps.items():
        kmac, *sizes = found.costs[name]
        figures = [f"{kmac:.1f}", *(f"{size / 1e6:.2f}" for size in sizes), str(overlap), f"{error:.3f}"]
        rows.append([name, *figures, *(_speed(found, name, runtime) for runtime in DESIGN_RUNTIMES)])
    return table(rows, left=1)


def _speed(found: MeasuredDesigns, name: str, runtime: str) -> str:
    """Raw and effective MPix/s, and how many times the effective speed of the first baseline that is."""
    speed = found.speeds[name, runtime]
    words = f"{speed.raw:.2f}, {speed.effective:.2f}"
    if not found.baselines or name in found.baselines:
        return words
    return f"{words} ({speed.effective / found.speeds[found.baselines[0], runtime].effective:.1f} x)"


def _quality_table(found: MeasuredDesigns) -> str:
    damages = list(next(iter(found.quality.values())))
    rows = [["candidate", "precision", *damages, "mean"]]
    for (name, precision), values in found.quality.items():
        rows.append([name, precision, *(f"{values[d]:.2f}" for d in damages), f"{_mean(found, name, precision):.2f}"])
    return table(rows, left=2)


_HEAD = """\
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
