"""`pocketprior quantize`: a smaller pack under a budget on the restored image."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ...core.arguments import size_in_bytes, whole_number
from ..limits import QUANTIZED_DB
from ..targets import BASE_TARGET, TARGETS, WEIGHT_PRECISIONS
from . import comma_separated, given

if TYPE_CHECKING:
    from ..quantization.api import QuantizedPack, QuantizeOptions
    from ..quantization.pack_quality import PackQuality

__all__ = ["add_arguments", "options_of", "run"]

_BUDGET = "PSNR to the float pack that the worst photo keeps (%(default)s)"
_SIZE = "of all graphs of one runtime, such as 4MB"
_OBJECTIVE = "smallest graphs, or the most integer arithmetic (%(default)s)"
_PRECISION = "one precision for every layer that can have it"
_TO = f"comma-separated, of: {', '.join(TARGETS)} (%(default)s)"
_PROBE = "on which layers are measured one at a time (%(default)s)"
_SEARCH = "of the measurements, which an interrupted search resumes (default: OUT.search)"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("pack", type=Path, metavar="PACK", help="folder of a pack with float32 graphs")
    parser.add_argument("--data", type=Path, required=True, help="clean photos; of a data folder its 'val' photos")
    parser.add_argument("-o", "--out", type=Path, required=True, help="folder of the new pack; must not exist")
    parser.add_argument("--budget-db", type=float, default=QUANTIZED_DB, metavar="DB", help=_BUDGET)
    parser.add_argument("--max-size", dest="max_bytes", type=size_in_bytes, metavar="SIZE", help=_SIZE)
    parser.add_argument("--objective", choices=("size", "speed"), default="size", help=_OBJECTIVE)
    chosen = parser.add_mutually_exclusive_group()
    chosen.add_argument("--plan", type=Path, metavar="FILE", help="take this plan instead of searching for one")
    chosen.add_argument("--precision", choices=WEIGHT_PRECISIONS[1:], help=_PRECISION)
    parser.add_argument("--to", dest="targets", type=comma_separated, default=BASE_TARGET, metavar="TARGETS", help=_TO)
    parser.add_argument("--photos", type=whole_number, default=10, help="of each of the three groups (%(default)s)")
    parser.add_argument("--side", type=whole_number, default=192, help="pixels of their square crops (%(default)s)")
    parser.add_argument(
        "--probe", type=whole_number, nargs=2, default=(4, 128), metavar=("PHOTOS", "SIDE"), help=_PROBE
    )
    parser.add_argument("--search", type=Path, metavar="FOLDER", help=_SEARCH)
    parser.add_argument("--compare", action="store_true", help="measure packs at one precision throughout as well")
    parser.add_argument("--json", action="store_true", help="print the measurements for programs")


def options_of(args: argparse.Namespace) -> tuple[QuantizeOptions]:
    """The options of `quantize`. Raises UsageError for what can be found wrong before the pack exists."""
    from ..quantization.api import QuantizeOptions

    return (QuantizeOptions(**given(QuantizeOptions, args)),)


def run(args: argparse.Namespace) -> int:
    """Quantize and print what was measured; 1 if nothing keeps the budget, and no pack is written."""
    from ..quantization.api import quantize

    made = quantize(args.pack, args.out, args.data, *options_of(args))
    if made.rows:
        rows = [dataclasses.asdict(row) for row in made.rows]
        print(json.dumps({"rows": rows}, indent=1) if args.json else _text(made, args.budget_db))
    if made.problem:
        print(f"pocketprior: there is no plan: {made.problem}", file=sys.stderr)
    return 1 if made.problem else 0


def _text(made: QuantizedPack, budget_db: float) -> str:
    lines = [_table(made.rows)]
    if made.plan is not None:
        used = [(kind, list(made.plan.levels.values()).count(kind)) for kind in WEIGHT_PRECISIONS]
        counted = ", ".join(f"{count} layers {kind}" for kind, count in used if count)
        lines.append(f"plan {made.plan.hash[:16]}: {counted}")
    uniform = [row for row in made.rows if row.name.startswith("all ") and row.worst_db >= budget_db]
    if uniform:
        best = min(uniform, key=lambda row: row.bytes)
        saved = 100 * (1 - made.rows[1].bytes / best.bytes)
        lines.append(
            f"best uniform pack at {budget_db:g} dB: {best.name}; {made.rows[1].name} is {saved:.1f} % smaller"
        )
    return "\n".join(lines)


def _table(rows: Sequence[PackQuality]) -> str:
    """A Markdown table; what is lost is lost compared with the first row."""
    columns = ("graphs", "runtime", "MB", "worst dB", "mean dB", "PSNR", "lost", "HaarPSI", "lost", "CPU s/MP")
    head = f"| {' | '.join(columns)} |\n| --- | --- |{' ---: |' * 8}"
    lines = [
        f"| {row.name} | {row.runtime} | {row.bytes / 1e6:.3f} | {row.worst_db:.1f} | {row.mean_db:.1f} | "
        f"{row.psnr:.3f} | {rows[0].psnr - row.psnr:.3f} | {row.haarpsi:.4f} | {rows[0].haarpsi - row.haarpsi:.4f} | "
        f"{'-' if row.seconds is None else f'{row.seconds:.2f}'} |"
        for row in rows
    ]
    return "\n".join([head, *lines])
