"""What a manifest and a model card say of a model: parameters, multiply-adds, memory, and words."""

from __future__ import annotations

import math
from textwrap import fill
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from ...core.pack.manifest import MANIFEST_FORMAT, Golden, GraphSpec, Manifest, PackedFile, TileWindow
from ...core.sampling.noise import NOISE_SPEC
from ..systems.source import ModelGraph, ModelWords, Opened

__all__ = ["bytes_per_pixel", "card", "costs", "draft_manifest", "macs_per_pixel", "parameters"]

_COST_TILE = 256  # pixels; costs per pixel are measured on this tile, unless the graph has a window of its own
_ALLOCATOR = 2.5  # what runtimes need over the arrays themselves: own layouts, arenas with gaps
_WIDTH = 120  # columns of the card
_UNRECORDED = "A checkpoint does not say which photos it was trained on: say it here before you pass the pack on."
_PENDING = PackedFile("pending", "0" * 64, 0)  # stands where a hash comes


def draft_manifest(opened: Opened, target: str, **facts: Any) -> Manifest:
    """The manifest of a model in float32 without its files; `facts` are the fields that a model does not have."""
    graphs = {n: GraphSpec(g.inputs, g.outputs, {target: {"fp32": _PENDING}}) for n, g in opened.graphs.items()}
    return Manifest(
        format=MANIFEST_FORMAT,
        value_range=(0.0, 1.0),
        noise=NOISE_SPEC,
        graphs=graphs,
        precision={target: dict.fromkeys(graphs, "fp32")},
        parity={},
        card=_PENDING,
        golden={"pending": Golden(_PENDING, 0, "pending")},
        **facts,
        **opened.facts,
    )


def costs(opened: Opened) -> dict[str, Any]:
    """Costs; per pixel for the graphs that run on tiles, on the tile that they run on where that is fixed."""
    graphs, size = opened.graphs, opened.facts["size"]
    usual = size.minimum if size.fixed else _COST_TILE
    fields = opened.facts["receptive_field"].items()
    tiles = {name: window.edge if isinstance(window, TileWindow) else usual for name, window in fields}
    return {
        "parameters": {name: parameters(graph) for name, graph in graphs.items()},
        "macs_per_pixel": {name: macs_per_pixel(graphs[name], tile) for name, tile in tiles.items()},
        "bytes_per_pixel": {name: bytes_per_pixel(graphs[name], tile) for name, tile in tiles.items()},
    }


def parameters(graph: ModelGraph) -> int:
    """Number of weights of the graph."""
    return sum(p.numel() for p in graph.module.parameters())


def macs_per_pixel(graph: ModelGraph, tile: int = _COST_TILE) -> float:
    """Multiply-adds per pixel of the tile, all sampling steps of a fused graph included."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        graph.module(**graph.example(tile, tile))
    return round(counter.get_total_flops() / 2 / tile**2, 1)


def bytes_per_pixel(graph: ModelGraph, tile: int = _COST_TILE) -> int:
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
    total, macs = sum(n for graph, n in manifest.parameters.items() if graph != "fused"), manifest.macs_per_pixel
    if "fused" in macs:
        cost = macs["fused"] + macs.get("encode", 0)
    else:
        cost = sum(each * (len(manifest.times) if graph == "denoise" else 1) for graph, each in macs.items())
    what = f"{about.what}, {total:,} parameters, {cost / 1000:.1f} kMAC per pixel in all, {precision}."
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
