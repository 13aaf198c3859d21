"""`pocketprior parity record`: record what a checkpoint makes of photos."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ...core.arguments import whole_number
from . import given
from .export import add_sampling, sampling_options

if TYPE_CHECKING:
    from ..parity_reference import RecordOptions
    from ..systems import SamplingOptions

__all__ = ["add_arguments", "options_of", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments; those on sampling are those of `pocketprior export`."""
    parser.add_argument("checkpoint", type=Path, help="model.safetensors of a finished DTPM, DiffIR or Gen2Res")
    parser.add_argument("--photos", type=Path, nargs="+", required=True, help="clean photos, or folders of them")
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="REFERENCE", help="the file to write (.npz)")
    parser.add_argument("--side", type=whole_number, default=128, help="pixels of their square crops (%(default)s)")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="(a GPU, if there is one)")
    parser.add_argument("--teacher", type=Path, help="checkpoint that the model is a few-step student of")
    parser.add_argument("--teacher-steps", type=whole_number, help="sampling steps of the teacher (as in 'export')")
    parser.add_argument("--tile", type=whole_number, metavar="EDGE", help="the only size of tiles, as in 'export'")
    add_sampling(parser)


def options_of(args: argparse.Namespace) -> tuple[RecordOptions, SamplingOptions]:
    """The options of `record`. Raises UsageError for what can be found wrong before the checkpoint exists."""
    from ..parity_reference import RecordOptions

    return RecordOptions(**given(RecordOptions, args)), sampling_options(args)


def run(args: argparse.Namespace) -> int:
    """Write the reference and print what is in it."""
    from ..parity_reference import record

    about = record(args.checkpoint, args.photos, args.out, *options_of(args))
    calls = sum(len(calls) for case in about.cases for calls in case.calls.values())
    size = args.out.stat().st_size / 1e6
    print(f"{args.out}: {size:.1f} MB, {calls} calls of {len(about.cases)} restorations, {about.environment['device']}")
    return 0
