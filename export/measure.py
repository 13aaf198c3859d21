"""What a manifest says about the cost of a graph: parameters, multiply-adds, memory."""

from __future__ import annotations

import math

import torch
from torch.utils.flop_counter import FlopCounterMode

from .graphs import Graph

__all__ = ["TILE", "bytes_per_pixel", "macs_per_pixel", "parameters"]

TILE = 256  # pixels; costs per pixel are taken on a tile of this size, unless the graph has a window of its own
ALLOCATOR = 2.5  # what runtimes need over the arrays themselves: layouts of their own, arenas that keep gaps


def parameters(graph: Graph) -> int:
    """Weights of the graph."""
    return sum(p.numel() for p in graph.module.parameters())


def macs_per_pixel(graph: Graph, tile: int = TILE) -> float:
    """Multiply-adds per pixel of the tile, all sampling steps of a fused graph included."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        graph.module(**graph.example(tile, tile))
    return round(counter.get_total_flops() / 2 / tile**2, 1)


def bytes_per_pixel(graph: Graph, tile: int = TILE) -> int:
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
    return math.ceil(ALLOCATOR * most / tile**2)


def _bytes(node: torch.fx.Node) -> int:
    """Size of the array that a node makes; views and weights make none."""
    value = node.meta.get("val")
    view = node.op == "call_function" and any(word in str(node.target) for word in ("view", "chunk", "getitem"))
    if not isinstance(value, torch.Tensor) or node.op == "get_attr" or view:
        return 0
    return value.numel() * value.element_size()


def _scratch(node: torch.fx.Node) -> int:
    """What a node needs while it runs: runtimes hold the scores of an attention, before and after the softmax."""
    if "scaled_dot_product_attention" not in str(node.target):
        return 0
    query, key = (used.meta["val"] for used in node.args[:2])  # type: ignore[union-attr]
    return 2 * query.element_size() * query[..., 0].numel() * key.shape[-2]
