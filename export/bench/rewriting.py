"""What rewriting graphs for deployment gains: the same network traced as trained (naive) and as a pack holds it.

The rewriting is that of `core/models/deploy/rewrite.py`. Time does not depend on the weights, which are random.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from ...core.errors import UnknownNameError
from ...core.markdown import table
from ...core.models import diffir, dtpm, gen2res
from ...core.models.deploy.rewrite import rewritten
from ...core.pack.systems import ArraySpec
from ..systems.source import ModelGraph, traced
from ..targets.onnx import convert_onnx
from .sessions import TIMED_CALLS, GraphRun, machine, milliseconds, open_onnxruntime, open_openvino

__all__ = ["NETWORKS", "RewriteTiming", "measure_rewriting", "naive", "rewriting_page"]

REWRITE_RUNTIMES: dict[str, Callable[[Path], GraphRun]] = {
    "ONNX Runtime fp32": open_onnxruntime,
    "OpenVINO fp32": partial(open_openvino, arithmetic="f32"),
    "OpenVINO bf16": partial(open_openvino, arithmetic="bf16"),
}

Network = tuple[nn.Module, tuple[Tensor, ...]]  # of a system, and examples of its inputs

NETWORKS: dict[str, Callable[[], Network]] = {
    "dtpm-base-predictor": lambda: dtpm.cost_parts(dtpm.CONFIGS["base"])["predictor"],
    "dtpm-base-denoiser": lambda: dtpm.cost_parts(dtpm.CONFIGS["base"])["denoiser"],
    "diffir-mobile": lambda: diffir.cost_parts(diffir.CONFIGS["mobile"])["dirformer"],
    "gen2res-mobile": lambda: gen2res.cost_parts(gen2res.CONFIGS["mobile"])["denoiser"],
}


class RewriteTiming(NamedTuple):
    """One network in one runtime."""

    network: str
    runtime: str
    naive_ms: float  # CPU milliseconds of a call, median
    rewritten_ms: float
    difference: float  # of the rewritten graph from PyTorch as trained, the largest, as a share of the largest value


class _Named(nn.Module):
    """A network with numbered inputs: the exporter confuses an input with a layer of the same name."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, **inputs: Tensor) -> Tensor:
        return self.network(*inputs.values())


@torch.no_grad()
def naive(network: Callable[[], Network]) -> ModelGraph:
    """A network for images of 256 x 256 pixels as it is trained, with random weights."""
    torch.manual_seed(0)
    module, examples = network()
    module = module.eval().requires_grad_(False)
    for parameter in module.parameters():
        parameter.add_(0.05 * torch.randn_like(parameter))  # nothing is zero or one any more
    inputs = {f"input{i}": ArraySpec("float32", tuple(example.shape)) for i, example in enumerate(examples)}
    return ModelGraph(_Named(module), inputs, {"output": inputs["input0"]})


def measure_rewriting(name: str, graph: ModelGraph) -> list[RewriteTiming]:
    """Time a graph of fixed shapes and one output as it is and rewritten, in every runtime.

    Raises MissingExtraError without openvino.
    """
    example = graph.example(0, 0)
    with torch.no_grad():
        truth = graph.module(**example).numpy()
    feed = [array.numpy() for array in example.values()]
    timings = []
    with tempfile.TemporaryDirectory() as folder:
        paths = Path(folder) / "naive.onnx", Path(folder) / "rewritten.onnx"
        for path, module in zip(paths, (graph.module, rewritten(graph.module)), strict=True):
            either = graph._replace(module=module)
            convert_onnx(either, traced(either, 1), path, metadata={})
        for runtime, opened in REWRITE_RUNTIMES.items():
            runs = [opened(path) for path in paths]
            difference = np.abs(runs[1](feed) - truth).max() / np.abs(truth).max()
            naive_ms, rewritten_ms = milliseconds(runs, feed)
            timings.append(RewriteTiming(name, runtime, naive_ms, rewritten_ms, float(difference)))
    return timings


def rewriting_page(names: Sequence[str]) -> str:
    """Measure the named networks, all without names: a Markdown table and how it was made. Raises UnknownNameError."""
    for name in names:
        if name not in NETWORKS:
            raise UnknownNameError("network", name, NETWORKS)
    timings = [timing for name in names or NETWORKS for timing in measure_rewriting(name, naive(NETWORKS[name]))]
    rows = [["network", "runtime", "naive ms", "rewritten ms", "ratio", "difference"]]
    for t in timings:
        ratio = t.naive_ms / t.rewritten_ms
        figures = f"{t.naive_ms:.1f}", f"{t.rewritten_ms:.1f}", f"{ratio:.2f}", f"{t.difference:.1e}"
        rows.append([t.network, t.runtime, *figures])
    made = (
        f"`{' '.join(['pocketprior bench rewrite', *names])}`, {machine()}. Images of 256 x 256 pixels, one thread, "
        f"CPU milliseconds, in turn, the median of {TIMED_CALLS}. ratio: naive over rewritten. difference: of the "
        "rewritten graph from PyTorch as trained, the largest, as a share of the largest value."
    )
    return f"{made}\n\n{table(rows, left=2)}"
