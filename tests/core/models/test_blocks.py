from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from pocketprior.core.errors import UsageError
from pocketprior.core.models.blocks import NafBlock, RepBlock, RepConv, Unet, UnetConfig, sinusoid
from pocketprior.kernels.naf_block import gate


def randomize(module: torch.nn.Module, seed: int = 0) -> None:
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=random) * 0.2)


def test_merged_convolution_is_the_same_function() -> None:
    conv = RepConv(5, 7)
    randomize(conv)
    x = torch.randn(2, 5, 9, 11)
    torch.testing.assert_close(conv.merged()(x), conv(x), rtol=0, atol=1e-5)


def test_factored_branch_is_a_convolution_after_a_convolution() -> None:
    conv = RepConv(3, 4)
    randomize(conv)
    x = torch.randn(1, 3, 8, 8)
    inner = torch.nn.functional.conv2d(x, conv.reduce[:, :, None, None])
    expected = conv.direct(x) + torch.nn.functional.conv2d(inner, conv.expand, padding=1)
    torch.testing.assert_close(conv(x), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("embedding", [None, 6])
@pytest.mark.parametrize(("block", "gated"), [(RepBlock, 1), (NafBlock, 2)])
def test_fresh_block_is_the_identity(block: Callable[..., torch.nn.Module], gated: int, embedding: int | None) -> None:
    x = torch.randn(2, 8, 5, 3)
    vector = None if embedding is None else torch.randn(2, embedding // gated)
    torch.testing.assert_close(block(8, 8, embedding)(x, vector), x, rtol=0, atol=0)


class Spy(torch.nn.Module):
    """An adapter that notes channels and downscale of the feature it gets."""

    def __init__(self, seen: list[tuple[int, int]]) -> None:
        super().__init__()
        self.seen = seen

    def forward(self, h: torch.Tensor, guidance: torch.Tensor) -> torch.Tensor:
        self.seen.append((h.shape[1], guidance.shape[2] // h.shape[2]))
        return h


@pytest.mark.parametrize(("body", "gated"), [("rep", 1), ("naf", 2)])
@pytest.mark.parametrize(
    ("widths", "blocks", "decoder"),
    [((8,), (2,), ()), ((8, 12), (1, 2), ()), ((4, 8, 12), (1, 2, 1), ()), ((4, 8, 16), (1, 3, 1), (2, 1))],
)
def test_unet_keeps_the_size_and_lists_its_features(
    body: str, gated: int, widths: tuple[int, ...], blocks: tuple[int, ...], decoder: tuple[int, ...]
) -> None:
    net = Unet(UnetConfig(body, widths, blocks, decoder), 6, 3, embedding=4)
    height, width = net.multiple_of * 3, net.multiple_of * 5
    vector, seen = torch.randn(2, 4 // gated), list[tuple[int, int]]()
    spies = [Spy(seen) for _ in net.features]
    out = net(torch.randn(2, 6, height, width), vector, vector, spies, torch.randn(2, 3, height, width))
    assert out.shape == (2, 3, height, width)
    assert seen == net.features
    assert len(seen) == sum(blocks) + sum(decoder or blocks[:-1])


def test_unet_refuses_unequal_lists() -> None:
    with pytest.raises(UsageError, match="one entry per resolution"):
        Unet(UnetConfig("rep", (8, 16), (1,)), 3, 3)
    with pytest.raises(UsageError, match="decoder one less"):
        Unet(UnetConfig("naf", (4, 8), (1, 1), (1, 1)), 3, 3)


def test_sinusoid_tells_times_apart() -> None:
    codes = sinusoid(torch.tensor([0.25, 0.5, 0.75, 1.0]), 64)
    assert codes.shape == (4, 64)
    assert torch.pdist(codes).min() > 1


def test_gate_multiplies_the_halves() -> None:
    x = torch.tensor([1.0, 2.0, 3.0, 4.0]).reshape(1, 4, 1, 1)
    assert gate(x).flatten().tolist() == [3, 8]


@pytest.mark.parametrize("channels", [8, 48])
def test_naf_block_has_the_parameters_of_the_published_one(channels: int) -> None:
    assert sum(p.numel() for p in NafBlock(channels, channels).parameters()) == 7 * channels**2 + 33 * channels


def test_both_halves_of_a_naf_block_see_the_embedding() -> None:
    block = NafBlock(4, 4, embedding=6)
    randomize(block)
    x, vector = torch.randn(1, 4, 5, 5), torch.ones(1, 3)
    with torch.no_grad():
        for shut in (block.beta, block.gamma):
            kept = shut.clone()
            shut.zero_()
            assert not torch.equal(block(x, vector), block(x, -vector))
            shut.copy_(kept)
