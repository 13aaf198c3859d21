"""`pocketprior info PACK`: what a pack is, as its manifest says it."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from ..errors import UsageError
from ..manifest import Manifest
from ..pack import default_pack
from ..strict_json import as_tree

__all__ = ["add_arguments", "add_pack", "chosen_pack", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    add_pack(parser)
    parser.add_argument("--json", action="store_true", help="print the whole manifest for programs")


def add_pack(parser: argparse.ArgumentParser) -> None:
    """PACK or --default, for commands about a pack."""
    parser.add_argument("pack", nargs="?", type=Path, metavar="PACK", help="folder of the pack")
    parser.add_argument("--default", action="store_true", help="the pack that comes with this package")


def chosen_pack(args: argparse.Namespace) -> Path:
    """The folder that PACK or --default names; UsageError unless it is one of them."""
    if (args.pack is None) != args.default:
        raise UsageError("name the folder of a pack, or give --default for the one that comes with this package")
    return default_pack() if args.default else args.pack


def run(args: argparse.Namespace) -> int:
    """Print the facts of the pack."""
    folder = chosen_pack(args)
    manifest = Manifest.load(folder)
    if args.json:
        print(json.dumps({"path": str(folder), **_tree(manifest)}, indent=1))
    else:
        print("\n".join(f"{name:<12}{fact}" for name, fact in _facts(folder, manifest)))
    return 0


def _tree(manifest: Manifest) -> dict[str, Any]:
    """The manifest, with the few facts that follow from it."""
    return {**as_tree(manifest), "steps": len(manifest.times), "bytes": _bytes(manifest)}


def _bytes(manifest: Manifest) -> int:
    return sum(packed.bytes for packed in manifest.files())


def _facts(folder: Path, manifest: Manifest) -> list[tuple[str, str]]:
    size = manifest.size
    return [
        ("path", str(folder)),
        ("name", manifest.name),
        ("model", manifest.model),
        ("tasks", ", ".join(manifest.tasks)),
        ("steps", f"{len(manifest.times)} ({manifest.sampler})"),
        ("sizes", f"any; tiles from {size.minimum} pixels, multiples of {size.multiple_of}"),
        ("strength", f"0 to 1; 1 adds {manifest.gain:g} of the texture that was predicted"),
        *[(f"{target}", _graphs(manifest, target)) for target in manifest.precision],
        ("parameters", _numbers(manifest.parameters)),
        ("MAC/pixel", _numbers(manifest.macs_per_pixel)),
        ("reach", f"{_numbers(manifest.receptive_field)} pixels"),
        ("size", f"{_bytes(manifest) / 1e6:.1f} MB in {len(manifest.files())} files"),
        ("made by", ", ".join(f"{name} {value}" for name, value in manifest.made_by.items())),
    ]


def _graphs(manifest: Manifest, target: str) -> str:
    return ", ".join(f"{graph} {precision}" for graph, precision in manifest.precision[target].items())


def _numbers(facts: Any) -> str:
    return ", ".join(f"{graph} {number:,}" for graph, number in facts.items()) or "not recorded"
