from __future__ import annotations

import pytest
import torch

from pocketprior.core.errors import UsageError
from pocketprior.core.models.blocks import RepBlock, RepConv, Unet, sinusoid


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
def test_fresh_block_is_the_identity(embedding: int | None) -> None:
    x = torch.randn(2, 8, 5, 5)
    vector = None if embedding is None else torch.randn(2, embedding)
    torch.testing.assert_close(RepBlock(8, 4, embedding)(x, vector), x, rtol=0, atol=0)


@pytest.mark.parametrize(("widths", "blocks"), [((8,), (2,)), ((8, 12), (1, 2)), ((4, 8, 12), (1, 2, 1))])
def test_unet_keeps_the_size_and_lists_its_blocks(widths: tuple[int, ...], blocks: tuple[int, ...]) -> None:
    net = Unet(6, 3, widths, blocks, 0.5, embedding=4)
    side = net.multiple_of * 3
    vector = torch.randn(2, 4)
    seen = []

    class Spy(torch.nn.Module):
        def forward(self, h: torch.Tensor, guidance: torch.Tensor) -> torch.Tensor:
            seen.append((h.shape[1], guidance.shape[2] // h.shape[2]))
            return h

    levels = net.levels()
    spies = [Spy() for _ in levels]
    out = net(torch.randn(2, 6, side, side), vector, vector, spies, torch.randn(2, 3, side, side))
    assert out.shape == (2, 3, side, side)
    assert seen == levels


def test_unet_refuses_unequal_lists() -> None:
    with pytest.raises(UsageError, match="one entry per level"):
        Unet(3, 3, (8, 16), (1,), 1.0)


def test_sinusoid_tells_times_apart() -> None:
    codes = sinusoid(torch.tensor([0.25, 0.5, 0.75, 1.0]), 64)
    assert codes.shape == (4, 64)
    assert torch.pdist(codes).min() > 1
