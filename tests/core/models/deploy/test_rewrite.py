"""Rewritten networks are the trained ones: in float64 to rounding, in float32 to 1e-5 of the largest value."""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module
from typing import Any

import pytest
import torch
from torch import nn

from pocketprior.core.models.blocks import NafBlock
from pocketprior.core.models.deploy.rewrite import (
    FoldedModulation,
    FoldedResBlock,
    SplitNafBlock,
    rewritten,
)
from pocketprior.core.models.dirformer import Modulation
from pocketprior.core.models.dtpm import Dtpm
from pocketprior.core.models.gen2res import Gen2ResConfig, ResBlock
from support.small_models import CALIBRATED


def perturbed(module: nn.Module) -> nn.Module:
    """Away from where training starts: nothing is zero or one any more."""
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=random))
    return module.eval().requires_grad_(False)


def assert_same(module: nn.Module, *inputs: Any) -> None:
    deployed = rewritten(module)
    expected, found = module(*inputs), deployed(*inputs)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))
    doubled = [x.double() if isinstance(x, torch.Tensor) else x for x in inputs]
    exact = module.double()(*doubled)
    torch.testing.assert_close(deployed.double()(*doubled), exact, rtol=0, atol=1e-6 * float(exact.abs().max()))


BLOCKS = {
    "naf": (lambda: NafBlock(6, 10), SplitNafBlock, [(2, 6, 5, 7)]),
    "naf of one pixel": (lambda: NafBlock(4, 4), SplitNafBlock, [(1, 4, 1, 1)]),
    "naf, conditioned": (lambda: NafBlock(6, 10, 8), SplitNafBlock, [(2, 6, 5, 7), (2, 4)]),
    "diffir": (lambda: Modulation(6, 5, True), FoldedModulation, [(2, 6, 3, 4), (2, 5)]),
    "diffir, norm without bias": (lambda: Modulation(6, 5, False), FoldedModulation, [(2, 6, 3, 4), (2, 5)]),
    "diffir, modulation with bias": (lambda: Modulation(6, 5, True, True), FoldedModulation, [(2, 6, 3, 4), (2, 5)]),
    "gen2res": (
        lambda: ResBlock(Gen2ResConfig(groups=2, embedding=5), 4, 6, attention=True),
        FoldedResBlock,
        [(2, 4, 5, 3), (2, 5)],
    ),
}


class Around(nn.Module):
    """A network of one block."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        return self.block(*inputs)


@pytest.mark.parametrize("name", BLOCKS)
def test_block_is_the_same_function(name: str) -> None:
    make, kind, shapes = BLOCKS[name]
    net = perturbed(Around(make()))
    assert isinstance(rewritten(net).block, kind)
    random = torch.Generator().manual_seed(1)
    assert_same(net, *(torch.randn(shape, generator=random) for shape in shapes))


# The part of each size that has blocks to rewrite; the largest sizes are of the same blocks.
PARTS = {
    "dtpm:mobile": ("predictor", "denoiser"),
    "dtpm:base": ("predictor", "denoiser"),
    "diffir:mobile": ("dirformer", "cpen_s2"),
    "gen2res:mobile": ("denoiser",),
    "gen2res:base": ("denoiser",),
}


@pytest.mark.parametrize("size", PARTS)
def test_model_is_the_same_function(size: str) -> None:
    system, _, name = size.partition(":")
    module = import_module(f"pocketprior.core.models.{system}")
    parts = module.cost_parts(module.CONFIGS[name])
    random = torch.Generator().manual_seed(2)
    for part in PARTS[size]:
        net, examples = parts[part]
        # A picture of the fewest pixels that every level can halve.
        shapes = [e if e is None else (1, e.shape[1], 32, 32) if e.dim() == 4 else e.shape for e in examples]
        inputs = (None if shape is None else torch.rand(shape, generator=random) for shape in shapes)
        assert_same(perturbed(net), *inputs)
        assert not any(isinstance(module, nn.PixelUnshuffle) for module in rewritten(net).modules())


@pytest.mark.parametrize("where", ["adapters", "slot", "none"])
@pytest.mark.parametrize("rank", [0, 2])
def test_convolutions_of_a_calibrated_model_read_the_image(where: str, rank: int) -> None:
    config = replace(CALIBRATED, damage_input=where, predictor=replace(CALIBRATED.predictor, lora=rank))
    model = perturbed(Dtpm(config))
    random = torch.Generator().manual_seed(3)
    image, noise = (torch.rand(2, 3, 32, 48, generator=random) for _ in range(2))
    assert_same(model, image, None, noise, torch.tensor([0.5, 1]), [0.1, 1.0], [0.7], torch.tensor([0.6, 1.5]))
    left = [part for part in rewritten(model).modules() if isinstance(part, nn.PixelUnshuffle)]
    assert left == []


def test_model_itself_is_left_as_it_is() -> None:
    net = Around(NafBlock(4, 4))
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    rewritten(net)
    assert isinstance(net.block, NafBlock)
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    assert all(parameter.requires_grad for parameter in net.parameters())


def test_block_in_two_places_stays_one() -> None:
    block = NafBlock(4, 4)
    pair = rewritten(nn.ModuleList([Around(block), Around(block)]))
    assert pair[0].block is pair[1].block
