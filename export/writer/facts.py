"""What a manifest and a model card say of a model: parameters, multiply-adds, memory, and words."""

from __future__ import annotations

import math
from textwrap import fill

import torch
from torch.utils.flop_counter import FlopCounterMode

from ...core.pack.manifest import Manifest
from ..systems.graphs import ModelGraph
from ..systems.source import ModelWords

__all__ = ["COST_TILE", "bytes_per_pixel", "card", "macs_per_pixel", "parameters"]

COST_TILE = 256  # pixels; costs per pixel are measured on this tile, unless the graph has a window of its own
_ALLOCATOR = 2.5  # what runtimes need over the arrays themselves: own layouts, arenas with gaps
_WIDTH = 120  # columns of the card
_UNRECORDED = "A checkpoint does not say which photos it was trained on: say it here before you pass the pack on."


def parameters(graph: ModelGraph) -> int:
    """Number of weights of the graph."""
    return sum(p.numel() for p in graph.module.parameters())


def macs_per_pixel(graph: ModelGraph, tile: int = COST_TILE) -> float:
    """Multiply-adds per pixel of the tile, all sampling steps of a fused graph included."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        graph.module(**graph.example(tile, tile))
    return round(counter.get_total_flops() / 2 / tile**2, 1)


def bytes_per_pixel(graph: ModelGraph, tile: int = COST_TILE) -> int:
    """Working memory of a graph per pixel of the tile: the most bytes alive at once, times a margin for the runtime.

    Counted from the traced graph, so that it is the same on every machine; a test compares it with a real runtime.
    """
    with torch.no_grad():
        program = torch.export.export(graph.module, (), graph.example(tile, tile))
    last = {used: i for i, node in enumerate(program.graph.nodes) for used in node.all_input_nodes}
    alive = most = 0
    for i, node in enumerate(program.graph.nodes):
        alive += _bytes(node)
        most = max(most, alive + _scratch(node))
        alive -= sum(_bytes(used) for used in node.all_input_nodes if last[used] == i)
    return math.ceil(_ALLOCATOR * most / tile**2)


def _bytes(node: torch.fx.Node) -> int:
    """Size of the array that a node allocates; views and weights allocate none."""
    value = node.meta.get("val")
    view = node.op == "call_function" and any(word in str(node.target) for word in ("view", "chunk", "getitem"))
    if not isinstance(value, torch.Tensor) or node.op == "get_attr" or view:
        return 0
    return value.numel() * value.element_size()


def _scratch(node: torch.fx.Node) -> int:
    """Working memory of a node: runtimes hold the scores of an attention, before and after the softmax."""
    if "scaled_dot_product_attention" not in str(node.target):
        return 0
    query, key = (used.meta["val"] for used in node.args[:2])  # type: ignore[union-attr]
    return 2 * query.element_size() * query[..., 0].numel() * key.shape[-2]


def card(manifest: Manifest, about: ModelWords, precision: str, trained_on: str = "") -> str:
    """The model card in Markdown: the facts of the manifest, the words of the system, and `trained_on`."""
    total = sum(count for graph, count in manifest.parameters.items() if graph != "fused")
    what = f"{about.what}, {total:,} parameters, {_cost(manifest) / 1000:.1f} kMAC per pixel in all, {precision}."
    use = f"`pocketprior restore --pack FOLDER PHOTO`. {about.strength}"
    limits = f"{about.limits} Made by checkpoint {manifest.made_by['checkpoint'][:16]}."
    return f"""# {manifest.name}

{fill(what, _WIDTH)}

## Use

{fill(use, _WIDTH)}

## Training

{fill(about.training, _WIDTH)}

{trained_on.strip() or _UNRECORDED}

## Limits

{fill(limits, _WIDTH)}
"""


def _cost(manifest: Manifest) -> float:
    """Multiply-adds per pixel of a whole restoration."""
    macs = manifest.macs_per_pixel
    if "fused" in macs:
        return macs["fused"] + macs.get("encode", 0)
    return sum(cost * (len(manifest.times) if graph == "denoise" else 1) for graph, cost in macs.items())
