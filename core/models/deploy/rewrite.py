"""Exact rewrites of trained networks for deployment: the same function, up to the rounding of float32, in fewer nodes.

    Rep blocks   the branches of a re-parameterised convolution become one kernel.
    LoRA         low-rank factors become a thin convolution beside that of the weights that are shared.
    NAF blocks   the gate is the product of two parallel branches: nothing is computed together to be split again.
                 beta and gamma go into the 1x1 before the residual. The affine part of a normalisation goes into the
                 unpadded 1x1 that follows, or into the layer that makes the FiLM vectors.
    NAF-edge     the same gate; the whole of the batch normalisation goes into the unpadded 1x1 that follows.
    DiffIR       the affine part of a modulated normalisation goes into the layer that makes scale and shift.
    Gen2Res      the affine part of a group normalisation goes into the layer that makes the FiLM vectors.

Not rewritten, because it would not be exact: the shift of the picture that guidance adapters see (their 3x3 pads it
with zeros after the shift, so in a bias it would be wrong at the border).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ....kernels.group_norm_silu import EPS as GROUP_EPS
from ....kernels.modulated_norm import EPS as MODULATED_EPS
from ....kernels.naf_block import EPS as NAF_EPS
from ..blocks import Module, RepConv, replaced
from ..dirformer import Modulation
from ..gen2res import ResBlock
from ..lora import LoraConv2d, LoraRepConv, LowRank
from ..naf import NafBlock
from ..naf_edge import NafEdgeBlock

__all__ = ["FoldedModulation", "FoldedResBlock", "SplitNafBlock", "SplitNafEdgeBlock", "rewritten"]


def _conv(weight: Tensor, bias: Tensor, groups: int = 1) -> nn.Conv2d:
    """A zero-padded convolution that keeps the size; weight: (outputs, inputs / groups, k, k), bias: (outputs,)."""
    outputs, inputs, side = weight.shape[:3]
    conv = nn.Conv2d(inputs * groups, outputs, side, padding=side // 2, groups=groups)
    conv.weight, conv.bias = nn.Parameter(weight.detach().clone()), nn.Parameter(bias.detach().clone())
    return conv


def _linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    layer.weight = nn.Parameter(weight.detach().clone())
    if bias is not None:
        layer.bias = nn.Parameter(bias.detach().clone())
    return layer


def _bias(layer: nn.Conv2d | nn.LayerNorm | nn.GroupNorm) -> Tensor:
    assert layer.bias is not None
    return layer.bias


def _halves(conv: nn.Conv2d) -> tuple[nn.Conv2d, nn.Conv2d]:
    """Two convolutions that give the first and the second half of the channels that `conv` gives.

    A depthwise one sees only the half of its input that its outputs are of.
    """
    depthwise = conv.groups > 1
    weights, biases = conv.weight.chunk(2), _bias(conv).chunk(2)
    first, second = (_conv(w, b, len(w) if depthwise else 1) for w, b in zip(weights, biases, strict=True))
    return first, second


def _scaled_after(conv: nn.Conv2d, factor: Tensor) -> nn.Conv2d:
    """factor * conv(x); factor: (outputs, 1, 1)."""
    return _conv(conv.weight * factor[:, None], _bias(conv) * factor[:, 0, 0])


def _affine_before(scale: Tensor, shift: Tensor, conv: nn.Conv2d) -> nn.Conv2d:
    """conv of x * scale + shift, both (inputs,); exact because a 1x1 convolution does not pad."""
    return _conv(conv.weight * scale[:, None, None], _bias(conv) + conv.weight[:, :, 0, 0] @ shift)


def _affine_with_film(film: nn.Linear, weight: Tensor, bias: Tensor) -> nn.Linear:
    """A layer whose vectors (scale, shift) do what x * weight + bias and then x (1 + scale) + shift of `film` do.

    x * (weight (1 + s)) + (bias (1 + s) + t), where s and t are linear in what `film` sees.
    """
    (scale, shift), (one, zero) = film.weight.chunk(2), film.bias.chunk(2)
    return _linear(
        torch.cat([scale * weight[:, None], shift + scale * bias[:, None]]),
        torch.cat([(1 + one) * weight, zero + (1 + one) * bias]),
    )


class _ChannelNorm(nn.Module):
    """x less its mean over the channels of each pixel, if `centred`, over its standard deviation there.

    Both means are 1x1 convolutions with one output. Of the exact forms this is the fastest in OpenVINO, where a layer
    normalisation between two transpositions moves every pixel twice and a reduction over channels has no fast kernel;
    in ONNX Runtime the two are alike. The variance is that of the differences: mean(x^2) - mean(x)^2 would cancel.
    """

    mean: Tensor
    eps: Tensor

    def __init__(self, channels: int, eps: float, *, centred: bool = True) -> None:
        super().__init__()
        self.register_buffer("mean", torch.full((1, channels, 1, 1), 1 / channels))
        self.register_buffer("eps", torch.tensor([eps]))
        self.centred = centred

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, C, H, W). Returns the same shape."""
        difference = x - F.conv2d(x, self.mean)
        scale = torch.rsqrt(F.conv2d(difference * difference, self.mean, self.eps))
        return (difference if self.centred else x) * scale


class SplitNafBlock(nn.Module):
    """A `NafBlock` without split, learnt affine parts and per-channel factors; the channel attention stays."""

    def __init__(self, block: NafBlock) -> None:
        super().__init__()
        spatial_in, point_in = block.spatial_in, block.point_in
        if block.film is None:
            self.spatial_film = self.point_film = None
            spatial_in = _affine_before(block.spatial_norm.weight, _bias(block.spatial_norm), spatial_in)
            point_in = _affine_before(block.point_norm.weight, _bias(block.point_norm), point_in)
        else:
            films = [_linear(*part) for part in zip(block.film.weight.chunk(2), block.film.bias.chunk(2), strict=True)]
            norms = block.spatial_norm, block.point_norm
            self.spatial_film, self.point_film = (
                _affine_with_film(film, norm.weight, _bias(norm)) for film, norm in zip(films, norms, strict=True)
            )
        self.norm = _ChannelNorm(len(block.beta), NAF_EPS)
        self.spatial_first, self.spatial_second = _halves(spatial_in)
        self.depthwise_first, self.depthwise_second = _halves(block.depthwise)
        self.attention = _conv(block.attention.weight, _bias(block.attention))
        self.spatial_out = _scaled_after(block.spatial_out, block.beta)
        self.point_first, self.point_second = _halves(point_in)
        self.point_out = _scaled_after(block.point_out, block.gamma)

    def forward(self, x: Tensor, embedding: Tensor | None = None) -> Tensor:
        """As `NafBlock.forward`."""
        # Spatial half.
        h = _filmed(self.norm(x), self.spatial_film, embedding)
        h = self.depthwise_first(self.spatial_first(h)) * self.depthwise_second(self.spatial_second(h))
        x = x + self.spatial_out(h * self.attention(h.mean(dim=(2, 3), keepdim=True)))
        # Pointwise half.
        h = _filmed(self.norm(x), self.point_film, embedding)
        return x + self.point_out(self.point_first(h) * self.point_second(h))


def _filmed(x: Tensor, film: nn.Module | None, embedding: Tensor | None) -> Tensor:
    """x * scale + shift; not 1 + scale, as the layer has it folded in."""
    if film is None:
        return x
    scale, shift = film(embedding)[:, :, None, None].chunk(2, dim=1)
    return x * scale + shift


class SplitNafEdgeBlock(nn.Module):
    """A `NafEdgeBlock` of convolutions and one product: no normalisation, no split."""

    def __init__(self, block: NafEdgeBlock) -> None:
        super().__init__()
        self.enter_first, self.enter_second = _halves(_affine_before(*block.norm.affine(), block.enter))
        self.depthwise_first, self.depthwise_second = _halves(block.depthwise)
        hidden = block.leave.weight.new_ones(block.leave.weight.shape[1])
        self.film = None if block.film is None else _affine_with_film(block.film, hidden, 0 * hidden)
        self.leave = _conv(block.leave.weight, _bias(block.leave))

    def forward(self, x: Tensor, embedding: Tensor | None = None) -> Tensor:
        """As `NafEdgeBlock.forward`."""
        h = self.depthwise_first(self.enter_first(x)) * self.depthwise_second(self.enter_second(x))
        return x + self.leave(_filmed(h, self.film, embedding))


class FoldedModulation(nn.Module):
    """A DiffIR `Modulation` whose normalisation has no learnt part of its own."""

    def __init__(self, modulation: Modulation) -> None:
        super().__init__()
        norm = modulation.norm
        self.norm = _ChannelNorm(len(norm.weight), MODULATED_EPS, centred=norm.bias is not None)

        def folded(made: Tensor) -> Tensor:
            """What makes scale and shift (2 C, ...), after the affine part of the norm."""
            scale, shift = made.chunk(2)
            rows = (-1, *[1] * (made.dim() - 1))
            if norm.bias is not None:
                shift = shift + scale * norm.bias.reshape(rows)
            return torch.cat([scale * norm.weight.reshape(rows), shift])

        linear = modulation.linear
        self.linear = _linear(folded(linear.weight), None if linear.bias is None else folded(linear.bias))

    def forward(self, x: Tensor, ipr: Tensor) -> Tensor:
        """As `Modulation.forward`."""
        return _filmed(self.norm(x), self.linear, ipr)


class _PlainNormSilu(nn.Module):
    """silu(group_norm(x) * scale + shift) without learnt parts."""

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.groups = groups

    def forward(self, x: Tensor, film: Tensor) -> Tensor:
        """x: (N, C, H, W). film: (N, 2 C), scale then shift."""
        scale, shift = film[:, :, None, None].chunk(2, dim=1)
        return F.silu(F.group_norm(x, self.groups, eps=GROUP_EPS) * scale + shift)


class FoldedResBlock(nn.Module):
    """A Gen2Res `ResBlock` whose conditioned normalisation has no learnt part of its own; without dropout."""

    def __init__(self, block: ResBlock) -> None:
        super().__init__()
        norm = block.middle.norm
        self.resample, self.enter, self.first = block.resample, block.enter, block.first
        self.film = _affine_with_film(block.film, norm.weight, _bias(norm))
        self.middle = _PlainNormSilu(norm.num_groups)
        self.second, self.skip, self.attention = block.second, block.skip, block.attention

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """As `ResBlock.forward`."""
        h = self.first(self.resample(self.enter(x)))
        h = self.second(self.middle(h, self.film(time)))
        return self.attention(self.skip(self.resample(x)) + h)


@torch.no_grad()
def rewritten(module: Module) -> Module:
    """A copy of `module` for deployment, ready to run; `module` itself is left as it is.

    Weights that parts share are shared in the copy where the parts themselves are.
    """
    makers = {
        RepConv: RepConv.merged,
        LoraRepConv: LowRank,
        LoraConv2d: LowRank,
        NafBlock: SplitNafBlock,
        NafEdgeBlock: SplitNafEdgeBlock,
        Modulation: FoldedModulation,
        ResBlock: FoldedResBlock,
    }
    return replaced(module, makers)
