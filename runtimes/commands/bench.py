"""`pocketprior bench quality`, `pocketprior bench speed` and `pocketprior bench graphs`."""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from ...core.errors import UsageError
from ...core.files import write_text
from ...core.manifest import FILE, Manifest
from ...core.pack import default_pack
from ...core.restore import Restorer
from ..bench import graphs as bench_graphs
from ..bench import photos as bench_photos
from ..bench.cache import Cache
from ..bench.gates import gates
from ..bench.photos import BenchPhoto, evenly
from ..bench.quality import Judge, measure, our_methods, tuned_rivals
from ..bench.report import Facts, Report, describe, machine, versions
from ..bench.speed import contestants, made_photo, race
from ..options import ARITHMETIC

__all__ = ["add_arguments", "run"]


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the benchmarks and their options."""
    kinds = parser.add_subparsers(dest="kind", metavar="quality | speed | graphs", required=True)
    quality = kinds.add_parser("quality", help="restore damaged test photos, beside rivals", allow_abbrev=False)
    quality.set_defaults(measure=_quality)
    source = quality.add_mutually_exclusive_group(required=True)
    source.add_argument("--data", type=Path, help="a data folder with a manifest.csv: its test photos")
    source.add_argument("--photos", type=Path, help="a folder of clean photos, which rivals are tuned on as well")
    quality.add_argument("--limit", type=_positive, help="measure only this many of the photos, evenly spaced")
    quality.add_argument("--bm3d", type=_natural, default=6, help="photos that BM3D is run on (100 s each; default: 6)")
    quality.add_argument("--lpips", type=Path, help="weights for LPIPS (.safetensors or .npz), if you have them")
    quality.add_argument(
        "--cache", type=Path, default=Path(".cache/bench"), help="results of rivals (default: %(default)s)"
    )
    quality.add_argument("--out", type=Path, help="write the page there (Markdown), replacing it")
    speed = kinds.add_parser("speed", help="time restoration, beside OpenCV", allow_abbrev=False)
    speed.set_defaults(measure=_speed)
    speed.add_argument("--megapixels", type=float, default=1.0, help="size of the picture (default: %(default)s)")
    speed.add_argument("--rounds", type=_positive, default=5, help="runs of each method (default: %(default)s)")
    for kind in (quality, speed):
        kind.add_argument("pack", type=Path, nargs="?", help="folder of a pack (default: the embedded one)")
        kind.add_argument("--runtime", default="onnxruntime", metavar="NAME", help="what runs the pack (%(default)s)")
        kind.add_argument("--arithmetic", choices=ARITHMETIC, help="beside integers (what the pack says)")
        kind.add_argument("--json", action="store_true", help="write the result to stdout as JSON")
    _add_graphs(kinds.add_parser("graphs", help="time single graphs of packs, one thread", allow_abbrev=False))


def _add_graphs(parser: ArgumentParser) -> None:
    parser.set_defaults(measure=_graphs)
    parser.add_argument("packs", type=Path, nargs="+", metavar="PACK", help="folders; the first is the float pack")
    parser.add_argument("--graphs", nargs="+", metavar="NAME", help="only these graphs (all)")
    parser.add_argument(
        "--runtimes", nargs="+", choices=bench_graphs.ARITHMETIC_OF, default=[*bench_graphs.ARITHMETIC_OF]
    )
    parser.add_argument("--side", type=_positive, default=256, help="pixels of pictures (default: %(default)s)")
    parser.add_argument("--rounds", type=_positive, default=9, help="calls of each graph (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="write the result to stdout as JSON")


def _natural(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"'{text}' was given; give a whole number from 0")
    return int(text)


def _positive(text: str) -> int:
    number = _natural(text)
    if number == 0:
        raise argparse.ArgumentTypeError("0 was given; give a whole number from 1")
    return number


def run(args: Namespace) -> int:
    """Run the chosen benchmark: 0, or 1 if a gate of `quality` fails."""
    return int(args.measure(args))


def _quality(args: Namespace) -> int:
    if args.out is not None and not args.out.parent.is_dir():
        raise UsageError(f"--out '{args.out}' lies in a folder that does not exist; make it first")
    folder, judge = args.pack or default_pack(), Judge.open(Cache(args.cache), args.lpips)
    restorer = Restorer.from_pack(folder, args.runtime, arithmetic=args.arithmetic)
    photos, validation = _photos(args)
    with_bm3d = {photo.name for photo in evenly(photos, args.bm3d)}
    rivals = tuned_rivals(validation, judge.cache, with_bm3d=bool(with_bm3d))
    methods = {damage: [*group, *our_methods(restorer)] for damage, group in rivals.items()}
    measurements = list(measure(photos, methods, judge, with_bm3d))
    facts = _facts(args, folder, restorer.manifest, photos)
    return _report(args, Report(facts, measurements, gates(measurements), rivals))


def _report(args: Namespace, report: Report) -> int:
    if args.out is not None:
        write_text(args.out, report.as_markdown())
    if args.json:
        print(report.as_json())
    elif args.out is None:
        print(report.as_markdown(), end="")
    for gate in report.gates:
        print(gate, file=sys.stderr)
    return 0 if all(gate.passed for gate in report.gates) else 1


def _photos(args: Namespace) -> tuple[list[BenchPhoto], list[BenchPhoto]]:
    """The photos to measure on and those to tune rivals on."""
    if args.photos is not None:
        photos = bench_photos.load(evenly(bench_photos.in_folder(args.photos), args.limit))
        return photos, photos
    paths = evenly(bench_photos.bench_set(args.data), args.limit)
    return bench_photos.load(paths), bench_photos.load(bench_photos.validation_set(args.data))


def _facts(args: Namespace, folder: Path, manifest: Manifest, photos: Sequence[BenchPhoto]) -> Facts:
    return Facts(
        command=_command(args),
        pack=manifest.name,
        steps=len(manifest.times),
        manifest_sha256=hashlib.sha256((folder / FILE).read_bytes()).hexdigest(),
        machine=machine(),
        versions=versions(),
        photos=describe(photos),
        validation="validation photos of the data" if args.photos is None else "these same photos",
    )


def _command(args: Namespace) -> str:
    """The call, with words in place of folders."""
    words = ["pocketprior bench quality", *(["PACK"] if args.pack else [])]
    words.append("--data DATA" if args.photos is None else "--photos PHOTOS")
    words += [f"--limit {args.limit}"] if args.limit else []
    words += [f"--runtime {args.runtime}"] if args.runtime != "onnxruntime" else []
    words += [f"--arithmetic {args.arithmetic}"] if args.arithmetic else []
    return " ".join([*words, f"--bm3d {args.bm3d}"])


def _speed(args: Namespace) -> int:
    folder = args.pack or default_pack()
    timings = race(contestants(folder, args.runtime, args.arithmetic), made_photo(args.megapixels), args.rounds)
    if args.json:
        print(json.dumps({"machine": machine(), "timings": [asdict(timing) for timing in timings]}, indent=2))
    else:
        print(f"{machine()}; seconds per megapixel: median (fastest to slowest) of {args.rounds}")
        print("\n".join(str(timing) for timing in timings))
    return 0


def _graphs(args: Namespace) -> int:
    timings = bench_graphs.race(bench_graphs.methods(args.packs, args.runtimes, args.side, args.graphs), args.rounds)
    if args.json:
        print(json.dumps({"machine": machine(), "timings": [asdict(timing) for timing in timings]}, indent=2))
    else:
        print(f"{machine()}; one thread, {args.side} x {args.side} pixels, median of {args.rounds}, CPU time\n")
        print(bench_graphs.table(timings))
    return 0
