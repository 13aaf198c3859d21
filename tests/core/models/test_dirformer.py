from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from pocketprior.core.errors import UsageError
from pocketprior.core.models.dirformer import ChannelAttention, Dirformer, DirformerConfig, Modulation


def tiny(**changes) -> DirformerConfig:
    return DirformerConfig(**{"width": 8, "blocks": (1, 1), "heads": (1, 2), "refinement": 1, **changes})


def test_modulation_scales_plainly() -> None:
    """norm(x) * scale + shift: a prior of zeros leaves nothing, and no bias adds anything."""
    modulation = Modulation(6, 4, norm_bias=True)
    x, prior = torch.randn(2, 6, 3, 3), torch.randn(2, 4)
    scale, shift = (prior @ modulation.linear.weight.T)[:, :, None, None].split(6, dim=1)
    normal = modulation.norm(x.movedim(1, -1)).movedim(-1, 1)
    torch.testing.assert_close(modulation(x, prior), normal * scale + shift)
    assert modulation(x, 0 * prior).abs().max() == 0


def test_modulation_with_bias_starts_around_the_norm() -> None:
    """A prior of zeros leaves the normalised picture; others add their share to a scale of 1."""
    modulation = Modulation(6, 4, norm_bias=True, bias=True)
    x, prior = torch.randn(2, 6, 3, 3), torch.randn(2, 4)
    normal = modulation.norm(x.movedim(1, -1)).movedim(-1, 1)
    torch.testing.assert_close(modulation(x, 0 * prior), normal)
    scale, shift = (prior @ modulation.linear.weight.T)[:, :, None, None].split(6, dim=1)
    torch.testing.assert_close(modulation(x, prior), normal * (1 + scale) + shift)


def test_attention_is_that_of_normalised_rows() -> None:
    """Dividing the map by the rows' lengths equals attention of rows of length one, as it is written in the paper."""
    attention, x = ChannelAttention(8, 2), torch.randn(2, 8, 5, 7)
    torch.nn.init.uniform_(attention.temperature, 0.5, 5)
    q, k, v = (part(x).reshape(2, 2, 4, 35) for part in (attention.q, attention.k, attention.v))
    scores = F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).mT * attention.temperature
    expected = attention.out((scores.softmax(-1) @ v).reshape(2, 8, 5, 7))
    torch.testing.assert_close(attention(x), expected)


def test_attention_of_nothing_is_finite() -> None:
    assert ChannelAttention(4, 1)(torch.zeros(1, 4, 3, 3)).isfinite().all()


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("norm_bias", [True, False])
def test_memory_layout_changes_nothing(layout: torch.memory_format, norm_bias: bool) -> None:
    torch.manual_seed(0)
    net = Dirformer(tiny(norm_bias=norm_bias), 3, 1, 4)
    image, prior = torch.rand(2, 3, 8, 12), torch.randn(2, 4)
    torch.testing.assert_close(net(image.contiguous(memory_format=layout), prior), net(image, prior))


@pytest.mark.parametrize(
    ("changes", "inputs", "scale"),
    [
        ({}, 3, 1),
        ({}, 4, 1),
        ({"unshuffle": 2, "narrow": True}, 3, 1),
        ({"upsampler": True}, 3, 4),
        ({"upsampler": True, "unshuffle": 2}, 3, 2),
        ({"upsampler": True, "unshuffle": 4, "refinement": 0}, 3, 1),
        ({"blocks": (1, 1, 1), "heads": (1, 2, 4), "narrow": True}, 3, 1),
    ],
)
def test_without_its_tail_it_is_the_enlarged_image(changes: dict, inputs: int, scale: int) -> None:
    net = Dirformer(tiny(**changes), inputs, scale, 4)
    image = torch.rand(2, inputs, 2 * net.multiple_of, 3 * net.multiple_of)
    prior = torch.randn(2, 4)
    expected = image[:, :3].repeat_interleave(scale, 2).repeat_interleave(scale, 3)
    restored = net(image, prior)
    assert restored.shape == expected.shape
    assert not torch.equal(restored, expected)
    for parameter in net.tail.parameters():
        torch.nn.init.zeros_(parameter)
    assert torch.equal(net(image, prior), expected)


def test_unequal_lists_are_refused() -> None:
    with pytest.raises(UsageError, match="one entry per resolution"):
        Dirformer(tiny(heads=(1,)), 3, 1, 4)
