from __future__ import annotations

import pytest
import torch

from pocketprior.core.errors import UsageError
from pocketprior.core.models.naf import NafBlock, NafUnet
from pocketprior.kernels.naf_block import gate


def randomize(module: torch.nn.Module) -> None:
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=random) * 0.2)


def test_gate_multiplies_the_halves() -> None:
    x = torch.tensor([1.0, 2.0, 3.0, 4.0]).reshape(1, 4, 1, 1)
    assert gate(x).flatten().tolist() == [3, 8]


@pytest.mark.parametrize("embedding", [None, 6])
def test_fresh_block_is_the_identity(embedding: int | None) -> None:
    x = torch.randn(2, 8, 5, 3)
    vector = None if embedding is None else torch.randn(2, embedding // 2)
    torch.testing.assert_close(NafBlock(8, 8, embedding)(x, vector), x, rtol=0, atol=0)


@pytest.mark.parametrize("channels", [8, 48])
def test_block_has_the_parameters_of_the_published_one(channels: int) -> None:
    assert sum(p.numel() for p in NafBlock(channels, channels).parameters()) == 7 * channels**2 + 33 * channels


def test_both_halves_see_the_embedding() -> None:
    block = NafBlock(4, 4, embedding=6)
    randomize(block)
    x, vector = torch.randn(1, 4, 5, 5), torch.ones(1, 3)
    with torch.no_grad():
        for shut in (block.beta, block.gamma):
            kept = shut.clone()
            shut.zero_()
            assert not torch.equal(block(x, vector), block(x, -vector))
            shut.copy_(kept)


@pytest.mark.parametrize(
    ("widths", "blocks", "decoder"), [((4,), (2,), ()), ((4, 8), (1, 2), ()), ((4, 8, 16), (1, 3, 1), (2, 1))]
)
def test_unet_keeps_the_size_and_lists_its_blocks(
    widths: tuple[int, ...], blocks: tuple[int, ...], decoder: tuple[int, ...]
) -> None:
    net = NafUnet(6, 3, widths, blocks, 1.0, embedding=4, decoder=decoder)
    height, width = net.multiple_of * 3, net.multiple_of * 5
    vector = torch.randn(2, 2)
    seen = []

    class Spy(torch.nn.Module):
        def forward(self, h: torch.Tensor, guidance: torch.Tensor) -> torch.Tensor:
            seen.append((h.shape[1], guidance.shape[2] // h.shape[2]))
            return h

    levels = net.levels()
    out = net(
        torch.randn(2, 6, height, width), vector, vector, [Spy() for _ in levels], torch.randn(2, 3, height, width)
    )
    assert out.shape == (2, 3, height, width)
    assert seen == levels
    assert len(levels) == sum(blocks) + sum(decoder or blocks[:-1])


def test_decoder_of_another_depth_is_refused() -> None:
    with pytest.raises(UsageError, match="decoder one less"):
        NafUnet(3, 3, (4, 8), (1, 1), 1.0, decoder=(1, 1))
