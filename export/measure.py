"""What a manifest says about the cost of a graph: parameters, multiply-adds, memory."""

from __future__ import annotations

import math

import torch
from torch.utils.flop_counter import FlopCounterMode

from .graphs import Graph

__all__ = ["bytes_per_pixel", "macs_per_pixel", "parameters"]

TILE = 256  # pixels; costs per pixel are taken on a tile of this size
ALLOCATOR = 2.5  # what runtimes need over the arrays themselves: layouts of their own, arenas that keep gaps


def parameters(graph: Graph) -> int:
    """Weights of the graph."""
    return sum(p.numel() for p in graph.module.parameters())


def macs_per_pixel(graph: Graph) -> float:
    """Multiply-adds per pixel of the tile, all sampling steps of a fused graph included."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        graph.module(*graph.example(TILE, TILE).values())
    return round(counter.get_total_flops() / 2 / TILE**2, 1)


def bytes_per_pixel(graph: Graph) -> int:
    """Working memory of a graph per pixel of the tile: the most bytes alive at once, times a margin for the runtime.

    Counted from the traced graph, so that it is the same on every machine; a test compares it with a real runtime.
    """
    with torch.no_grad():
        program = torch.export.export(graph.module, tuple(graph.example(TILE, TILE).values()))
    last = {used: i for i, node in enumerate(program.graph.nodes) for used in node.all_input_nodes}
    alive = most = 0
    for i, node in enumerate(program.graph.nodes):
        alive += _bytes(node)
        most = max(most, alive)
        alive -= sum(_bytes(used) for used in node.all_input_nodes if last[used] == i)
    return math.ceil(ALLOCATOR * most / TILE**2)


def _bytes(node: torch.fx.Node) -> int:
    """Size of the array that a node makes; views and weights make none."""
    value = node.meta.get("val")
    view = node.op == "call_function" and any(word in str(node.target) for word in ("view", "chunk", "getitem"))
    if not isinstance(value, torch.Tensor) or node.op == "get_attr" or view:
        return 0
    return value.numel() * value.element_size()
