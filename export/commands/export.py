"""`pocketprior export`: checkpoints become a pack."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...core.errors import UsageError
from ...core.pack.manifest import TileWindow
from ..systems import SamplingOptions
from ..targets import BASE_TARGET, TARGETS
from . import comma_separated, given

if TYPE_CHECKING:
    from ..writer.pack import PackOptions

__all__ = ["add_arguments", "add_sampling", "options_of", "run", "sampling_options"]

_CHECKPOINT = "model.safetensors of a finished DTPM, DiffIR or Gen2Res; of a DTPM one per task that shares its prior"
_TO = f"comma-separated, of: {', '.join(TARGETS)} (default: %(default)s)"
_PRECISION = "comma-separated, such as fp32,fp16,w8,int8; the first one is run (default: %(default)s)"
_TILE = "pixels: graphs take only tiles of this height and width, as some processors want them (default: any)"
_SYSTEM = "the oldest that runs Core ML packages: iOS16, iOS17 or iOS18 (default: iOS17, or what the precision needs)"
_SPLIT = "leave out the fused graph, for a smaller pack"
_WINDOW = "pixels: tiles of a model that sees all of its tile (default: 256 32)"
_IMAGES = "Core ML: packages take 'image' as an 8-bit RGB image, not as an array"
_TRAINED_ON = "text for the model card: the photos that the weights come from, and their licences"
_GAIN = "share of what the model adds at strength 1 (default: 1; 0.5 for a DTPM that is not calibrated)"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("checkpoint", type=Path, nargs="+", help=_CHECKPOINT)
    parser.add_argument("--data", type=Path, required=True, help="photos for calibration and the golden restoration")
    parser.add_argument("-o", "--out", type=Path, required=True, help="folder of the pack; must not exist")
    parser.add_argument("--name", default="", help="name of the pack (default: that of its folder)")
    parser.add_argument("--to", dest="targets", type=comma_separated, default=BASE_TARGET, metavar="TARGETS", help=_TO)
    parser.add_argument(
        "--precision", dest="precisions", type=comma_separated, default="fp32", metavar="PRECISIONS", help=_PRECISION
    )
    parser.add_argument("--system", dest="deployment_target", metavar="SYSTEM", help=_SYSTEM)
    parser.add_argument("--split", dest="fused", action="store_false", help=_SPLIT)
    parser.add_argument("--tile", type=int, metavar="EDGE", help=_TILE)
    parser.add_argument("--pictures", dest="images", action="store_true", help=_IMAGES)
    parser.add_argument("--trained-on", type=Path, metavar="FILE", help=_TRAINED_ON)
    add_sampling(parser)


def add_sampling(parser: argparse.ArgumentParser) -> None:
    """Declare how the model samples, which `parity record` shares."""
    parser.add_argument("--semantic", help="DTPM: its semantic encoder, a model.safetensors or timm:MODEL=FILE")
    parser.add_argument("--gain", type=float, help=_GAIN)
    parser.add_argument("--window", nargs=2, type=int, metavar=("EDGE", "OVERLAP"), help=_WINDOW)
    parser.add_argument("--steps", type=int, help="DTPM, Gen2Res: sampling steps (default: 4; 8; a student's own)")
    parser.add_argument("--start", type=int, help="Gen2Res: level of 1000 that photos are noised to (0: their own)")
    parser.add_argument("--sampler", help="Gen2Res: ddim (default) or ancestral")


def sampling_options(args: argparse.Namespace) -> SamplingOptions:
    """The options that `add_sampling` declares. Raises UsageError."""
    window = None if args.window is None else TileWindow(*args.window)
    options: dict[str, Any] = {**given(SamplingOptions, args), "window": window}
    return SamplingOptions(**options)


def options_of(args: argparse.Namespace) -> tuple[PackOptions, SamplingOptions]:
    """The options of `export`. Raises UsageError for what can be found wrong before the checkpoint exists."""
    from ..writer.pack import PackOptions

    try:
        trained_on = args.trained_on.read_text(encoding="utf-8") if args.trained_on else ""
    except (OSError, ValueError) as error:
        raise UsageError(f"--trained-on {args.trained_on} cannot be read ({error}); give a text file") from error
    options: dict[str, Any] = {**given(PackOptions, args), "trained_on": trained_on}
    return PackOptions(**options), sampling_options(args)


def run(args: argparse.Namespace) -> int:
    """Write the pack and print what is in it."""
    from ..writer.multitask import export

    manifest = export(args.checkpoint, args.out, args.data, *options_of(args))
    size = sum(file.bytes for file in manifest.files())
    reasons = dict.fromkeys(task.golden["photo"].reason for task in manifest.per_task())
    print(f"{args.out}: {size / 1e6:.2f} MB, {', '.join(manifest.tasks)}, {'; '.join(reasons)}")
    return 0
