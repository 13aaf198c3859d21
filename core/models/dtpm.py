"""DTPM: Learning Diffusion Texture Priors for Image Restoration (CVPR 2024).

Stage I learns the texture of clean photos: the residual x_0 - y_s between a photo and its texture-free structure,
scaled to unit variance, diffused under a semantic code. Stage II freezes that prior and adds, per task, an initial
predictor E (y_E = E(y_d)) and a conditional guidance adapter after every block. The restored photo is
y_E + s * residual.

The paper's code is not public: where it is silent the docstrings say "our reading". Pictures are (N, 3, H, W) in
[0, 1]; the sampled state is the residual divided by its scale s, about unit variance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..samplers import ddim
from .blocks import Unet, sinusoid
from .semantic import SemanticConfig

__all__ = [
    "MOBILE",
    "Adapters",
    "Denoiser",
    "DenoiserConfig",
    "Dtpm",
    "DtpmConfig",
    "GuidanceAdapter",
    "Predictor",
    "PredictorConfig",
]


@dataclass(frozen=True)
class PredictorConfig:
    """The initial predictor E: a U-Net with a global residual."""

    widths: tuple[int, ...] = (32, 64)
    blocks: tuple[int, ...] = (1, 2)
    expansion: float = 1.0


@dataclass(frozen=True)
class DenoiserConfig:
    """The texture prior f_theta and the adapters around it."""

    widths: tuple[int, ...] = (32, 64)
    blocks: tuple[int, ...] = (1, 1)
    expansion: float = 0.5
    embedding: int = 64  # length of the time and code embedding
    adapter_minimum: int = 8  # adapter width is max(minimum, channels / 4)


@dataclass(frozen=True)
class DtpmConfig:
    """All parts of one DTPM."""

    predictor: PredictorConfig = field(default_factory=PredictorConfig)
    denoiser: DenoiserConfig = field(default_factory=DenoiserConfig)
    semantic: SemanticConfig = field(default_factory=SemanticConfig)
    schedule: str = "cosine"


MOBILE = DtpmConfig()


class Predictor(nn.Module):
    """y_E = y_d + net(y_d): the deterministic first estimate (paper: "initial predictor")."""

    def __init__(self, config: PredictorConfig) -> None:
        super().__init__()
        self.unet = Unet(3, 3, config.widths, config.blocks, config.expansion)

    def forward(self, image: Tensor) -> Tensor:
        """image: (N, 3, H, W) in [0, 1]. Returns y_E, same shape, not clipped."""
        return image + self.unet(image - 0.5)


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
        nn.init.zeros_(self.leave.weight)
        assert self.leave.bias is not None
        nn.init.zeros_(self.leave.bias)

    def forward(self, h: Tensor, base: Tensor) -> Tensor:
        guidance = self.guide(F.avg_pool2d(base, self.downscale) - 0.5)
        return h + self.leave(F.gelu(self.enter(h)) + F.gelu(guidance))


class Adapters(nn.ModuleList):
    """One guidance adapter per block of a denoiser."""

    def __init__(self, denoiser: Denoiser) -> None:
        minimum = denoiser.config.adapter_minimum
        super().__init__(
            GuidanceAdapter(channels, max(minimum, channels // 4), downscale)
            for channels, downscale in denoiser.unet.levels()
        )


class Denoiser(nn.Module):
    """The texture prior f_theta(x_t, y_s, z, t): predicts v of the scaled residual.

    Our reading: the structure is concatenated to the state, the code enters the middle and the decoder half by FiLM.
    """

    def __init__(self, config: DenoiserConfig, code: int) -> None:
        super().__init__()
        self.config = config
        size = config.embedding
        self.unet = Unet(6, 3, config.widths, config.blocks, config.expansion, embedding=size)
        self.time = nn.Sequential(nn.Linear(size, size), nn.ReLU(), nn.Linear(size, size))
        self.code = nn.Sequential(nn.Linear(code, size), nn.ReLU(), nn.Linear(size, size))

    def forward(self, x: Tensor, base: Tensor, code: Tensor, t: Tensor, adapters: Adapters | None = None) -> Tensor:
        """x: (N, 3, H, W) state; base: (N, 3, H, W) structure y_s or y_E; code: (N, K); t: (N,) in [0, 1].

        Returns v, (N, 3, H, W). A zero code stands for "no code" (it is dropped at random in training).
        """
        time = self.time(sinusoid(t, self.config.embedding))
        # 5 brings the structure, centred, to about the variance of the state.
        joined = torch.cat([x, (base - 0.5) * 5], dim=1)
        return self.unet(joined, F.relu(time), F.relu(time + self.code(code)), adapters, base)


class Dtpm(nn.Module):
    """A complete DTPM for one task: predictor, frozen prior, adapters, and the scale of the residual."""

    residual_scale: Tensor

    def __init__(self, config: DtpmConfig) -> None:
        super().__init__()
        self.config = config
        self.predictor = Predictor(config.predictor)
        self.denoiser = Denoiser(config.denoiser, config.semantic.code)
        self.adapters = Adapters(self.denoiser)
        self.register_buffer("residual_scale", torch.tensor(0.05))

    def residual(
        self, base: Tensor, code: Tensor, noise: Tensor, levels: Sequence[float], times: Sequence[float]
    ) -> Tensor:
        """Sample the scaled residual, (N, 3, H, W), by deterministic DDIM from `noise`."""

        def denoise(x: Tensor, step: int) -> Tensor:
            t = x.new_full((len(x),), times[step])
            return self.denoiser(x, base, code, t, self.adapters)

        return ddim(denoise, noise, levels)

    def forward(
        self,
        image: Tensor,
        code: Tensor,
        noise: Tensor,
        strength: Tensor,
        levels: Sequence[float],
        times: Sequence[float],
    ) -> Tensor:
        """Restore image (N, 3, H, W) in [0, 1]: y_E + strength * s * residual, clipped to [0, 1]."""
        base = self.predictor(image)
        texture = self.residual_scale * self.residual(base, code, noise, levels, times)
        return (base + strength.reshape(-1, 1, 1, 1) * texture).clamp(0, 1)
