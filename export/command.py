"""`pocketprior export`: a trained checkpoint becomes a pack, or those of several tasks around one prior do."""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

from ..core.errors import UsageError
from ..core.models import checkpoints
from ..core.pack.size import TileWindow
from ..core.photo.listing import released_photos
from .coreml.convert import SYSTEM, SYSTEMS
from .diffir import DiffirSource
from .dtpm import DtpmSource
from .gen2res import Gen2ResSource
from .pack import TARGETS, write_pack
from .source import Source
from .tasks import write_tasks

__all__ = ["SOURCES", "add_arguments", "run", "source_of"]

PHOTOS = 24  # held-back photos that calibrate int8
SOURCES: dict[str, type[DtpmSource | DiffirSource | Gen2ResSource]] = {
    "dtpm": DtpmSource,
    "diffir": DiffirSource,
    "gen2res": Gen2ResSource,
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("checkpoint", type=Path, nargs="+", help=_CHECKPOINT)
    parser.add_argument("--data", type=Path, required=True, help="photos for calibration and the golden restoration")
    parser.add_argument("-o", "--out", type=Path, required=True, help="folder of the pack; must not exist")
    parser.add_argument("--name", help="name of the pack (that of its folder)")
    parser.add_argument("--to", default="onnx", metavar="TARGETS", help=_TO)
    parser.add_argument("--precision", default="fp32", metavar="PRECISIONS", help=_PRECISION)
    parser.add_argument("--system", help=f"oldest that runs Core ML packages: {', '.join(SYSTEMS)} ({SYSTEM})")
    parser.add_argument("--split", action="store_true", help="leave out the fused graph, for a smaller pack")
    parser.add_argument("--tile", type=int, metavar="EDGE", help=_TILE)
    parser.add_argument("--pictures", action="store_true", help=_PICTURES)
    parser.add_argument("--trained-on", type=Path, metavar="FILE", help=_TRAINED_ON)
    parser.add_argument(
        "--gain",
        type=_gain,
        help="share of what the model adds at strength 1 (1; of a DTPM that is not calibrated 0.5)",
    )
    parser.add_argument("--window", nargs=2, type=int, metavar=("EDGE", "OVERLAP"), help=_WINDOW)
    parser.add_argument("--semantic", help="DTPM: its semantic encoder, a model.safetensors or timm:MODEL=FILE")
    parser.add_argument("--steps", type=int, help="DTPM, Gen2Res: sampling steps (4; 8; a student's own)")
    parser.add_argument("--start", type=int, help="Gen2Res: level of 1000 that photos are noised to (0: their own)")
    parser.add_argument("--sampler", help="Gen2Res: ddim (default) or ancestral")


_CHECKPOINT = "model.safetensors of a finished DTPM, DiffIR or Gen2Res; of a DTPM one per task that shares its prior"
_TO = f"comma-separated, of: {', '.join(TARGETS)} (default: %(default)s)"
_PRECISION = "comma-separated, such as fp32,fp16,w8,int8; the first one is run (default: %(default)s)"
_TILE = "pixels: graphs take tiles of just this height and width, as some processors want them (any that fit)"
_PICTURES = "Core ML: packages are given 'image' as an RGB picture of 8 bits, not as an array"
_TRAINED_ON = "text for the model card: the photos that the weights come from, and their licences"
_WINDOW = "pixels: tiles of a model that sees all of its tile (256 32)"


def run(args: argparse.Namespace) -> int:
    """Write the pack and say what is in it."""
    sources = [source_of(argparse.Namespace(**{**vars(args), "checkpoint": path})) for path in args.checkpoint]
    options: dict[str, Any] = {
        "name": args.name or args.out.name,
        "photos": released_photos(args.data, split="val")[:PHOTOS],
        "targets": args.to.split(","),
        "precisions": args.precision.split(","),
        "system": args.system,
        "trained_on": _text(args.trained_on),
        "fused": not args.split,
        "tile": args.tile,
        "pictures": args.pictures,
    }
    shared = [source for source in sources if isinstance(source, DtpmSource)]
    if len(sources) == 1:
        manifest = write_pack(sources[0], args.out, **options)
    elif len(shared) == len(sources):
        manifest = write_tasks(shared, args.out, **options)
    else:
        raise UsageError("several checkpoints were given; only those of DTPMs can share a pack: export one at a time")
    size = sum(file.bytes for file in manifest.files())
    reasons = dict.fromkeys(task.golden["photo"].reason for task in manifest.alone())
    print(f"{args.out}: {size / 1e6:.2f} MB, {', '.join(manifest.tasks)}, {'; '.join(reasons)}")
    return 0


def _gain(text: str) -> float:
    try:
        gain = float(text)
    except ValueError:
        gain = math.nan
    if not 0 < gain < math.inf:
        raise argparse.ArgumentTypeError(f"'{text}' is no gain; give a number above 0, such as 0.5")
    return gain


def _text(path: Path | None) -> str:
    """What is in a text file, nothing without one; UsageError where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8") if path else ""
    except (OSError, ValueError) as error:
        raise UsageError(f"--trained-on {path} cannot be read ({error}); give a text file") from error


def source_of(args: argparse.Namespace) -> Source:
    """The checkpoint with the options that its system has; UsageError for one that is given and not among them."""
    kind = checkpoints.load(args.checkpoint, *SOURCES).kind
    options = {"semantic": args.semantic, "steps": args.steps, "gain": args.gain, "window": args.window}
    options |= {"start": args.start, "sampler": args.sampler}
    given: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
    known = SOURCES[kind].__dataclass_fields__
    for name in given:
        if name not in known:
            usable = ", ".join(f"--{field}" for field in options if field in known)
            raise UsageError(f"--{name} was given for a {kind} checkpoint; its options are: {usable}")
    if args.window is not None:
        given["window"] = TileWindow(*args.window)
    return SOURCES[kind](args.checkpoint, **given)
