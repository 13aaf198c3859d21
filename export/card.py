"""The model card of a pack: what it is, what it was trained on, what it cannot do."""

from __future__ import annotations

from textwrap import fill

from ..core.pack.manifest import Manifest
from .source import About

__all__ = ["card"]

WIDTH = 120  # columns of the text
UNRECORDED = "A checkpoint does not say which photos it was trained on: say it here before you pass the pack on."


def card(manifest: Manifest, about: About, precision: str, trained_on: str = "") -> str:
    """Markdown text, from the facts of the manifest, what is to say about the system, and of its photos."""
    total = sum(count for graph, count in manifest.parameters.items() if graph != "fused")
    what = f"{about.what}, {total:,} parameters, {_cost(manifest) / 1000:.1f} kMAC per pixel in all, {precision}."
    use = f"`pocketprior restore --pack FOLDER PHOTO`. {about.strength}"
    limits = f"{about.limits} Made by checkpoint {manifest.made_by['checkpoint'][:16]}."
    return f"""# {manifest.name}

{fill(what, WIDTH)}

## Use

{fill(use, WIDTH)}

## Training

{fill(about.training, WIDTH)}

{trained_on.strip() or UNRECORDED}

## Limits

{fill(limits, WIDTH)}
"""


def _cost(manifest: Manifest) -> float:
    """Multiply-adds per pixel of a whole restoration."""
    macs = manifest.macs_per_pixel
    if "fused" in macs:
        return macs["fused"] + macs.get("encode", 0)
    return sum(cost * (len(manifest.times) if graph == "denoise" else 1) for graph, cost in macs.items())
