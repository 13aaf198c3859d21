"""The graphs of a pack as plain PyTorch modules: what is traced is the reference, rewritten only where it is exact.

Each module's `forward` takes and gives exactly the arrays of the pack's contract, in its order.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..core.manifest import ArraySpec
from ..core.models.blocks import merge_branches
from ..core.models.dtpm import Dtpm
from ..core.models.semantic import SemanticEncoder

__all__ = ["Graph", "Sampling", "dtpm_graphs", "receptive_field"]

IMAGE = ArraySpec("float32", (1, 3, "h", "w"))
SCALAR = ArraySpec("float32", (1,))


class Graph(NamedTuple):
    """A module with the names, dtypes and shapes of what goes in and out."""

    module: nn.Module
    inputs: dict[str, ArraySpec]
    outputs: dict[str, ArraySpec]

    def example(self, height: int, width: int, seed: int = 0) -> dict[str, Tensor]:
        """Random inputs in [0, 1] for tiles of this size."""
        random = torch.Generator().manual_seed(seed)
        sizes = {"h": height, "w": width}
        return {
            name: torch.rand([sizes.get(s, s) if isinstance(s, str) else s for s in spec.shape], generator=random)  # type: ignore[misc]
            for name, spec in self.inputs.items()
        }


class Sampling(NamedTuple):
    """How the residual is sampled and used: abar per step and a final 1.0, t per step, texture gain at strength 1."""

    levels: tuple[float, ...]
    times: tuple[float, ...]
    gain: float


class _Predict(nn.Module):
    def __init__(self, model: Dtpm) -> None:
        super().__init__()
        self.predictor = model.predictor

    def forward(self, image: Tensor) -> Tensor:
        return self.predictor(image)


class _Denoise(nn.Module):
    def __init__(self, model: Dtpm) -> None:
        super().__init__()
        self.denoiser, self.adapters = model.denoiser, model.adapters

    def forward(self, x: Tensor, base: Tensor, code: Tensor, t: Tensor) -> Tensor:
        return self.denoiser(x, base, code, t, self.adapters)


class _Fused(nn.Module):
    def __init__(self, model: Dtpm, sampling: Sampling) -> None:
        super().__init__()
        self.model, self.sampling = model, sampling

    def forward(self, image: Tensor, noise: Tensor, code: Tensor, strength: Tensor) -> Tensor:
        levels, times, gain = self.sampling
        return self.model(image, code, noise, gain * strength, levels, times)


def dtpm_graphs(model: Dtpm, encoder: SemanticEncoder, sampling: Sampling) -> dict[str, Graph]:
    """encode, predict, denoise and fused, ready to be traced."""
    model, encoder = merge_branches(model), merge_branches(encoder)
    side, length = encoder.config.size, encoder.config.code
    code = ArraySpec("float32", (1, length))
    thumbnail = ArraySpec("float32", (1, 3, side, side))
    return {
        "encode": Graph(encoder, {"thumbnail": thumbnail}, {"code": code}),
        "predict": Graph(_Predict(model), {"image": IMAGE}, {"base": IMAGE}),
        "denoise": Graph(_Denoise(model), {"x": IMAGE, "base": IMAGE, "code": code, "t": SCALAR}, {"v": IMAGE}),
        "fused": Graph(
            _Fused(model, sampling),
            {"image": IMAGE, "noise": IMAGE, "code": code, "strength": SCALAR},
            {"restored": IMAGE},
        ),
    }


@torch.no_grad()
def receptive_field(graph: Graph, multiple: int, reach: int = 256) -> int:
    """The largest distance, in pixels, from which an output pixel can be influenced: exact, by following NaN.

    One pixel of every picture input is NaN at a time, at each of the `multiple` x `multiple` positions on the sampling
    grid; the result is how far from it the output is NaN. Raises ValueError when `reach` is too small to tell.
    """
    size = -(-2 * reach // multiple) * multiple
    largest = 0
    for offset in range(multiple * multiple):
        y, x = size // 2 + offset // multiple, size // 2 + offset % multiple
        inputs = graph.example(size, size)
        for name, spec in graph.inputs.items():
            if "h" in spec.shape:
                inputs[name][:, :, y, x] = torch.nan
        touched = graph.module(*inputs.values()).isnan().any(dim=1)[0].nonzero()
        largest = max(largest, int((touched - torch.tensor([y, x])).abs().max()))
    if largest >= reach - multiple:
        raise ValueError(f"the receptive field reaches beyond the {reach} pixels that were looked at")
    return largest
