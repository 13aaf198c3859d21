"""A plan: the level of every layer, for whom it was made, and its hash; and what it says to each toolchain."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx

from ...core.errors import PackError, UsageError
from ...core.pack.json import as_text, as_tree, decode, parse
from .layers import Layer, graph_levels, uses
from .levels import GROUP, LEVELS, offered

__all__ = ["FORMAT", "Plan", "as_coreml", "as_nncf", "as_onnx", "check", "load"]

FORMAT = 1


@dataclass(frozen=True)
class Plan:
    """levels: by layer; weights: sha256 of each layer's float weights, so that a plan fits one model alone.

    made_for: sha256 over the graphs; samples: over the photos that were looked at. objective: "size" or "speed".
    budget_db: PSNR to the float pack that the worst photo must keep; expected_db: what the model expects of it.
    """

    format: int
    made_for: str
    samples: str
    objective: str
    budget_db: float
    expected_db: float
    levels: Mapping[str, str]
    weights: Mapping[str, str]

    def text(self) -> str:
        """JSON; the same plan always gives the same bytes."""
        return as_text(as_tree(self))

    @property
    def hash(self) -> str:
        """sha256 (hex) of the text."""
        return hashlib.sha256(self.text().encode()).hexdigest()


def load(path: Path) -> Plan:
    """Read a plan. Raises PackError for a file that is none, UsageError where it cannot be read."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise UsageError(f"the plan '{path}' cannot be read ({error}); give a file that 'quantize' wrote") from error
    plan = decode(Plan, parse(text, str(path)), str(path))
    if plan.format != FORMAT:
        raise PackError(f"{path}: the plan has format {plan.format}, this version reads {FORMAT}; search again")
    return plan


def check(plan: Plan, layers: Sequence[Layer]) -> None:
    """Raise UsageError unless the plan is for just these layers, and each can have its level."""
    known = {layer.name: layer.digest for layer in layers}
    if known != dict(plan.weights) or set(plan.levels) != set(known):
        raise UsageError("the plan was made for another model than that of the pack; search for one with this pack")
    for layer in layers:
        if plan.levels[layer.name] not in offered(layer):
            raise UsageError(
                f"the plan has the level '{plan.levels[layer.name]}' for the layer '{layer.name}'; it can have: "
                f"{', '.join(offered(layer))}"
            )


def as_onnx(models: Mapping[str, onnx.ModelProto], by_digest: Mapping[str, str]) -> dict[str, dict[str, list[str]]]:
    """ONNX Runtime: graph -> level -> names of the float graph's nodes, or of their outputs where they have none."""
    lists: dict[str, dict[str, list[str]]] = {}
    for graph, model in models.items():
        levels = graph_levels(model, by_digest)
        lists[graph] = {
            level: [node.name or node.output[0] for node in uses(model) if levels[node.input[1]] == level]
            for level in LEVELS
            if level in levels.values()
        }
    return lists


def as_nncf(models: Mapping[str, onnx.ModelProto], by_digest: Mapping[str, str]) -> dict[str, list[str]]:
    """NNCF: graph -> names of the float graph's nodes that stay out of integer arithmetic."""
    lists = as_onnx(models, by_digest)
    return {
        graph: sorted(name for level, names in levels.items() if level != "int8" for name in names)
        for graph, levels in lists.items()
    }


def as_coreml(plan: Plan) -> dict[str, Any]:
    """Core ML: layer -> the fields of its `OpLinearQuantizerConfig`; and the layers that compute in integers."""
    eight = {"mode": "linear_symmetric", "dtype": "int8", "granularity": "per_channel", "weight_threshold": 0}
    four = {**eight, "dtype": "int4", "granularity": "per_block", "block_size": GROUP}
    configs = {"w8": eight, "int8": eight, "w4": four}
    return {
        "compute_precision": "float16",
        "weights": {layer: configs[level] for layer, level in sorted(plan.levels.items()) if level in configs},
        "activations": sorted(layer for layer, level in plan.levels.items() if level == "int8"),
    }
