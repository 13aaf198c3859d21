"""`pocketprior bench rewrite`: what the rewriting of graphs for deployment is worth, the same weights with and without.

The naive graph is the network as it is trained, traced as it stands; the rewritten one is what a pack holds
(`core/models/deploy/rewrite.py`). Time does not depend on what the weights are: they are random.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from ..core.errors import UnknownNameError
from ..core.markdown import table
from ..core.models import diffir, dtpm, gen2res
from ..core.models.deploy.rewrite import rewritten
from ..core.pack.systems import ArraySpec
from .graphs import Graph, traced
from .race import REPEATS, Run, machine, milliseconds, open_onnxruntime, open_openvino
from .to_onnx import convert

__all__ = ["NETWORKS", "RUNTIMES", "Network", "Timing", "add_arguments", "measure", "naive", "run"]

RUNTIMES: dict[str, Callable[[Path], Run]] = {
    "ONNX Runtime fp32": open_onnxruntime,
    "OpenVINO fp32": partial(open_openvino, arithmetic="f32"),
    "OpenVINO bf16": partial(open_openvino, arithmetic="bf16"),
}


class Network(NamedTuple):
    """One network of a system: its parts, as `cost_parts` gives them, and which of them is meant."""

    parts: Callable[[], Mapping[str, tuple[nn.Module, tuple[Tensor, ...]]]]
    part: str


NETWORKS: dict[str, Network] = {
    "dtpm-base-predictor": Network(lambda: dtpm.cost_parts(dtpm.CONFIGS["base"]), "predictor"),
    "dtpm-base-denoiser": Network(lambda: dtpm.cost_parts(dtpm.CONFIGS["base"]), "denoiser"),
    "diffir-mobile": Network(lambda: diffir.cost_parts(diffir.CONFIGS["mobile"]), "dirformer"),
    "gen2res-mobile": Network(lambda: gen2res.cost_parts(gen2res.CONFIGS["mobile"]), "denoiser"),
}


class Timing(NamedTuple):
    """One network in one runtime: CPU milliseconds of a call, medians; difference: of the rewritten graph's output
    from PyTorch's of the naive one, the largest, as a share of the largest value there.
    """

    network: str
    runtime: str
    naive_ms: float
    rewritten_ms: float
    difference: float


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("networks", nargs="*", metavar="NETWORK", help=f"of {', '.join(NETWORKS)} (default: all)")


def run(args: argparse.Namespace) -> int:
    """Measure the networks and print a page."""
    for name in args.networks:
        if name not in NETWORKS:
            raise UnknownNameError("network", name, NETWORKS)
    timings = [timing for name in args.networks or NETWORKS for timing in measure(name, naive(NETWORKS[name]))]
    print(_page(timings, args.networks))
    return 0


class _Named(nn.Module):
    """A network whose inputs are only numbered: the exporter confuses one with a layer of the same name."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, **inputs: Tensor) -> Tensor:
        return self.network(*inputs.values())


@torch.no_grad()
def naive(network: Network) -> Graph:
    """A network for pictures of 256 x 256 pixels, as it is trained, with random weights."""
    torch.manual_seed(0)
    module, examples = network.parts()[network.part]
    module = module.eval().requires_grad_(False)
    for parameter in module.parameters():
        parameter.add_(0.05 * torch.randn_like(parameter))  # nothing is zero or one any more
    inputs = {f"input{i}": ArraySpec("float32", tuple(example.shape)) for i, example in enumerate(examples)}
    return Graph(_Named(module), inputs, {"output": inputs["input0"]})


def measure(name: str, graph: Graph) -> list[Timing]:
    """`graph`, of fixed shapes and one output, as it is and rewritten, in every runtime.

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
            convert(either, traced(either, 1), path, metadata={})
        for runtime, opened in RUNTIMES.items():
            runs = [opened(path) for path in paths]
            difference = np.abs(runs[1](feed) - truth).max() / np.abs(truth).max()
            naive_ms, rewritten_ms = milliseconds(runs, feed)
            timings.append(Timing(name, runtime, naive_ms, rewritten_ms, float(difference)))
    return timings


def _page(timings: Sequence[Timing], names: Sequence[str]) -> str:
    rows = [["network", "runtime", "naive ms", "rewritten ms", "ratio", "difference"]]
    for t in timings:
        ratio = t.naive_ms / t.rewritten_ms
        figures = f"{t.naive_ms:.1f}", f"{t.rewritten_ms:.1f}", f"{ratio:.2f}", f"{t.difference:.1e}"
        rows.append([t.network, t.runtime, *figures])
    said = (
        f"`{' '.join(['pocketprior bench rewrite', *names])}`, {machine()}. Pictures of 256 x 256 pixels, one thread, "
        f"CPU milliseconds, in turn, the median of {REPEATS}. ratio: naive over rewritten. difference: of the "
        "rewritten graph from PyTorch as trained, the largest, as a share of the largest value."
    )
    return f"{said}\n\n{table(rows, left=2)}"
