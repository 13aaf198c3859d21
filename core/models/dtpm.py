"""DTPM: Learning Diffusion Texture Priors for Image Restoration (CVPR 2024).

Stage I learns the texture of clean photos: the residual x_0 - y_s between a photo and its texture-free structure,
scaled to unit variance, diffused under a semantic code. Stage II freezes that prior and adds, per task, an initial
predictor E (y_E = E(y_d)) and a conditional guidance adapter after every block. The restored photo is
y_E + s * residual.

The paper's code is not public: where it is silent the docstrings say "our reading". Images are (N, 3, H, W) in
[0, 1]; the sampled state is the residual divided by its scale, about unit variance.

Ours, and not the paper's, is the *calibrated* predictor: it estimates the damage, accepts an `amount` of it to remove,
and gives, with y_E, the standard deviation sigma of what it could not restore. The residual is then divided by that map
instead of one number, and sigma decides how much texture is added: much on a ruined photo, none on a good one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...kernels import guidance_adapter
from ..errors import UnknownNameError, UsageError
from ..sampling.samplers import ddim
from ..sampling.schedule import SCHEDULES
from .blocks import ConvUnet, Unet, UnetBody, conv3x3, sinusoid, weights
from .lora import add_lora, factor_names
from .naf import NafUnet
from .naf_edge import NafEdgeUnet
from .semantic import NO_SEMANTIC, SemanticConfig, SemanticEncoder

__all__ = [
    "CONFIGS",
    "FIRST_MOBILE",
    "LARGE",
    "MOBILE",
    "NAF_EDGE",
    "TINY",
    "Adapters",
    "Composed",
    "DamageEstimator",
    "Denoiser",
    "DenoiserConfig",
    "Dtpm",
    "DtpmConfig",
    "Estimate",
    "GuidanceAdapter",
    "Predictor",
    "PredictorConfig",
    "SharedAdapter",
    "SharedAdapters",
    "cost_parts",
    "guided",
]

BODIES: dict[str, type[ConvUnet | NafUnet]] = {
    "conv": ConvUnet,
    "rep": Unet,
    "naf": NafUnet,
    "naf-edge": NafEdgeUnet,
}
PREDICTIONS = ("v", "x0")
SOURCES = ("y_E", "y_d")
ADAPTERS = ("paper", "shared")
DAMAGE_INPUTS = ("none", "adapters", "slot")
SIGMA, LOG_RANGE = 0.03, 4.0  # sigma lies within exp(+-4) of 0.03: from 0.14 grey levels to more than white


@dataclass(frozen=True)
class PredictorConfig:
    """The initial predictor E: a U-Net with a global residual.

    body: "conv" (plain pairs of convolutions, from a resolution of 1 / `finest` on), "rep" (Rep-edge blocks) or
    "naf-edge" (NAF-edge blocks), both from half resolution on, or "naf" (NAFNet, from full resolution on); widths,
    blocks and decoder as `UnetBody` takes them; expansion: hidden channels of a block per channel; lora: rank of the
    factors beside the convolutions of a predictor that is another task's but for these, 0 for a predictor of its own;
    damage: channels of the `DamageEstimator` of a calibrated predictor, 0 for a plain one, which has neither an amount
    nor a sigma.
    """

    body: str = "rep"
    widths: tuple[int, ...] = (32, 64)
    blocks: tuple[int, ...] = (1, 2)
    decoder: tuple[int, ...] = ()
    expansion: float = 1.0
    lora: int = 0
    finest: int = 2
    damage: int = 0

    def __post_init__(self) -> None:
        _check("body", self.body, BODIES)
        if self.lora < 0:
            raise UsageError(f"lora is the rank of a predictor's factors, 0 for none; got {self.lora}")
        if self.lora and self.body not in ("rep", "conv"):
            raise UsageError(
                f"lora={self.lora} was given for a predictor with the body '{self.body}'; only one with the body 'rep' "
                "or 'conv' can share its weights"
            )


@dataclass(frozen=True)
class DenoiserConfig:
    """The texture prior f_theta and the adapters around it; the first fields, and `finest`, as in `PredictorConfig`."""

    body: str = "rep"
    widths: tuple[int, ...] = (32, 64)
    blocks: tuple[int, ...] = (1, 1)
    decoder: tuple[int, ...] = ()
    expansion: float = 0.5
    frequencies: int = 64  # length of the sinusoids of the time
    embedding: int = 64  # length of the time and code embedding
    adapter_minimum: int = 8  # adapter width is max(minimum, channels / 4); just this of shared adapters
    finest: int = 2

    def __post_init__(self) -> None:
        _check("body", self.body, BODIES)


@dataclass(frozen=True)
class DtpmConfig:
    """All parts of one DTPM, and how they are put together.

    prediction: what the denoiser gives, "v" or the clean residual "x0" (what the nearest public relative predicts).
    structure_slot: what takes the place of the structure y_s in stage II: "y_E", which is most like it, or "y_d", the
    damaged photo, which the paper's figure draws (our inference that the figure simplifies; the adapters see y_E
    either way). code_of: the photo whose thumbnail the semantic code is of: "y_d" as drawn, or "y_E", the thumbnail
    after the predictor (our inference: better where damage changes what a thumbnail shows, as haze does). A semantic
    code of length 0 stands for none. adapters: "paper" (each convolves y_E on its own) or "shared" (`SharedAdapters`);
    damage_input: where shared adapters let the damage y_d - y_E in; the paper's design does not show it to the prior.
    knee: sigma at which the gain of the texture is half of its largest, 0 for a gain that does not depend on sigma.
    """

    predictor: PredictorConfig = field(default_factory=PredictorConfig)
    denoiser: DenoiserConfig = field(default_factory=DenoiserConfig)
    semantic: SemanticConfig = field(default_factory=SemanticConfig)
    schedule: str = "cosine"
    prediction: str = "v"
    structure_slot: str = "y_E"
    code_of: str = "y_d"
    adapters: str = "paper"
    damage_input: str = "none"
    knee: float = 0.0

    def __post_init__(self) -> None:
        _check("adapters", self.adapters, ADAPTERS)
        _check("damage_input", self.damage_input, DAMAGE_INPUTS)
        if self.adapters == "paper" and self.damage_input != "none":
            raise UsageError(
                f"damage_input is '{self.damage_input}', but the paper's adapters do not see the damage; "
                "choose adapters=shared or damage_input=none"
            )
        if self.knee and not self.predictor.damage:
            raise UsageError(f"knee is {self.knee:g}, but a predictor that is not calibrated gives no sigma; choose 0")
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


# What `mobile` was before it was calibrated; packs and checkpoints of it are still read.
FIRST_MOBILE = DtpmConfig()


def _conv(predictor: PredictorConfig, widths: tuple[int, ...], blocks: tuple[int, ...], adapter: int) -> DtpmConfig:
    """A calibrated model of plain convolutions, for processors of phones; widths, blocks: of its denoiser."""
    return DtpmConfig(
        predictor,
        DenoiserConfig("conv", widths, blocks, expansion=1.0, adapter_minimum=adapter, finest=4),
        NO_SEMANTIC,
        adapters="shared",
        damage_input="adapters",
        knee=0.03,
    )


# 24, 67 and 237 kMAC per pixel, one denoising step counted; most of it a quarter of the resolution, in many channels.
TINY = _conv(PredictorConfig("conv", (16, 64, 96), (1, 1, 2), (1, 1), damage=16), (48,), (1,), 16)
MOBILE = _conv(PredictorConfig("conv", (32, 96, 160), (1, 1, 2), (1, 1), damage=32), (64, 96), (1, 1), 32)
LARGE = _conv(PredictorConfig("conv", (64, 144, 256), (1, 3, 2), (1, 2), damage=32), (96,), (3,), 48)
# A predictor of the other edge block that takes about as long as that of FIRST_MOBILE.
NAF_EDGE = PredictorConfig("naf-edge", (32, 64), (2, 8), (2,))
# The predictor of `base` is our choice: half the width of `paper`'s, as its denoiser is.
CONFIGS = {
    "tiny": TINY,
    "mobile": MOBILE,
    "large": LARGE,
    "base": _naf(predictor=16, denoiser=32),
    "paper": _naf(predictor=32, denoiser=64),
}


def _body(
    config: PredictorConfig | DenoiserConfig, inputs: int, outputs: int, embedding: int | None = None
) -> UnetBody:
    args = (inputs, outputs, config.widths, config.blocks, config.expansion, embedding, config.decoder)
    if config.body == "conv":
        return ConvUnet(*args, finest=config.finest)
    return BODIES[config.body](*args)


class Estimate(NamedTuple):
    """What a calibrated predictor says of a damaged image.

    base: (N, 3, H, W) y_E, not clipped; sigma: (N, 1, H, W) in [0, 1] units, the standard deviation that it expects of
    x_0 - y_E at an amount of 1 or more; damage: (N, 1, H / 16, W / 16) in [0, 1] units, the root mean square that it
    expects of y_d - x_0 around each cell.
    """

    base: Tensor
    sigma: Tensor
    damage: Tensor


class DamageEstimator(nn.Module):
    """How much an image is damaged, from its own statistics: image (N, 3, H, W) -> (N, 1, H / 16, W / 16), above 0.

    Strided convolutions only; H and W are multiples of 16.
    """

    cell = 16  # pixels on a side
    unit = 0.05  # 13 grey levels: what a fresh network estimates
    log_range = 5.0  # estimates lie within exp(+-5) of it: from 0.1 grey levels on

    def __init__(self, channels: int) -> None:
        super().__init__()
        wide = 2 * channels
        self.layers = nn.Sequential(
            nn.Conv2d(3, channels, 4, stride=4),
            nn.ReLU(),
            conv3x3(channels, channels),
            nn.ReLU(),
            nn.Conv2d(channels, wide, 2, stride=2),
            nn.ReLU(),
            conv3x3(wide, wide),
            nn.ReLU(),
            nn.Conv2d(wide, wide, 2, stride=2),
            nn.ReLU(),
            nn.Conv2d(wide, 1, 1),
        )

    def forward(self, image: Tensor) -> Tensor:
        logarithm = self.layers(image - 0.5)
        return self.unit * torch.exp(logarithm.clamp(-self.log_range, self.log_range))


class Predictor(nn.Module):
    """y_E = y_d + net(y_d): the deterministic first estimate (paper: "initial predictor").

    With `config.damage` it is calibrated. It then estimates the damage d of the image and restores under it, R(y_d, d),
    with one more output for the logarithm of sigma. An `amount` a in 0..2 says how much of the damage to remove:

        y_E = y_d + min(a, 1) (R(y_d, max(a, 1) d) - y_d),

    so 0 gives the image itself, 1 the predictor's own estimate, and more than 1 what it would do to a worse image.
    """

    def __init__(self, config: PredictorConfig) -> None:
        super().__init__()
        self.config = config
        self.calibrated = config.damage > 0
        self.unet = _body(config, 3, 4 if self.calibrated else 3)
        self.multiple_of = self.unet.multiple_of
        if self.calibrated:
            self.damage = DamageEstimator(config.damage)
            self.condition = nn.Conv2d(1, config.widths[0], 1)
            _zero(self.unet.end)  # at first the image itself, and a sigma of SIGMA
            self.multiple_of = max(self.multiple_of, DamageEstimator.cell)
        if config.lora:
            add_lora(self, config.lora)

    def own_parts(self) -> list[str]:
        """The parts that are the task's own: all of it (""), or the factors where the rest is another task's."""
        return factor_names(self) or [""]

    def forward(self, image: Tensor, amount: Tensor | None = None) -> Tensor:
        """image: (N, 3, H, W) in [0, 1]. Returns y_E, same shape, not clipped; amount as in `estimate`."""
        if self.calibrated:
            return self.estimate(image, amount).base
        return image + self.unet(image - 0.5)

    def estimate(self, image: Tensor, amount: Tensor | None = None) -> Estimate:
        """y_E with its sigma and the estimated damage; of a calibrated predictor only.

        image: (N, 3, H, W) in [0, 1], sides multiples of `multiple_of`. amount: (N,) in 0..2, None for 1.
        """
        damage = self.damage(image)
        if amount is None:
            return Estimate(*self.restore(image, damage), damage)
        amount = amount.reshape(-1, 1, 1, 1)
        base, sigma = self.restore(image, damage * amount.clamp(min=1))
        return Estimate(image + amount.clamp(max=1) * (base - image), sigma, damage)

    def restore(self, image: Tensor, damage: Tensor) -> tuple[Tensor, Tensor]:
        """R(y_d, d) and its sigma, (N, 3, H, W) and (N, 1, H, W). damage: (N, 1, H / 16, W / 16) in [0, 1] units."""
        scale = DamageEstimator.cell // self.unet.finest
        seen = F.interpolate(damage / DamageEstimator.unit, scale_factor=float(scale), mode="bilinear")
        change, log_sigma = self.unet(image - 0.5, entry=self.condition(seen)).split([3, 1], dim=1)
        return image + change, SIGMA * torch.exp(log_sigma.clamp(-LOG_RANGE, LOG_RANGE))


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
        _zero(self.leave)

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

    def guidance(self, image: Tensor, base: Tensor) -> Tensor:
        """What each adapter sees: y_E."""
        del image
        return base

    def entry(self, image: Tensor, base: Tensor) -> None:
        """What is added to the first features: nothing."""
        del image, base


class SharedAdapter(nn.Module):
    """h' = h + leave(relu(enter(h) + guide(g))), all 1x1, where g are features that the adapters of a model share.

    `leave` starts at zero, as in `GuidanceAdapter`.
    """

    def __init__(self, channels: int, width: int, octave: int) -> None:
        super().__init__()
        self.octave = octave
        self.enter = nn.Conv2d(channels, width, 1)
        self.guide = nn.Conv2d(width, width, 1, bias=False)
        self.leave = nn.Conv2d(width, channels, 1)
        _zero(self.leave)

    def forward(self, h: Tensor, guidance: Sequence[Tensor]) -> Tensor:
        """h: (N, C, H, W); guidance: the features per octave, finest first."""
        return h + self.leave(F.relu(self.enter(h) + self.guide(guidance[self.octave])))


class SharedAdapters(nn.Module):
    """Adapters whose view of y_E, and of the damage y_d - y_E, is computed once, in as many channels as is fast.

    Ours: the paper's adapters each convolve y_E on their own, eight channels at a time. damage: where y_d - y_E enters,
    as weights that start at zero: "adapters" (beside y_E), "slot" (beside the structure), or "none".
    """

    def __init__(self, denoiser: Denoiser, damage: str) -> None:
        super().__init__()
        width, unet = denoiser.config.adapter_minimum, denoiser.unet
        octaves = [(channels, (scale // unet.finest).bit_length() - 1) for channels, scale in unet.levels()]
        self.blocks = nn.ModuleList(SharedAdapter(channels, width, octave) for channels, octave in octaves)
        self.octaves = 1 + max(octave for _, octave in octaves)
        cells, self.finest, self.where = 3 * unet.finest**2, unet.finest, damage
        self.first, self.second = nn.Conv2d(cells, width, 1), conv3x3(width, width)
        if damage != "none":
            self.damage = nn.Conv2d(cells, width if damage == "adapters" else denoiser.config.widths[0], 1, bias=False)
            _zero(self.damage)

    def __iter__(self) -> Iterator[nn.Module]:
        return iter(self.blocks)

    def __len__(self) -> int:
        return len(self.blocks)

    def guidance(self, image: Tensor, base: Tensor) -> list[Tensor]:
        """The features of y_E per octave, finest first; image: y_d, base: y_E, both (N, 3, H, W)."""
        x = self.first(F.pixel_unshuffle(5 * (base - 0.5), self.finest))
        if self.where == "adapters":
            x = x + self._of_damage(image, base)
        octaves = [F.relu(self.second(F.relu(x)))]
        for _ in range(1, self.octaves):
            octaves.append(F.avg_pool2d(octaves[-1], 2))
        return octaves

    def entry(self, image: Tensor, base: Tensor) -> Tensor | None:
        """What is added to the denoiser's first features, None for nothing."""
        return self._of_damage(image, base) if self.where == "slot" else None

    def _of_damage(self, image: Tensor, base: Tensor) -> Tensor:
        return self.damage(F.pixel_unshuffle(10 * (image - base), self.finest))


def _zero(layer: nn.Module) -> None:
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)


class Denoiser(nn.Module):
    """The texture prior f_theta(x_t, y_s, z, t): predicts v, or x0, of the scaled residual.

    Our reading: the structure is concatenated to the state, the code enters the middle and the decoder half by FiLM.
    """

    def __init__(self, config: DenoiserConfig, code: int) -> None:
        super().__init__()
        self.config = config
        size = config.embedding
        self.unet = _body(config, 6, 3, embedding=size)
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
        """x: (N, 3, H, W) state; structure: (N, 3, H, W) y_s, y_E or y_d; code: (N, K) or None; t: (N,) in [0, 1].

        image, base: y_d and y_E for the adapters, None where they are the structure. Returns the prediction,
        (N, 3, H, W). A zero code stands for "no code" (it is dropped at random in training).
        """
        return guided(self, x, structure, self.embeddings(code, t), adapters, image, base)

    def embeddings(self, code: Tensor | None, t: Tensor) -> tuple[Tensor, Tensor]:
        """What conditions the encoder, and what the middle and the decoder; `activated`, (N, E)."""
        time = self.time(sinusoid(t, self.config.frequencies))
        decoder = time if self.code is None else time + self.code(code)
        return self.unet.activated(time), self.unet.activated(decoder)


def guided(
    denoiser: Any,
    x: Tensor,
    structure: Tensor,
    embeddings: tuple[Tensor | None, Tensor | None],
    adapters: Adapters | SharedAdapters | None,
    image: Tensor | None,
    base: Tensor | None,
) -> Tensor:
    """The U-Net of a `Denoiser` (or of one at a fixed time), as the adapters guide it; arguments as there."""
    # 5 brings the structure, centred, to about the variance of the state.
    joined = torch.cat([x, (structure - 0.5) * 5], dim=1)
    if adapters is None:
        return denoiser.unet(joined, *embeddings)
    base = structure if base is None else base
    image = base if image is None else image
    guidance, entry = adapters.guidance(image, base), adapters.entry(image, base)
    return denoiser.unet(joined, *embeddings, adapters, guidance, entry)


class Composed(nn.Module):
    """What a DTPM does around its sampler: the prediction before, the composition after."""

    config: DtpmConfig
    predictor: Predictor
    residual_scale: Tensor

    def predict(self, image: Tensor, amount: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """y_E (N, 3, H, W), and the scale of the residual: sigma (N, 1, H, W), or one number.

        amount: (N,), of a calibrated predictor only.
        """
        if not self.predictor.calibrated:
            return self.predictor(image), self.residual_scale
        estimate = self.predictor.estimate(image, amount)
        return estimate.base, estimate.sigma

    def amplitude(self, scale: Tensor, amount: Tensor | None = None) -> Tensor:
        """The texture's standard deviation at a gain of 1, from what `predict` gave; amounts below 1 take their share.

        Of a calibrated model sigma^3 / (sigma^2 + knee^2): nearly sigma where much was lost, nearly 0 on good photos.
        A constant gain g would cost 10 log10(1 + g^2) dB on every photo.
        """
        knee = self.config.knee
        if knee:
            scale = scale * (scale.square() / (scale.square() + knee**2))
        return scale if amount is None else amount.reshape(-1, 1, 1, 1).clamp(max=1) * scale

    def compose(
        self, base: Tensor, scale: Tensor, residual: Tensor, strength: Tensor, amount: Tensor | None = None
    ) -> Tensor:
        """y_E + strength * amplitude * residual, clipped; base, scale: what `predict` gave; strength, amount: (N,)."""
        return (base + strength.reshape(-1, 1, 1, 1) * self.amplitude(scale, amount) * residual).clamp(0, 1)


class Dtpm(Composed):
    """A complete DTPM for one task: predictor, frozen prior, adapters, and the scale of the residual.

    With a calibrated predictor the scale is its sigma, pixel by pixel; else it is one number.
    """

    def __init__(self, config: DtpmConfig) -> None:
        super().__init__()
        self.config = config
        self.predictor = Predictor(config.predictor)
        self.denoiser = Denoiser(config.denoiser, config.semantic.code)
        shared = config.adapters == "shared"
        self.adapters = SharedAdapters(self.denoiser, config.damage_input) if shared else Adapters(self.denoiser)
        self.register_buffer("residual_scale", torch.tensor(0.05))
        self.multiple_of = max(self.predictor.multiple_of, self.denoiser.unet.multiple_of)

    def predictor_parts(self) -> list[str]:
        """The submodules of the predictor that are the task's own."""
        return [f"predictor.{name}".rstrip(".") for name in self.predictor.own_parts()]

    def encode(self, encoder: nn.Module, thumbnail: Tensor) -> Tensor:
        """The semantic code (N, K) of the damaged photos with these thumbnails, (N, 3, S, S) in [0, 1].

        With code_of "y_E", S is a multiple of `predictor.multiple_of`.
        """
        if self.config.code_of == "y_E":
            thumbnail = self.predictor(thumbnail).clamp(0, 1)
        return encoder(thumbnail)

    def denoise(self, x: Tensor, image: Tensor, base: Tensor, code: Tensor | None, t: Tensor) -> Tensor:
        """One call of the guided prior. image: y_d, base: y_E, both (N, 3, H, W); the rest as in `Denoiser`."""
        structure = image if self.config.structure_slot == "y_d" else base
        return self.denoiser(x, structure, code, t, self.adapters, image, base)

    def residual(
        self,
        image: Tensor,
        base: Tensor,
        code: Tensor | None,
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
        code: Tensor | None,
        noise: Tensor,
        strength: Tensor,
        levels: Sequence[float],
        times: Sequence[float],
        amount: Tensor | None = None,
    ) -> Tensor:
        """Restore image (N, 3, H, W) in [0, 1]: y_E + strength * amplitude * residual, clipped to [0, 1].

        H and W are multiples of `multiple_of`; strength: (N,) in [0, 1], the gain of the texture; amount: (N,).
        """
        base, scale = self.predict(image, amount)
        residual = self.residual(image, base, code, noise, levels, times)
        return self.compose(base, scale, residual, strength, amount)

    def restore(
        self,
        image: Tensor,
        code: Tensor | None,
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

    def __init__(self, adapters: Adapters | SharedAdapters) -> None:
        super().__init__()
        self.adapters = adapters

    def forward(self, base: Tensor, *features: Tensor) -> list[Tensor]:
        guidance = self.adapters.guidance(base, base)
        return [adapter(h, guidance) for adapter, h in zip(self.adapters, features, strict=True)]


def cost_parts(config: DtpmConfig) -> dict[str, tuple[nn.Module, tuple[Any, ...]]]:
    """Each part with inputs to count it on: of one image of 256 x 256 pixels, on the current default device."""
    model = Dtpm(config)
    semantic = config.semantic
    image, code = torch.empty(1, 3, 256, 256), torch.empty(1, semantic.code) if semantic.code else None
    features = [torch.empty(1, channels, 256 // s, 256 // s) for channels, s in model.denoiser.unet.levels()]
    parts: dict[str, tuple[nn.Module, tuple[Any, ...]]] = {
        "denoiser": (model.denoiser, (image, image, code, torch.empty(1))),
        "adapters": (_Guidance(model.adapters), (image, *features)),
        "predictor": (model.predictor, (image,)),
    }
    if semantic.code:
        parts["semantic"] = (SemanticEncoder(semantic), (torch.empty(1, 3, semantic.size, semantic.size),))
    return parts
