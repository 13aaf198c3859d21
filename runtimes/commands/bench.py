"""`pocketprior bench quality`, `pocketprior bench speed` and `pocketprior bench graphs`."""

from __future__ import annotations

import json
import sys
from argparse import ArgumentParser, Namespace, _SubParsersAction
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from ...core.arguments import named_path, natural_number, whole_number
from ...core.errors import UsageError
from ...core.files import write_text
from ...core.pack.manifest import Manifest
from ..options import ARITHMETIC, CPU_RUNTIMES

__all__ = ["add_arguments", "run"]


def add_arguments(parser: ArgumentParser) -> _SubParsersAction[ArgumentParser]:
    """Declare the benchmarks and their options; returns the sub-parsers, to which others may be added."""
    kinds = parser.add_subparsers(dest="kind", metavar="BENCHMARK", required=True)
    quality = kinds.add_parser("quality", help="restore damaged test photos, with baselines", allow_abbrev=False)
    quality.set_defaults(measure=_quality)
    source = quality.add_mutually_exclusive_group(required=True)
    source.add_argument("--data", type=Path, help="a data folder with a manifest.csv: its test photos and real pairs")
    source.add_argument("--photos", type=Path, help="a folder of clean photos, which baselines are tuned on as well")
    quality.add_argument("--limit", type=whole_number, help="measure only this many of the photos, evenly spaced")
    quality.add_argument("--damages", type=_names, default=(), metavar="NAME,...", help="only these kinds of damage")
    quality.add_argument(
        "--bm3d", type=natural_number, default=6, help="photos that BM3D is run on (100 s each; default: 6)"
    )
    quality.add_argument("--quick", action="store_true", help="no classical methods; only PSNR, HaarPSI and SWD")
    quality.add_argument("--lpips", type=Path, help="weights for LPIPS (.safetensors or .npz), if you have them")
    quality.add_argument(
        "--cache", type=Path, default=Path(".cache/bench"), help="results of baselines (default: %(default)s)"
    )
    quality.add_argument("--plot", type=Path, help="time every method too, and draw quality against speed there (SVG)")
    quality.add_argument("--out", type=Path, help="write the page there (Markdown), replacing it")
    quality.add_argument("--runtime", default="onnxruntime", metavar="NAME", help="what runs the pack (%(default)s)")
    speed = kinds.add_parser("speed", help="time restoration on one thread, with baselines", allow_abbrev=False)
    speed.set_defaults(measure=_speed)
    speed.add_argument("--megapixels", type=float, default=1.0, help="size of the image (default: %(default)s)")
    speed.add_argument("--rounds", type=whole_number, default=5, help="runs of each method (default: %(default)s)")
    for kind in (quality, speed):
        kind.add_argument("pack", type=Path, nargs="?", help="folder of a pack (default: the embedded one)")
        kind.add_argument(
            "--baseline",
            type=named_path("sigma", "FFDNet=ffdnet.onnx:sigma=25"),
            action="append",
            default=[],
            dest="baselines",
            metavar="NAME=FILE[:sigma=S]",
            help="a network as an ONNX file; S: true, estimated (default), tuned, or grey levels; repeatable",
        )
        kind.add_argument(
            "--variant",
            type=named_path("runtime", "int8=PACK:runtime=openvino"),
            action="append",
            default=[],
            dest="variants",
            metavar="NAME=PACK[:runtime=R]",
            help="another pack, or this one in another runtime; repeatable",
        )
        kind.add_argument("--arithmetic", choices=ARITHMETIC, help="of numbers other than integers (the pack's own)")
    graphs = kinds.add_parser("graphs", help="time single graphs of packs, one thread", allow_abbrev=False)
    graphs.set_defaults(measure=_graphs)
    graphs.add_argument("packs", type=Path, nargs="+", metavar="PACK", help="folders; the first is the float pack")
    graphs.add_argument("--graphs", nargs="+", metavar="NAME", help="only these graphs (all)")
    graphs.add_argument("--side", type=whole_number, default=256, help="pixels of images (default: %(default)s)")
    graphs.add_argument("--rounds", type=whole_number, default=9, help="calls of each graph (default: %(default)s)")
    graphs.add_argument("--operators", action="store_true", help="the time per operator, in ONNX Runtime in fp32")
    for kind in (speed, graphs):
        kind.add_argument("--runtimes", nargs="+", choices=CPU_RUNTIMES, default=tuple(CPU_RUNTIMES))
    for kind in (quality, speed, graphs):
        kind.add_argument("--json", action="store_true", help="write the result to stdout as JSON")
    return kinds


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def run(args: Namespace) -> int:
    """Run the chosen benchmark: 0, or 1 if a gate of `quality` fails."""
    return int(args.measure(args))


def _quality(args: Namespace) -> int:
    from ..bench import QualityOptions, measure_quality

    for option, path in (("--out", args.out), ("--plot", args.plot)):
        if path is not None and not path.parent.is_dir():
            raise UsageError(f"the folder of {option} '{path}' does not exist; make it first")
    options = {field.name: getattr(args, field.name) for field in fields(QualityOptions)}
    report = measure_quality(QualityOptions(**options))
    if args.out is not None:
        write_text(args.out, report.as_markdown())
    if args.json:
        print(report.as_json())
    elif args.out is None:
        print(report.as_markdown(), end="")
    for gate in report.gates:
        print(gate, file=sys.stderr)
    return 0 if all(gate.passed for gate in report.gates) else 1


def _speed(args: Namespace) -> int:
    from ..bench.speed import measure_speed, speed_table

    options = {"arithmetic": args.arithmetic, "megapixels": args.megapixels, "rounds": args.rounds}
    timings = measure_speed(args.pack, args.variants, args.baselines, args.runtimes, **options)
    return _show(args, [asdict(timing) for timing in timings], f"{args.megapixels:g} megapixels", speed_table(timings))


def _graphs(args: Namespace) -> int:
    from ..bench.operators import operator_table, operator_times
    from ..bench.speed import graph_table, measure_graphs

    if args.operators:
        for pack in args.packs:
            for graph in args.graphs or Manifest.load(pack).graphs:
                times = operator_times(pack, graph, side=args.side, rounds=args.rounds)
                _show(
                    args,
                    [time._asdict() for time in times],
                    f"{pack}, {graph}, {args.side} x {args.side} pixels",
                    operator_table(times),
                )
        return 0
    timings = measure_graphs(args.packs, args.runtimes, side=args.side, rounds=args.rounds, only=args.graphs)
    return _show(
        args, [asdict(timing) for timing in timings], f"{args.side} x {args.side} pixels", graph_table(timings)
    )


def _show(args: Namespace, timings: Sequence[Mapping[str, Any]], size: str, table: str) -> int:
    from ..bench.quality_report import machine

    if args.json:
        print(json.dumps({"machine": machine(), "timings": timings}, indent=2))
    else:
        print(f"{machine()}; one thread, {size}, median of {args.rounds}, CPU time\n\n{table}")
    return 0
