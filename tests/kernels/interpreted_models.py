"""Run in a process of its own with TRITON_INTERPRET=1: whole models on the kernels, and through torch.compile.

Prints one JSON object per model: the largest difference of output and gradients to the reference, relative to the
largest value, eager and compiled without a graph break.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pocketprior.core.models.dirformer import Dirformer, DirformerConfig
from pocketprior.core.models.dtpm import Adapters, DenoiserConfig, TextureDenoiser
from pocketprior.core.models.gen2res import Denoiser as Gen2ResDenoiser
from pocketprior.core.models.gen2res import Gen2ResConfig
from pocketprior.kernels import mode

SHAPE = torch.Size([1, 3, 8, 8])


class Guided(nn.Module):
    """A DTPM denoiser of NAF blocks with its adapters."""

    def __init__(self) -> None:
        super().__init__()
        config = DenoiserConfig("naf", (16, 32), (1, 1), expansion=1.0, frequencies=8, embedding=8)
        self.denoiser = TextureDenoiser(config, 4)
        self.adapters = Adapters(self.denoiser)

    def forward(self, x: Tensor, base: Tensor, code: Tensor, t: Tensor) -> Tensor:
        return self.denoiser(x, base, code, t, self.adapters)


def models() -> dict[str, tuple[nn.Module, Sequence[Tensor]]]:
    x, t = torch.randn(SHAPE), torch.full((1,), 0.5)
    dirformer = DirformerConfig(width=16, blocks=(1, 1), heads=(1, 2), refinement=1)
    gen2res = Gen2ResConfig(widths=(8, 16), blocks=1, attention=(), compact=True, embedding=16, groups=4, dropout=0.0)
    return {
        "dtpm": (Guided(), (x, torch.rand(SHAPE), torch.randn(1, 4), t)),
        "diffir": (Dirformer(dirformer, 3, 1, 8), (torch.rand(SHAPE), torch.randn(1, 8))),
        "gen2res": (Gen2ResDenoiser(gen2res), (x, t)),
    }


def randomized(model: nn.Module) -> nn.Module:
    """No parameter stays zero: every gradient counts."""
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    return model


def results(model: nn.Module, run: Callable[..., object], inputs: Sequence[Tensor]) -> list[Tensor]:
    found: Any = run(*inputs)
    outputs = [found] if isinstance(found, Tensor) else [y for y in found if isinstance(y, Tensor)]
    gradients = torch.autograd.grad(sum(y.square().sum() for y in outputs), list(model.parameters()), allow_unused=True)
    return [*outputs, *(g for g in gradients if g is not None)]


def difference(found: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    return max(
        float((a - b).detach().abs().max() / b.detach().abs().max()) for a, b in zip(found, expected, strict=True)
    )


def main() -> None:
    torch.manual_seed(0)
    for name, (model, inputs) in models().items():
        randomized(model)
        expected = results(model, model, inputs)
        with mode("fused"):
            eager = difference(results(model, model, inputs), expected)
            compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
            print(
                json.dumps(
                    {"model": name, "eager": eager, "compiled": difference(results(model, compiled, inputs), expected)}
                )
            )


main()
