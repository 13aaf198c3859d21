"""`pocketprior parity record`, `pocketprior parity run` and `pocketprior parity table`."""

from __future__ import annotations

import argparse
import math
from argparse import ArgumentParser, Namespace
from importlib import import_module
from pathlib import Path

from ...core.files import write_text
from ..options import ARITHMETIC
from ..parity import page
from ..parity.as_html import as_html
from ..parity.as_json import as_json
from ..parity.as_junit import as_junit
from ..parity.run import Wanted, compare
from ..parity.text import lines

__all__ = ["add_arguments", "run"]


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the three commands and their options."""
    kinds = parser.add_subparsers(metavar="record | run | table", required=True)
    _add_record(kinds.add_parser("record", help="record what a checkpoint makes of photos", allow_abbrev=False))
    _add_run(kinds.add_parser("run", help="hold a pack against a recording", allow_abbrev=False))
    _add_table(kinds.add_parser("table", help="packs in all runtimes and precisions, on a page", allow_abbrev=False))


def run(args: Namespace) -> int:
    """Run the chosen command: 0, or 1 where a pack does not hold."""
    return int(args.act(args))


def _add_record(parser: ArgumentParser) -> None:
    parser.set_defaults(act=_record)
    parser.add_argument("checkpoint", type=Path, help="model.safetensors of a finished DTPM, DiffIR or Gen2Res")
    parser.add_argument("--photos", type=Path, nargs="+", required=True, help="clean photos, or folders of them")
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="RECORDING", help="the file to write (.npz)")
    parser.add_argument("--side", type=_positive, default=128, help="of the squares that are cut out (%(default)s)")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="(a GPU, if there is one)")
    parser.add_argument("--teacher", type=Path, help="checkpoint that the model is a few-step student of")
    parser.add_argument("--teacher-steps", type=_positive, help="sampling steps of the teacher (as in 'export')")
    _add_sampling(parser)


def _add_sampling(parser: ArgumentParser) -> None:
    """As in `pocketprior export`: a recording is of a model as it is packed."""
    parser.add_argument("--semantic", help="DTPM: its semantic encoder, a model.safetensors or timm:MODEL=FILE")
    parser.add_argument("--gain", type=_positive_number, help="share of what the model adds, as in 'export'")
    parser.add_argument("--window", nargs=2, type=int, metavar=("EDGE", "OVERLAP"), help="tiles, as in 'export'")
    parser.add_argument("--tile", type=_positive, metavar="EDGE", help="the only size of tiles, as in 'export'")
    parser.add_argument("--steps", type=int, help="sampling steps, as in 'export'")
    parser.add_argument("--start", type=int, help="Gen2Res: level to which a photo is noised, as in 'export'")
    parser.add_argument("--sampler", help="Gen2Res: ddim or ancestral, as in 'export'")


def _add_run(parser: ArgumentParser) -> None:
    parser.set_defaults(act=_run)
    parser.add_argument("pack", type=Path, metavar="PACK", help="folder of the pack")
    parser.add_argument("--task", help="one of a pack whose tasks have graphs of their own (the first)")
    parser.add_argument("--against", type=Path, metavar="RECORDING", help="the reference (what the pack brings along)")
    parser.add_argument("--runtime", default="onnxruntime", metavar="NAME", help="what runs the pack (%(default)s)")
    parser.add_argument("--precision", metavar="LABEL", help="of the files, such as fp16 (what the pack says)")
    parser.add_argument("--arithmetic", choices=ARITHMETIC, help="beside integers (what the pack says)")
    parser.add_argument("--float", type=Path, dest="floats", metavar="PACK", help="pack that it was quantized from")
    parser.add_argument("--layers", action="store_true", help="look for the first layer that breaks")
    parser.add_argument("--threads", type=_positive, help="for one graph call (the runtime's own choice)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the report for programs")
    parser.add_argument("--junit", type=Path, metavar="FILE", help="write it for continuous integration")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write it with pictures, in one file")


def _add_table(parser: ArgumentParser) -> None:
    parser.set_defaults(act=_table)
    parser.add_argument("packs", type=Path, nargs="+", metavar="PACK", help="folders of packs")
    parser.add_argument("--against", type=Path, nargs="+", default=[], metavar="RECORDING", help="of their checkpoints")
    parser.add_argument("--threads", type=_positive, help="for one graph call (the runtime's own choice)")
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="PAGE", help="page with marks for the table")


def _record(args: Namespace) -> int:
    # The reference is computed by PyTorch, which a runtime must not load: the module is named, not imported.
    return int(import_module("...export.commands.record", __package__).run(args))


def _run(args: Namespace) -> int:
    names = ("runtime", "arithmetic", "precision", "against", "floats", "layers", "threads", "task")
    report = compare(args.pack, Wanted(**{name: getattr(args, name) for name in names}))
    print("\n".join(lines(report)))
    for path, write in ((args.json, as_json), (args.junit, as_junit), (args.html, as_html)):
        if path is not None:
            write_text(path, write(report))
    return 0 if report.ok else 1


def _table(args: Namespace) -> int:
    """Fill the page; 1 where a pack does not hold, or could not be run."""
    rows = list(page.measured(args.packs, args.against, args.threads))
    page.fill(args.out, page.text(rows))
    held = [row.report is not None and row.report.ok for row in rows]
    print(f"{args.out}: {len(rows)} rows, {sum(held)} held")
    return 0 if rows and all(held) else 1


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' was given; give a whole number from 1")
    return int(text)


def _positive_number(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"'{text}' was given; give a number above 0")
    return number
