"""DTPM's texture prior: the denoiser of the scaled residual, and the adapters that guide it per task.

The paper (CVPR 2024) has no public code: where it is silent the docstrings say "our reading". The shared adapters are
ours.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...kernels import guidance_adapter
from .blocks import Unet, UnetConfig, conv3x3, sinusoid, weights, zero_

__all__ = ["Adapters", "DenoiserConfig", "GuidanceAdapter", "SharedAdapter", "SharedAdapters", "TextureDenoiser"]


@dataclass(frozen=True)
class DenoiserConfig(UnetConfig):
    """The texture prior f_theta and the width of the adapters around it."""

    blocks: tuple[int, ...] = (1, 1)
    expansion: float = 0.5
    frequencies: int = 64  # length of the sinusoidal embedding of the time
    embedding: int = 64  # length of the time and code embedding
    adapter_minimum: int = 8  # adapter width is max(minimum, channels / 4); of shared adapters exactly this


class GuidanceAdapter(nn.Module):
    """h' = h + MLP_out(GELU(MLP_in(h)) + GELU(Conv(y_E))), the paper's conditional guidance adapter.

    Our reading: MLP is a 1x1 convolution, Conv a 3x3; y_E is averaged to the resolution of h; MLP_out starts at zero,
    so that stage II starts exactly at the function of stage I.
    """

    def __init__(self, channels: int, width: int, downscale: int) -> None:
        super().__init__()
        self.downscale = downscale
        self.enter = nn.Conv2d(channels, width, 1)
        self.guide = nn.Conv2d(3, width, 3, padding=1)
        self.leave = nn.Conv2d(width, channels, 1)
        zero_(self.leave)

    def forward(self, h: Tensor, base: Tensor) -> Tensor:
        """h: (N, C, H / downscale, W / downscale); base: y_E, (N, 3, H, W). Returns the shape of h."""
        guide = F.avg_pool2d(base, self.downscale) - 0.5
        return guidance_adapter(h, guide, *weights(self.enter), *weights(self.guide), *weights(self.leave))


class Adapters(nn.ModuleList):
    """One guidance adapter per block of a denoiser."""

    def __init__(self, denoiser: TextureDenoiser) -> None:
        minimum = denoiser.config.adapter_minimum
        super().__init__(
            GuidanceAdapter(channels, max(minimum, channels // 4), downscale)
            for channels, downscale in denoiser.unet.features
        )

    def guidance(self, _image: Tensor, base: Tensor) -> Tensor:
        """The second argument of each adapter: y_E."""
        return base

    def entry(self, *_: Tensor) -> None:
        """Nothing is added to the first features."""


class SharedAdapter(nn.Module):
    """h' = h + leave(relu(enter(h) + guide(g))), all 1x1; all adapters of a model share the features g.

    `leave` starts at zero, as in `GuidanceAdapter`.
    """

    def __init__(self, channels: int, width: int, octave: int) -> None:
        super().__init__()
        self.octave = octave
        self.enter = nn.Conv2d(channels, width, 1)
        self.guide = nn.Conv2d(width, width, 1, bias=False)
        self.leave = nn.Conv2d(width, channels, 1)
        zero_(self.leave)

    def forward(self, h: Tensor, guidance: Sequence[Tensor]) -> Tensor:
        """h: (N, C, H, W); guidance: the features per octave, finest first."""
        return h + self.leave(F.relu(self.enter(h) + self.guide(guidance[self.octave])))


class SharedAdapters(nn.Module):
    """Adapters that share their features of y_E and of the damage y_d - y_E, computed once in many channels.

    Ours: the paper's adapters each convolve y_E on their own, eight channels at a time. `damage` says where y_d - y_E
    enters, through weights that start at zero: "adapters" (with y_E), "slot" (with the structure), or "none".
    """

    def __init__(self, denoiser: TextureDenoiser, damage: str) -> None:
        super().__init__()
        width, unet = denoiser.config.adapter_minimum, denoiser.unet
        octaves = [(channels, (scale // unet.finest).bit_length() - 1) for channels, scale in unet.features]
        self.blocks = nn.ModuleList(SharedAdapter(channels, width, octave) for channels, octave in octaves)
        self.octaves = 1 + max(octave for _, octave in octaves)
        cells, self.finest, self.where = 3 * unet.finest**2, unet.finest, damage
        self.unshuffle = nn.PixelUnshuffle(unet.finest)
        self.first, self.second = nn.Conv2d(cells, width, 1), conv3x3(width, width)
        if damage != "none":
            self.damage = nn.Conv2d(cells, width if damage == "adapters" else denoiser.config.widths[0], 1, bias=False)
            zero_(self.damage)

    def __iter__(self) -> Iterator[nn.Module]:
        return iter(self.blocks)

    def __len__(self) -> int:
        return len(self.blocks)

    def guidance(self, image: Tensor, base: Tensor) -> list[Tensor]:
        """The features of y_E per octave, finest first; image: y_d, base: y_E, both (N, 3, H, W)."""
        x = self.first(self.unshuffle(5 * (base - 0.5)))
        if self.where == "adapters":
            x = x + self._of_damage(image, base)
        octaves = [F.relu(self.second(F.relu(x)))]
        for _ in range(1, self.octaves):
            octaves.append(F.avg_pool2d(octaves[-1], 2))
        return octaves

    def entry(self, image: Tensor, base: Tensor) -> Tensor | None:
        """The term that is added to the denoiser's first features; None for none."""
        return self._of_damage(image, base) if self.where == "slot" else None

    def _of_damage(self, image: Tensor, base: Tensor) -> Tensor:
        return self.damage(self.unshuffle(10 * (image - base)))


class TextureDenoiser(nn.Module):
    """The texture prior f_theta(x_t, y_s, z, t): predicts v, or x0, of the scaled residual.

    Our reading: the structure is concatenated to the state, the code enters the middle and the decoder half by FiLM.
    """

    def __init__(self, config: DenoiserConfig, code: int) -> None:
        super().__init__()
        self.config = config
        size = config.embedding
        self.unet = Unet(config, 6, 3, size)
        self.time = nn.Sequential(nn.Linear(config.frequencies, size), nn.ReLU(), nn.Linear(size, size))
        self.code = nn.Sequential(nn.Linear(code, size), nn.ReLU(), nn.Linear(size, size)) if code else None

    def forward(
        self,
        x: Tensor,
        structure: Tensor,
        code: Tensor | None,
        t: Tensor,
        adapters: Adapters | SharedAdapters | None = None,
        image: Tensor | None = None,
        base: Tensor | None = None,
    ) -> Tensor:
        """Predict v or x0 of the scaled residual, (N, 3, H, W), from the state x, (N, 3, H, W); t: (N,) in [0, 1].

        structure: (N, 3, H, W), y_s, y_E or y_d. code: (N, K); zeros for "no code", which training drops at random;
        None for a prior without a code. adapters: None for stage I. image, base: y_d and y_E for the adapters; None
        where it is the structure.
        """
        time = self.time(sinusoid(t, self.config.frequencies))
        decoder = time if self.code is None else time + self.code(code)
        vectors = self.unet.activated(time), self.unet.activated(decoder)
        # 5 brings the structure, centred, to about the variance of the state.
        joined = torch.cat([x, (structure - 0.5) * 5], dim=1)
        if adapters is None:
            return self.unet(joined, *vectors)
        base = structure if base is None else base
        image = base if image is None else image
        return self.unet(joined, *vectors, adapters, adapters.guidance(image, base), adapters.entry(image, base))
