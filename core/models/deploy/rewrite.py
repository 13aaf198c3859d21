"""Exact rewrites of trained networks for deployment: the same function, up to the rounding of float32, in fewer nodes.

    Rep blocks   the branches of a re-parameterised convolution become one kernel.
    LoRA         low-rank factors become a thin convolution in parallel with the one that holds the shared weights.
    NAF blocks   the gate is the product of two parallel branches: nothing is computed together to be split again.
                 beta and gamma are folded into the 1x1 before the residual. The affine part of a normalisation is
                 folded into the unpadded 1x1 that follows, or into the layer that makes the FiLM vectors.
    DiffIR       the affine part of a modulated normalisation is folded into the layer that makes scale and shift.
    Gen2Res      the affine part of a group normalisation is folded into the layer that makes the FiLM vectors.
    Unshuffles   a pixel-unshuffle and the convolution after (or, in DiffIR, before) it become one strided convolution:
                 its six-dimensional transposition is slow everywhere, and phone processors refuse it.

Not rewritten, because it would not be exact: the shift of the guidance adapters' input (their 3x3 pads with zeros after
the shift, so a bias would be wrong at the border).

`eager` runs a module behind the protocol of a runtime's graph: the reference of every parity check.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from ....kernels.group_norm_silu import EPS as GROUP_EPS
from ....kernels.modulated_norm import EPS as MODULATED_EPS
from ....kernels.naf_block import EPS as NAF_EPS
from ....kernels.select import mode
from ...restore.restorer import Graph
from ..blocks import Module, NafBlock, RepConv, Unet, replaced
from ..diffir import CpenS2
from ..dirformer import Dirformer, Modulation, UnshuffleDown
from ..gen2res import Denoiser, ResBlock
from ..lora import LoraConv2d, LoraRepConv, LowRank
from ..texture_prior import SharedAdapters

__all__ = ["FoldedModulation", "FoldedResBlock", "SplitNafBlock", "eager", "mode", "rewritten"]


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


def _bias(layer: nn.Conv2d | nn.LayerNorm) -> Tensor:
    assert layer.bias is not None
    return layer.bias


def _halves(conv: nn.Conv2d) -> tuple[nn.Conv2d, nn.Conv2d]:
    """Two convolutions that return the first and the second half of the output channels of `conv`.

    Those of a depthwise one take only the matching half of its input.
    """
    depthwise = conv.groups > 1
    weights, biases = conv.weight.chunk(2), _bias(conv).chunk(2)
    first, second = (_conv(w, b, len(w) if depthwise else 1) for w, b in zip(weights, biases, strict=True))
    return first, second


def _scaled_after(conv: nn.Conv2d, factor: Tensor) -> nn.Conv2d:
    """The convolution factor * conv(x); factor: (outputs, 1, 1)."""
    return _conv(conv.weight * factor[:, None], _bias(conv) * factor[:, 0, 0])


def _affine_before(scale: Tensor, shift: Tensor, conv: nn.Conv2d) -> nn.Conv2d:
    """The convolution of x * scale + shift, both (inputs,); exact because a 1x1 convolution does not pad."""
    return _conv(conv.weight * scale[:, None, None], _bias(conv) + conv.weight[:, :, 0, 0] @ shift)


def _affine_with_film(norm: nn.LayerNorm | nn.GroupNorm, film: nn.Linear, one: float = 1) -> nn.Linear:
    """A layer whose (scale, shift) stand for the affine part of `norm`, then x (one + s) + t with (s, t) from `film`.

    x * (weight (one + s)) + (bias (one + s) + t), where s and t are linear in the input of `film`.
    """

    def folded(scale: Tensor, shift: Tensor) -> Tensor:
        rows = (-1, *[1] * (scale.dim() - 1))
        if norm.bias is not None:
            shift = shift + scale * norm.bias.reshape(rows)
        return torch.cat([scale * norm.weight.reshape(rows), shift])

    bias = None
    if film.bias is not None:
        scale, shift = film.bias.chunk(2)
        bias = folded(one + scale, shift)
    return _linear(folded(*film.weight.chunk(2)), bias)


class _ChannelNorm(nn.Module):
    """x minus its mean over the channels of each pixel (only if `centred`), divided by its standard deviation there.

    Both means are 1x1 convolutions with one output. Of the exact forms this is the fastest in OpenVINO, where a layer
    normalisation between two transpositions moves every pixel twice and a reduction over channels has no fast kernel;
    ONNX Runtime runs both at the same speed. The variance is that of the differences: mean(x^2) - mean(x)^2 cancels.
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
    """A `NafBlock` without split, learnt affine parts and per-channel factors; it keeps the channel attention."""

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
            self.spatial_film, self.point_film = map(_affine_with_film, norms, films)
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
    """Return x * scale + shift; not 1 + scale, as the layer has it folded in."""
    if film is None:
        return x
    scale, shift = film(embedding)[:, :, None, None].chunk(2, dim=1)
    return x * scale + shift


class FoldedModulation(nn.Module):
    """A DiffIR `Modulation` whose normalisation has no learnt part."""

    def __init__(self, modulation: Modulation) -> None:
        super().__init__()
        norm = modulation.norm
        self.norm = _ChannelNorm(len(norm.weight), MODULATED_EPS, centred=norm.bias is not None)
        self.linear = _affine_with_film(norm, modulation.linear, one=0)

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
    """A Gen2Res `ResBlock` without dropout, whose conditioned normalisation has no learnt part."""

    def __init__(self, block: ResBlock) -> None:
        super().__init__()
        norm = block.middle.norm
        self.resample, self.enter, self.first = block.resample, block.enter, block.first
        self.film = _affine_with_film(norm, block.film)
        self.middle = _PlainNormSilu(norm.num_groups)
        self.second, self.skip, self.attention = block.second, block.skip, block.attention

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """As `ResBlock.forward`."""
        h = self.first(self.resample(self.enter(x)))
        h = self.second(self.middle(h, self.film(time)))
        return self.attention(self.skip(self.resample(x)) + h)


def _after_unshuffle(conv: nn.Module, side: int) -> Any:
    """The convolution of x that `conv` of pixel_unshuffle(x, side) is: with a larger kernel, in strides of `side`."""
    if isinstance(conv, LowRank):
        conv.conv, conv.down = _after_unshuffle(conv.conv, side), _after_unshuffle(conv.down, side)
        return conv
    assert isinstance(conv, nn.Conv2d)
    outputs, inputs, k = conv.weight.shape[:3]
    # (outputs, inputs, row, column in the patch, row, column of the patch) -> rows and columns of pixels.
    kernel = conv.weight.reshape(outputs, -1, side, side, k, k).permute(0, 1, 4, 2, 5, 3)
    strided = nn.Conv2d(inputs // side**2, outputs, k * side, side, k // 2 * side, bias=conv.bias is not None)
    strided.weight, strided.bias = nn.Parameter(kernel.reshape(strided.weight.shape)), conv.bias
    return strided


def _before_unshuffle(down: UnshuffleDown) -> nn.Conv2d:
    """The convolution in strides of 2 that a 3x3 and a pixel-unshuffle by 2 are: four shifts of the 3x3 in a 4x4."""
    (weight,) = down.parameters()
    outputs, inputs = weight.shape[:2]
    kernels = weight.new_zeros(outputs, 2, 2, inputs, 4, 4)
    for row in range(2):
        for column in range(2):
            kernels[:, row, column, :, row : row + 3, column : column + 3] = weight
    strided = nn.Conv2d(inputs, 4 * outputs, 4, stride=2, padding=1, bias=False)
    strided.weight = nn.Parameter(kernels.flatten(0, 2))
    return strided


# What is called on an unshuffled image: the part, and its convolutions that read the image itself once deployed.
_UNSHUFFLING: tuple[tuple[type[nn.Module], tuple[str, ...]], ...] = (
    (Unet, ("intro",)),
    (SharedAdapters, ("first", "damage")),
    (Dirformer, ("intro",)),
    (CpenS2, ("convs.0",)),
    (Denoiser, ("intro",)),
)


def _without_unshuffle(part: nn.Module, names: Sequence[str]) -> None:
    """Replace, in place, the `unshuffle` of `part` by strides of the convolutions after it."""
    children = dict(part.named_modules())
    for name in names:
        if name in children:
            part.set_submodule(name, _after_unshuffle(children[name], part.unshuffle.downscale_factor))  # type: ignore[union-attr]
    part.unshuffle = nn.Identity()


@torch.no_grad()
def rewritten(module: Module) -> Module:
    """A copy of `module` for deployment, in evaluation mode; `module` itself stays as it is.

    Parts that are used in two places stay one in the copy.
    """
    makers = {
        RepConv: RepConv.merged,
        LoraRepConv: LowRank,
        LoraConv2d: LowRank,
        NafBlock: SplitNafBlock,
        Modulation: FoldedModulation,
        ResBlock: FoldedResBlock,
        UnshuffleDown: _before_unshuffle,
    }
    deployed = replaced(module, makers)
    for part in deployed.modules():
        for kind, names in _UNSHUFFLING:
            if isinstance(part, kind):
                _without_unshuffle(part, names)
    return deployed.requires_grad_(False)


def eager(module: nn.Module, inputs: Sequence[str], *outputs: str) -> Graph:
    """A function from float32 arrays by name to float32 arrays by name that runs `module` where its parameters are.

    `forward` takes the arrays `inputs` by name and returns one tensor, or a tuple of them: the `outputs`, in order.
    """
    device = next((parameter.device for parameter in module.parameters()), torch.device("cpu"))

    def graph(**arrays: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        with torch.inference_mode():
            tensors = {name: torch.from_numpy(np.ascontiguousarray(arrays[name])).to(device) for name in inputs}
            result = module(**tensors)
        results = result if isinstance(result, tuple) else (result,)
        return {name: tensor.cpu().numpy() for name, tensor in zip(outputs, results, strict=True)}

    return graph
