"""DTPM: Learning Diffusion Texture Priors for Image Restoration (CVPR 2024).

Stage I learns the texture of clean photos: the residual x_0 - y_s between a photo and its texture-free structure,
scaled to unit variance, diffused under a semantic code. Stage II freezes that prior and adds, per task, an initial
predictor E (y_E = E(y_d)) and a conditional guidance adapter after every block. The restored image is
y_E + s * residual. The networks: `initial_predictor`, `texture_prior`; here they are put together.

The paper's code is not public: where it is silent the docstrings say "our reading". Images are (N, 3, H, W) in
[0, 1]; the sampled state is the residual divided by its scale, about unit variance.

With a *calibrated* predictor, which is ours and not the paper's, the residual is divided by the predictor's map sigma
instead of one number, and sigma decides how much texture is added: much on a ruined photo, none on a good one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import UnknownNameError, UsageError
from ..sampling.samplers import ddim
from ..sampling.schedule import SCHEDULES
from .initial_predictor import Predictor, PredictorConfig
from .semantic_code import NO_SEMANTIC, SemanticConfig, SemanticEncoder
from .texture_prior import Adapters, DenoiserConfig, SharedAdapters, TextureDenoiser

__all__ = ["CONFIGS", "FIRST_MOBILE", "MOBILE", "Composed", "Dtpm", "DtpmConfig", "cost_parts"]


@dataclass(frozen=True)
class DtpmConfig:
    """All parts of one DTPM, and how they are put together.

    Raises UnknownNameError and UsageError for options that do not exist or do not fit one another.
    """

    predictor: PredictorConfig = field(default_factory=PredictorConfig)
    denoiser: DenoiserConfig = field(default_factory=DenoiserConfig)
    semantic: SemanticConfig = field(default_factory=SemanticConfig)  # a code of length 0 stands for no semantic code
    schedule: str = "cosine"
    # The output of the denoiser: "v", or the clean residual "x0" (as the nearest public relative does).
    prediction: str = "v"
    # The image in the place of the structure y_s in stage II: "y_E", which is most like it, or "y_d", the damaged
    # photo, which the paper's figure draws (our inference: the figure simplifies; the adapters get y_E either way).
    structure_slot: str = "y_E"
    # The photo whose thumbnail is encoded: "y_d" as drawn, or "y_E", the thumbnail after the predictor (our inference:
    # better where damage changes what a thumbnail shows, as haze does).
    code_of: str = "y_d"
    adapters: str = "paper"  # each convolves y_E on its own; or "shared": `SharedAdapters`
    damage_input: str = "none"  # where shared adapters let y_d - y_E in; the paper's design does not
    knee: float = 0.0  # sigma at which the gain of the texture is half of its largest; 0: the gain is constant

    def __post_init__(self) -> None:
        self._check("adapters", ("paper", "shared"))
        self._check("damage_input", ("none", "adapters", "slot"))
        if self.adapters == "paper" and self.damage_input != "none":
            raise UsageError(
                f"damage_input is '{self.damage_input}', but the paper's adapters do not see the damage; "
                "choose adapters=shared or damage_input=none"
            )
        if self.knee and not self.predictor.damage:
            raise UsageError(f"knee is {self.knee:g}, but a predictor that is not calibrated gives no sigma; choose 0")
        self._check("schedule", SCHEDULES)
        self._check("prediction", ("v", "x0"))
        self._check("structure_slot", ("y_E", "y_d"))
        self._check("code_of", ("y_E", "y_d"))

    def _check(self, field_name: str, valid: Iterable[str]) -> None:
        if getattr(self, field_name) not in valid:
            raise UnknownNameError(field_name, getattr(self, field_name), valid)


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


# The size `mobile` before it was calibrated; its packs and checkpoints can still be read.
FIRST_MOBILE = DtpmConfig()


def _conv(predictor: PredictorConfig, widths: tuple[int, ...], blocks: tuple[int, ...], adapter: int) -> DtpmConfig:
    """A calibrated model of plain convolutions, for phone processors; widths, blocks: of its denoiser."""
    return DtpmConfig(
        predictor,
        DenoiserConfig("conv", widths, blocks, expansion=1.0, adapter_minimum=adapter, finest=4),
        NO_SEMANTIC,
        adapters="shared",
        damage_input="adapters",
        knee=0.03,
    )


# 24, 67 and 237 kMAC per pixel with one denoising step, most of it at a quarter of the resolution in many channels.
MOBILE = _conv(PredictorConfig("conv", (32, 96, 160), (1, 1, 2), (1, 1), damage=32), (64, 96), (1, 1), 32)
CONFIGS = {
    "tiny": _conv(PredictorConfig("conv", (16, 64, 96), (1, 1, 2), (1, 1), damage=16), (48,), (1,), 16),
    "mobile": MOBILE,
    "large": _conv(PredictorConfig("conv", (64, 144, 256), (1, 3, 2), (1, 2), damage=32), (96,), (3,), 48),
    # The predictor of `base` is our choice: half the width of `paper`'s, as its denoiser is.
    "base": _naf(predictor=16, denoiser=32),
    "paper": _naf(predictor=32, denoiser=64),
}


class Composed(nn.Module):
    """The parts of a DTPM around its sampler: the prediction before it, the composition after it."""

    config: DtpmConfig
    predictor: Predictor
    residual_scale: Tensor

    def predict(self, image: Tensor, amount: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """y_E (N, 3, H, W) of y_d, and the scale of the residual: sigma (N, 1, H, W), or one number.

        amount: (N,) in 0..2; only a calibrated predictor takes it into account.
        """
        if not self.predictor.calibrated:
            return self.predictor(image), self.residual_scale
        estimate = self.predictor.estimate(image, amount)
        return estimate.base, estimate.sigma

    def amplitude(self, scale: Tensor, amount: Tensor | None = None) -> Tensor:
        """The texture's standard deviation at a gain of 1, from the scale that `predict` returned.

        For a calibrated model sigma^3 / (sigma^2 + knee^2): nearly sigma where much was lost, nearly 0 on good photos.
        A constant gain g would cost 10 log10(1 + g^2) dB on every photo. An amount below 1 multiplies it.
        """
        knee = self.config.knee
        if knee:
            scale = scale * (scale.square() / (scale.square() + knee**2))
        return scale if amount is None else amount.reshape(-1, 1, 1, 1).clamp(max=1) * scale

    def compose(
        self, base: Tensor, scale: Tensor, residual: Tensor, strength: Tensor, amount: Tensor | None = None
    ) -> Tensor:
        """y_E + strength * amplitude * residual, clipped; base, scale: from `predict`; strength, amount: (N,)."""
        return (base + strength.reshape(-1, 1, 1, 1) * self.amplitude(scale, amount) * residual).clamp(0, 1)


class Dtpm(Composed):
    """A complete DTPM for one task: predictor, frozen prior, adapters, and the scale of the residual.

    With a calibrated predictor the scale is its sigma, per pixel; otherwise it is one number.
    """

    def __init__(self, config: DtpmConfig) -> None:
        super().__init__()
        self.config = config
        self.predictor = Predictor(config.predictor)
        self.denoiser = TextureDenoiser(config.denoiser, config.semantic.code)
        shared = config.adapters == "shared"
        self.adapters = SharedAdapters(self.denoiser, config.damage_input) if shared else Adapters(self.denoiser)
        self.register_buffer("residual_scale", torch.tensor(0.05))
        self.multiple_of = max(self.predictor.multiple_of, self.denoiser.unet.multiple_of)

    def predictor_parts(self) -> list[str]:
        """Names of the submodules of the predictor that belong to the task."""
        return [f"predictor.{name}".rstrip(".") for name in self.predictor.own_parts()]

    def encode(self, encoder: nn.Module, thumbnail: Tensor) -> Tensor:
        """The semantic code (N, K) of the damaged photos with these thumbnails, (N, 3, S, S) in [0, 1].

        With code_of "y_E", S is a multiple of `predictor.multiple_of`.
        """
        if self.config.code_of == "y_E":
            thumbnail = self.predictor(thumbnail).clamp(0, 1)
        return encoder(thumbnail)

    def denoise(self, x: Tensor, image: Tensor, base: Tensor, code: Tensor | None, t: Tensor) -> Tensor:
        """One call of the guided prior. image: y_d, base: y_E, both (N, 3, H, W); the rest as in `TextureDenoiser`."""
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
        """Restore images y_d, (N, 3, H, W) in [0, 1]: y_E + strength * amplitude * residual, clipped to [0, 1].

        Sides are multiples of `multiple_of`. code: (N, K), from `encode`; None for a model without a semantic code.
        noise: (N, 3, H, W), standard normal. strength: (N,) in [0, 1], the gain of the texture. levels: alpha_bar per
        step, then 1.0. times: one per step, in [0, 1]. amount: (N,) in 0..2, how much of the damage to remove; None
        for 1.
        """
        base, scale = self.predict(image, amount)
        residual = self.residual(image, base, code, noise, levels, times)
        return self.compose(base, scale, residual, strength, amount)


class _Guidance(nn.Module):
    """All adapters in one module, each on a feature of its own, to count their cost."""

    def __init__(self, adapters: Adapters | SharedAdapters) -> None:
        super().__init__()
        self.adapters = adapters

    def forward(self, base: Tensor, *features: Tensor) -> list[Tensor]:
        guidance = self.adapters.guidance(base, base)
        return [adapter(h, guidance) for adapter, h in zip(self.adapters, features, strict=True)]


def cost_parts(config: DtpmConfig) -> dict[str, tuple[nn.Module, tuple[Any, ...]]]:
    """Each part with inputs to count its cost on: one image of 256 x 256 pixels, on the current default device."""
    model = Dtpm(config)
    semantic = config.semantic
    image, code = torch.empty(1, 3, 256, 256), torch.empty(1, semantic.code) if semantic.code else None
    features = [torch.empty(1, channels, 256 // s, 256 // s) for channels, s in model.denoiser.unet.features]
    parts: dict[str, tuple[nn.Module, tuple[Any, ...]]] = {
        "denoiser": (model.denoiser, (image, image, code, torch.empty(1))),
        "adapters": (_Guidance(model.adapters), (image, *features)),
        "predictor": (model.predictor, (image,)),
    }
    if semantic.code:
        parts["semantic"] = (SemanticEncoder(semantic), (torch.empty(1, 3, semantic.size, semantic.size),))
    return parts
