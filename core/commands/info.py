"""`pocketprior info`: the facts in a pack's manifest, or the size and cost of a model."""

from __future__ import annotations

import argparse
import json
from importlib import import_module
from pathlib import Path
from typing import Any

from ..arguments import add_pack, chosen_pack
from ..errors import MissingExtraError, UsageError
from ..limits import LARGEST_AMOUNT
from ..pack.json import as_tree
from ..pack.manifest import Manifest, Size, TileWindow

__all__ = ["add_arguments", "run"]

_ADDED = {  # what strength scales
    "dtpm": "the texture that was predicted",
    "diffir": "the change that was predicted",
    "gen2res": "the change to the photo that was generated",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    add_pack(parser)
    parser.add_argument("--model", metavar="SYSTEM:SIZE", help="a model instead of a pack, such as dtpm:mobile")
    parser.add_argument("--json", action="store_true", help="print everything as JSON, for programs")


def run(args: argparse.Namespace) -> int:
    """Print the facts of the pack, or the costs of the model."""
    if args.model is not None:
        return _print_model(args)
    folder = chosen_pack(args)
    manifest = Manifest.load(folder)
    size = sum(packed.bytes for packed in manifest.files())
    if args.json:
        tree = {"path": str(folder), **as_tree(manifest), "steps": len(manifest.times), "bytes": size}
        print(json.dumps(tree, indent=1))
    else:
        print("\n".join(f"{name:<12}{fact}" for name, fact in _facts(folder, manifest, size)))
    return 0


def _print_model(args: argparse.Namespace) -> int:
    if args.pack is not None or args.default:
        raise UsageError("got both a model and a pack; give one of them")
    try:
        counts = import_module("..models.counts", __package__)
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise MissingExtraError("torch", "train", "counting what a model costs") from None
    costs = counts.count(args.model)
    if args.json:
        tree = {"model": args.model, "parameters": costs.parameters, "macs_256": costs.macs_256}
        print(json.dumps(tree, indent=1))
        return 0
    print(f"{args.model:<12}{'parameters':>14}{'MAC':>18}   (input of 256 x 256 pixels)")
    for part, parameters in costs.parameters.items():
        print(f"{part:<12}{parameters:>14,}{costs.macs_256[part]:>18,}")
    return 0


def _facts(folder: Path, manifest: Manifest, size: int) -> list[tuple[str, str]]:
    amount = "0 to 1, the share of the way from the photo to the restored one"
    if manifest.takes_amount:
        amount = f"0 to {LARGEST_AMOUNT}; 1 removes the damage that the model estimates"
    return [
        ("path", str(folder)),
        ("name", manifest.name),
        ("model", manifest.model),
        ("tasks", ", ".join(manifest.tasks)),
        ("steps", f"{len(manifest.times)} ({manifest.sampler})"),
        ("sizes", f"any; tiles {_tiles(manifest.size)}"),
        ("strength", f"0 to 1; 1 adds {manifest.gain:g} of {_ADDED.get(manifest.model, 'the change to the photo')}"),
        ("amount", amount),
        *[(target, ", ".join(map(" ".join, graphs.items()))) for target, graphs in manifest.precision.items()],
        ("parameters", _numbers(manifest.parameters)),
        *[(task, f"parameters: {_numbers(facts.parameters)}") for task, facts in manifest.further.items()],
        ("MAC/pixel", _numbers(manifest.macs_per_pixel)),
        ("receptive", ", ".join(f"{graph} {_seen(field)}" for graph, field in manifest.receptive_field.items())),
        ("size", f"{size / 1e6:.1f} MB in {len(manifest.files())} files"),
        ("made by", ", ".join(f"{name} {value}" for name, value in manifest.made_by.items())),
    ]


def _tiles(size: Size) -> str:
    if size.fixed:
        return f"only of {size.minimum} x {size.minimum} pixels"
    return f"from {size.minimum} pixels, multiples of {size.multiple_of}"


def _seen(field: int | TileWindow) -> str:
    return f"its whole tile of {field.edge} pixels" if isinstance(field, TileWindow) else f"{field:,} pixels"


def _numbers(facts: Any) -> str:
    return ", ".join(f"{graph} {number:,}" for graph, number in facts.items()) or "not recorded"
