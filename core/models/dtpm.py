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
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...kernels import guidance_adapter
from ..errors import UnknownNameError, UsageError
from ..samplers import ddim
from ..schedule import SCHEDULES
from .blocks import Unet, UnetBody, sinusoid, weights
from .lora import add_lora, factor_names
from .naf import NafUnet
from .naf_edge import NafEdgeUnet
from .semantic import SemanticConfig, SemanticEncoder

__all__ = [
    "CONFIGS",
    "MOBILE",
    "NAF_EDGE",
    "Adapters",
    "Denoiser",
    "DenoiserConfig",
    "Dtpm",
    "DtpmConfig",
    "GuidanceAdapter",
    "Predictor",
    "PredictorConfig",
    "cost_parts",
]

BODIES: dict[str, type[Unet | NafUnet | NafEdgeUnet]] = {"rep": Unet, "naf": NafUnet, "naf-edge": NafEdgeUnet}
PREDICTIONS = ("v", "x0")
SOURCES = ("y_E", "y_d")


@dataclass(frozen=True)
class PredictorConfig:
    """The initial predictor E: a U-Net with a global residual.

    body: "rep" (Rep-edge blocks) or "naf-edge" (NAF-edge blocks), both from half resolution on, or "naf" (NAFNet, from
    full resolution on); widths, blocks and decoder as `UnetBody` takes them; expansion: hidden channels of a block per
    channel; lora: rank of the factors beside the convolutions of a predictor that is another task's but for these, 0
    for a predictor of its own.
    """

    body: str = "rep"
    widths: tuple[int, ...] = (32, 64)
    blocks: tuple[int, ...] = (1, 2)
    decoder: tuple[int, ...] = ()
    expansion: float = 1.0
    lora: int = 0

    def __post_init__(self) -> None:
        _check("body", self.body, BODIES)
        if self.lora < 0:
            raise UsageError(f"lora is the rank of a predictor's factors, 0 for none; got {self.lora}")
        if self.lora and self.body != "rep":
            raise UsageError(
                f"lora={self.lora} was given for a predictor with the body '{self.body}'; only one with the body 'rep' "
                "can share its weights"
            )


@dataclass(frozen=True)
class DenoiserConfig:
    """The texture prior f_theta and the adapters around it; the first fields as in `PredictorConfig`."""

    body: str = "rep"
    widths: tuple[int, ...] = (32, 64)
    blocks: tuple[int, ...] = (1, 1)
    decoder: tuple[int, ...] = ()
    expansion: float = 0.5
    frequencies: int = 64  # length of the sinusoids of the time
    embedding: int = 64  # length of the time and code embedding
    adapter_minimum: int = 8  # adapter width is max(minimum, channels / 4)

    def __post_init__(self) -> None:
        _check("body", self.body, BODIES)


@dataclass(frozen=True)
class DtpmConfig:
    """All parts of one DTPM, and how they are put together.

    prediction: what the denoiser gives, "v" or the clean residual "x0" (what the nearest public relative predicts).
    structure_slot: what takes the place of the structure y_s in stage II: "y_E", which is most like it, or "y_d", the
    damaged photo, which the paper's figure draws (our inference that the figure simplifies; the adapters see y_E
    either way). code_of: the photo whose thumbnail the semantic code is of: "y_d" as drawn, or "y_E", the thumbnail
    after the predictor (our inference: better where damage changes what a thumbnail shows, as haze does).
    """

    predictor: PredictorConfig = field(default_factory=PredictorConfig)
    denoiser: DenoiserConfig = field(default_factory=DenoiserConfig)
    semantic: SemanticConfig = field(default_factory=SemanticConfig)
    schedule: str = "cosine"
    prediction: str = "v"
    structure_slot: str = "y_E"
    code_of: str = "y_d"

    def __post_init__(self) -> None:
        _check("schedule", self.schedule, SCHEDULES)
        _check("prediction", self.prediction, PREDICTIONS)
        _check("structure_slot", self.structure_slot, SOURCES)
        _check("code_of", self.code_of, SOURCES)


def _check(kind: str, given: str, valid: Any) -> None:
    if given not in valid:
        raise UnknownNameError(kind, given, valid)


def _naf(predictor: int, denoiser: int) -> DtpmConfig:
    """The reference design at these widths; its semantic code is as long as CLIP's."""
    widths, decoder = (1, 2, 4, 8, 16), (1, 1, 1, 1)
    return DtpmConfig(
        PredictorConfig("naf", tuple(predictor * w for w in widths), (1, 1, 1, 28, 1), decoder),
        DenoiserConfig(
            "naf",
            tuple(denoiser * w for w in widths),
            (1, 1, 1, 18, 1),
            decoder,
            expansion=1.0,
            embedding=4 * denoiser,
            adapter_minimum=16,
        ),
        SemanticConfig(size=128, code=512, widths=(64, 128, 256, 512)),
    )


MOBILE = DtpmConfig()
# A predictor of the other edge block that takes about as long as that of MOBILE.
NAF_EDGE = PredictorConfig("naf-edge", (32, 64), (2, 8), (2,))
# The predictor of `base` is our choice: half the width of `paper`'s, as its denoiser is.
CONFIGS = {"mobile": MOBILE, "base": _naf(predictor=16, denoiser=32), "paper": _naf(predictor=32, denoiser=64)}


def _body(config: PredictorConfig | DenoiserConfig, inputs: int, embedding: int | None = None) -> UnetBody:
    body = BODIES[config.body]
    return body(inputs, 3, config.widths, config.blocks, config.expansion, embedding, config.decoder)


class Predictor(nn.Module):
    """y_E = y_d + net(y_d): the deterministic first estimate (paper: "initial predictor")."""

    def __init__(self, config: PredictorConfig) -> None:
        super().__init__()
        self.unet = _body(config, 3)
        if config.lora:
            add_lora(self.unet, config.lora)

    def own_parts(self) -> list[str]:
        """The parts that are the task's own: all of it (""), or the factors where the rest is another task's."""
        return factor_names(self) or [""]

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
        guide = F.avg_pool2d(base, self.downscale) - 0.5
        return guidance_adapter(h, guide, *weights(self.enter), *weights(self.guide), *weights(self.leave))


class Adapters(nn.ModuleList):
    """One guidance adapter per block of a denoiser."""

    def __init__(self, denoiser: Denoiser) -> None:
        minimum = denoiser.config.adapter_minimum
        super().__init__(
            GuidanceAdapter(channels, max(minimum, channels // 4), downscale)
            for channels, downscale in denoiser.unet.levels()
        )


class Denoiser(nn.Module):
    """The texture prior f_theta(x_t, y_s, z, t): predicts v, or x0, of the scaled residual.

    Our reading: the structure is concatenated to the state, the code enters the middle and the decoder half by FiLM.
    """

    def __init__(self, config: DenoiserConfig, code: int) -> None:
        super().__init__()
        self.config = config
        size = config.embedding
        self.unet = _body(config, 6, embedding=size)
        self.time = nn.Sequential(nn.Linear(config.frequencies, size), nn.ReLU(), nn.Linear(size, size))
        self.code = nn.Sequential(nn.Linear(code, size), nn.ReLU(), nn.Linear(size, size))

    def forward(
        self,
        x: Tensor,
        structure: Tensor,
        code: Tensor,
        t: Tensor,
        adapters: Adapters | None = None,
        guidance: Tensor | None = None,
    ) -> Tensor:
        """x: (N, 3, H, W) state; structure: (N, 3, H, W) y_s, y_E or y_d; code: (N, K); t: (N,) in [0, 1].

        guidance: (N, 3, H, W) y_E for the adapters, None where the structure is y_E. Returns the prediction,
        (N, 3, H, W). A zero code stands for "no code" (it is dropped at random in training).
        """
        time = self.time(sinusoid(t, self.config.frequencies))
        # 5 brings the structure, centred, to about the variance of the state.
        joined = torch.cat([x, (structure - 0.5) * 5], dim=1)
        encoder, decoder = (self.unet.activated(e) for e in (time, time + self.code(code)))
        return self.unet(joined, encoder, decoder, adapters, structure if guidance is None else guidance)


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
        self.multiple_of = max(self.predictor.unet.multiple_of, self.denoiser.unet.multiple_of)

    def predictor_parts(self) -> list[str]:
        """The submodules of the predictor that are the task's own."""
        return [f"predictor.{name}".rstrip(".") for name in self.predictor.own_parts()]

    def encode(self, encoder: nn.Module, thumbnail: Tensor) -> Tensor:
        """The semantic code (N, K) of the damaged photos with these thumbnails, (N, 3, S, S) in [0, 1].

        With code_of "y_E", S is a multiple of `predictor.unet.multiple_of`.
        """
        if self.config.code_of == "y_E":
            thumbnail = self.predictor(thumbnail).clamp(0, 1)
        return encoder(thumbnail)

    def denoise(self, x: Tensor, image: Tensor, base: Tensor, code: Tensor, t: Tensor) -> Tensor:
        """One call of the guided prior. image: y_d, base: y_E, both (N, 3, H, W); the rest as in `Denoiser`."""
        structure = image if self.config.structure_slot == "y_d" else base
        return self.denoiser(x, structure, code, t, self.adapters, base)

    def residual(
        self,
        image: Tensor,
        base: Tensor,
        code: Tensor,
        noise: Tensor,
        levels: Sequence[float],
        times: Sequence[float],
    ) -> Tensor:
        """Sample the scaled residual, (N, 3, H, W), by deterministic DDIM from `noise`."""

        def denoise(x: Tensor, step: int) -> Tensor:
            return self.denoise(x, image, base, code, x.new_full((len(x),), times[step]))

        return ddim(denoise, noise, levels, self.config.prediction)

    def forward(
        self,
        image: Tensor,
        code: Tensor,
        noise: Tensor,
        strength: Tensor,
        levels: Sequence[float],
        times: Sequence[float],
    ) -> Tensor:
        """Restore image (N, 3, H, W) in [0, 1]: y_E + strength * s * residual, clipped to [0, 1].

        H and W are multiples of `multiple_of`; strength: (N,) in [0, 1], the gain of the texture.
        """
        base = self.predictor(image)
        texture = self.residual_scale * self.residual(image, base, code, noise, levels, times)
        return (base + strength.reshape(-1, 1, 1, 1) * texture).clamp(0, 1)

    def restore(
        self,
        image: Tensor,
        code: Tensor,
        noises: Tensor,
        strength: Tensor,
        levels: Sequence[float],
        times: Sequence[float],
    ) -> Tensor:
        """`forward` for images of any size, as the mean over k seeds: less noise, so a higher PSNR, and less texture.

        noises: (k, N, 3, H, W), standard normal. Image and noise are mirrored at the bottom and right for the time.
        """
        height, width = image.shape[2:]
        image = self._padded(image)
        restored = [self(image, code, self._padded(noise), strength, levels, times) for noise in noises]
        return torch.stack(restored).mean(dim=0)[:, :, :height, :width]

    def _padded(self, x: Tensor) -> Tensor:
        below, right = (-size % self.multiple_of for size in x.shape[2:])
        mirrored = below < x.shape[2] and right < x.shape[3]
        return F.pad(x, (0, right, 0, below), mode="reflect" if mirrored else "replicate")


class _Guidance(nn.Module):
    """All adapters at once, on features of their own, to count them."""

    def __init__(self, adapters: Adapters) -> None:
        super().__init__()
        self.adapters = adapters

    def forward(self, base: Tensor, *features: Tensor) -> list[Tensor]:
        return [adapter(h, base) for adapter, h in zip(self.adapters, features, strict=True)]


def cost_parts(config: DtpmConfig) -> dict[str, tuple[nn.Module, tuple[Tensor, ...]]]:
    """Each part with inputs to count it on: of one image of 256 x 256 pixels, on the current default device."""
    model = Dtpm(config)
    semantic = config.semantic
    image, code = torch.empty(1, 3, 256, 256), torch.empty(1, semantic.code)
    features = [torch.empty(1, channels, 256 // s, 256 // s) for channels, s in model.denoiser.unet.levels()]
    return {
        "denoiser": (model.denoiser, (image, image, code, torch.empty(1))),
        "adapters": (_Guidance(model.adapters), (image, *features)),
        "predictor": (model.predictor, (image,)),
        "semantic": (SemanticEncoder(semantic), (torch.empty(1, 3, semantic.size, semantic.size),)),
    }
