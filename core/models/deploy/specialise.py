"""A few-step student at its own times: every FiLM vector is a constant, so it is folded and the time path is deleted.

Exact up to the rounding of float32. Where it is folded:

    Conv, Rep  FiLM follows a convolution: its scale goes into the kernel, scale and shift into the bias.
    NAF body   FiLM comes before an unpadded 1x1 convolution: its scale goes into the kernel's columns, the shift
               through the kernel into the bias.
    Gen2Res    FiLM follows the affine part of a normalisation: both become one affine part.
    DiffIR     the time is a column of the first linear layer: it becomes a part of the bias.

In the middle and the decoder of a DTPM, FiLM depends on the semantic code as well: there the time becomes a constant
that is added to the code's share, and FiLM stays, unless the model has no code. The steps share all other tensors:
of the time there remain a few small vectors per step and folded kernel.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...errors import UsageError
from ...sampling.samplers import ddim, posterior_mean
from ...sampling.steps import Steps
from ..blocks import ConvBlock, Module, NafBlock, merge_branches, sinusoid
from ..diffir import PERIOD, Diffir, composed
from ..dtpm import Composed, Dtpm
from ..gen2res import Denoiser, NormSilu, ResBlock, merged
from ..texture_prior import Adapters, SharedAdapters, TextureDenoiser, guided

__all__ = [
    "FixedDiffir",
    "FixedDtpm",
    "FixedGen2Res",
    "FixedTextureDenoiser",
    "ScaledConv",
    "fixed_diffir",
    "fixed_dtpm",
    "fixed_gen2res",
]


def _time_of(model: nn.Module, time: float) -> Tensor:
    """(1,), in the dtype and on the device of the weights."""
    return next(model.parameters()).new_tensor([time])


class ScaledConv(nn.Module):
    """A convolution whose kernel is shared and whose scale and bias are its own.

    `scale` is per output channel (outputs, 1, 1, 1) or per input channel (1, inputs, 1, 1).
    """

    scale: Tensor
    bias: Tensor

    def __init__(self, shared: Tensor, scale: Tensor, bias: Tensor, padding: int) -> None:
        super().__init__()
        self.shared = shared
        self.register_buffer("scale", scale)
        self.register_buffer("bias", bias)
        self.padding = padding

    @property
    def weight(self) -> Tensor:
        """The kernel of the equivalent plain convolution."""
        return self.shared * self.scale

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, inputs, H, W). Returns (N, outputs, H', W')."""
        return F.conv2d(x, self.weight, self.bias, padding=self.padding)


def _film_after(conv: nn.Conv2d, scale: Tensor, shift: Tensor) -> ScaledConv:
    """The convolution, then x (1 + scale) + shift, as one; scale, shift: (outputs,)."""
    factor = 1 + scale
    return ScaledConv(conv.weight, factor.reshape(-1, 1, 1, 1), _bias(conv) * factor + shift, int(conv.padding[0]))


def _film_before(conv: nn.Conv2d, scale: Tensor, shift: Tensor) -> ScaledConv:
    """The convolution after x (1 + scale) + shift, as one; it is an unpadded 1x1; scale, shift: (inputs,)."""
    return ScaledConv(
        conv.weight, (1 + scale).reshape(1, -1, 1, 1), _bias(conv) + conv.weight[:, :, 0, 0] @ shift, padding=0
    )


def _bias(conv: nn.Conv2d) -> Tensor:
    assert conv.bias is not None
    return conv.bias


def _with(module: Module, **parts: nn.Module | None) -> Module:
    """A copy of `module` with other parts of these names; it shares all the rest with `module`."""
    shared = (*module.children(), *module.parameters(recurse=False), *module.buffers(recurse=False))
    changed = copy.deepcopy(module, {id(part): part for part in shared})
    for name, part in parts.items():
        setattr(changed, name, part)
    return changed


def _fixed_conv(block: ConvBlock, embedding: Tensor) -> ConvBlock:
    """The block with the FiLM of `embedding` (1, E) folded in; its convolutions are merged already."""
    assert block.film is not None
    assert isinstance(block.first, nn.Conv2d)
    return _with(block, first=_film_after(block.first, *block.film(embedding)[0].chunk(2)), film=None)


def _fixed_naf(block: NafBlock, embedding: Tensor) -> NafBlock:
    assert block.film is not None
    spatial, point = (film.chunk(2) for film in block.film(embedding)[0].chunk(2))
    spatial_in, point_in = _film_before(block.spatial_in, *spatial), _film_before(block.point_in, *point)
    return _with(block, spatial_in=spatial_in, point_in=point_in, film=None)


def _fixed_block(block: nn.Module, embedding: Tensor) -> nn.Module:
    if isinstance(block, NafBlock):
        return _fixed_naf(block, embedding)
    assert isinstance(block, ConvBlock)
    return _fixed_conv(block, embedding)


class FixedTextureDenoiser(nn.Module):
    """A DTPM's texture prior at one time: the encoder has no FiLM; middle and decoder get the code plus a constant.

    Shares the tensors of `denoiser`, whose branches are merged.
    """

    time: Tensor

    def __init__(self, denoiser: TextureDenoiser, t: float) -> None:
        super().__init__()
        unet = denoiser.unet
        time = denoiser.time(sinusoid(_time_of(denoiser, t), denoiser.config.frequencies))

        def fixed(blocks: Iterable[nn.Module]) -> nn.ModuleList:
            return nn.ModuleList(_fixed_block(block, unet.activated(time)) for block in blocks)

        parts = {"encoder": nn.ModuleList(fixed(blocks.children()) for blocks in unet.encoder)}
        if denoiser.code is None:
            parts["middle"] = fixed(unet.middle.children())
            parts["decoder"] = nn.ModuleList(fixed(blocks.children()) for blocks in unet.decoder)
        self.unet = _with(unet, **parts)
        self.code = denoiser.code
        self.register_buffer("time", time)

    def forward(
        self,
        x: Tensor,
        structure: Tensor,
        code: Tensor,
        adapters: Adapters | SharedAdapters,
        image: Tensor | None = None,
        base: Tensor | None = None,
    ) -> Tensor:
        """As `Denoiser.forward`, without the time."""
        decoder = None if self.code is None else self.unet.activated(self.time + self.code(code))
        return guided(self, x, structure, (None, decoder), adapters, image, base)


class FixedDtpm(Composed):
    """A DTPM that can only sample in its own steps."""

    def __init__(self, model: Dtpm, steps: Steps) -> None:
        super().__init__()
        self.config, self.levels = model.config, steps.levels
        self.predictor, self.adapters = model.predictor, model.adapters
        self.denoisers = nn.ModuleList(FixedTextureDenoiser(model.denoiser, time) for time in steps.times)
        self.register_buffer("residual_scale", model.residual_scale)
        self.multiple_of = model.multiple_of

    def denoise(self, x: Tensor, image: Tensor, base: Tensor, code: Tensor, step: int) -> Tensor:
        """The prediction of one step, as `Dtpm.denoise` at its time."""
        structure = image if self.config.structure_slot == "y_d" else base
        return self.denoisers[step](x, structure, code, self.adapters, image, base)

    def forward(
        self, image: Tensor, code: Tensor, noise: Tensor, strength: Tensor, amount: Tensor | None = None
    ) -> Tensor:
        """As `Dtpm.forward`, in the steps that it was built for."""
        base, scale = self.predict(image, amount)

        def denoise(x: Tensor, step: int) -> Tensor:
            return self.denoise(x, image, base, code, step)

        residual = ddim(denoise, noise, self.levels, self.config.prediction)
        return self.compose(base, scale, residual, strength, amount)


@torch.no_grad()
def fixed_dtpm(model: Dtpm, steps: Steps) -> FixedDtpm:
    """`model` at these steps, its re-parameterised branches merged. The model itself stays as it is."""
    return FixedDtpm(merge_branches(model), steps).eval().requires_grad_(False)


class FixedGen2Res(nn.Module):
    """Gen2Res's denoiser at one time, without a time path. Shares all but the affine parts of the normalisations."""

    def __init__(self, denoiser: Denoiser, t: float) -> None:
        super().__init__()
        self.denoiser = _with(denoiser)
        time = F.silu(denoiser.time(sinusoid(_time_of(denoiser, t), denoiser.config.embedding // 4)))
        for name in ("encoder", "middle", "decoder"):
            layers = getattr(denoiser, name)
            setattr(self.denoiser, name, nn.ModuleList(_fixed_layer(layer, time) for layer in layers))
        del self.denoiser.time

    def forward(self, x: Tensor) -> Tensor:
        """As `Denoiser.forward` at its time."""
        return self.denoiser.body(x, x.new_empty(0))


class _FixedResBlock(nn.Module):
    """A residual block whose FiLM is folded into its second normalisation."""

    def __init__(self, block: ResBlock, time: Tensor) -> None:
        super().__init__()
        self.resample, self.enter, self.first = block.resample, block.enter, block.first
        self.second, self.skip, self.attention = block.second, block.skip, block.attention
        self.middle = _filmed_norm(block.middle, *block.film(time)[0].chunk(2))

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        del time
        h = self.second(self.middle(self.first(self.resample(self.enter(x)))))
        return self.attention(self.skip(self.resample(x)) + h)


def _filmed_norm(layer: NormSilu, scale: Tensor, shift: Tensor) -> NormSilu:
    """(w n + b) (1 + scale) + shift = w (1 + scale) n + (b (1 + scale) + shift)."""
    norm = layer.norm
    fixed = NormSilu(norm.num_groups, norm.num_channels).to(norm.weight)
    fixed.norm.weight.copy_(norm.weight * (1 + scale))
    fixed.norm.bias.copy_(norm.bias * (1 + scale) + shift)
    return fixed


def _fixed_layer(layer: nn.Module, time: Tensor) -> nn.Module:
    return _FixedResBlock(layer, time) if isinstance(layer, ResBlock) else layer


@torch.no_grad()
def fixed_gen2res(denoiser: Denoiser, times: Sequence[float]) -> list[FixedGen2Res]:
    """One network per step, without the time path; they share all other tensors. Low-rank factors are merged."""
    plain = merged(denoiser).eval()
    return [FixedGen2Res(plain, time).eval().requires_grad_(False) for time in times]


class FixedDiffir(nn.Module):
    """DiffIR with the time embedding folded into one bias per step."""

    biases: Tensor

    def __init__(self, model: Diffir) -> None:
        super().__init__()
        denoiser = model.denoiser
        if denoiser is None:
            raise UsageError("this DiffIR does not diffuse (steps 0): it has no time to fold")
        first, *rest = denoiser.layers
        assert isinstance(first, nn.Linear)
        ipr, steps = model.config.ipr, model.config.steps
        self.cpen, self.dirformer, self.levels = model.cpen, model.dirformer, model.levels
        self.first = nn.Parameter(torch.cat([first.weight[:, :ipr], first.weight[:, ipr + 1 :]], dim=1))
        times = torch.tensor([(steps - 1 - i) / (PERIOD * steps) for i in range(steps)])
        self.register_buffer("biases", first.bias + times[:, None] * first.weight[:, ipr])
        self.rest = nn.Sequential(*rest)

    def denoise(self, x: Tensor, condition: Tensor, step: int) -> Tensor:
        """The clean vector of one step, (N, ipr)."""
        return self.rest(F.linear(torch.cat([condition, x], dim=1), self.first, self.biases[step]))

    def forward(self, image: Tensor, noise: Tensor) -> Tensor:
        """As `Diffir.forward`."""
        condition = self.cpen(image)
        prior = posterior_mean(lambda x, step: self.denoise(x, condition, step), noise, self.levels)
        return composed(image, self.dirformer(image, prior))


@torch.no_grad()
def fixed_diffir(model: Diffir) -> FixedDiffir:
    """`model` at its own steps. Raises UsageError for one that does not diffuse."""
    return FixedDiffir(copy.deepcopy(model)).eval().requires_grad_(False)
