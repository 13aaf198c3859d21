"""DTPM as a pack: encode, predict and denoise, and all of it in one graph."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor, nn

from ..core.degradations import TASKS
from ..core.errors import UsageError
from ..core.models import checkpoints
from ..core.models.deploy.rewrite import rewritten
from ..core.models.dtpm import Composed, Dtpm, DtpmConfig
from ..core.models.semantic import NoEncoder, SemanticConfig, encoder_of, open_semantic, semantic_file
from ..core.pack.manifest import Conditions, Size
from ..core.pack.size import TileWindow
from ..core.pack.systems import IMAGE, MAP, SCALAR, ArraySpec
from ..core.sampling.schedule import SCHEDULES, trailing
from ..core.sampling.steps import GAIN, own_steps, sampled_deviation
from .graphs import Graph, receptive_field
from .source import FUSED_STEPS, WINDOW, About, Opened, digest

__all__ = ["DtpmSource", "Sampling", "dtpm_graphs"]

STEPS = 4  # of a model that has none of its own


class Sampling(NamedTuple):
    """How the residual is sampled and used: abar per step and a final 1.0, t per step, texture gain at strength 1."""

    levels: tuple[float, ...]
    times: tuple[float, ...]
    gain: float


class _Encode(nn.Module):
    def __init__(self, model: Dtpm, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.predictor = model.predictor if model.config.code_of == "y_E" else None

    def forward(self, thumbnail: Tensor) -> Tensor:
        if self.predictor is not None:
            thumbnail = self.predictor(thumbnail).clamp(0, 1)
        return self.encoder(thumbnail)


class _Predict(Composed):
    """What comes before the sampler; a calibrated predictor gives the amplitude of the texture at strength 1 too."""

    def __init__(self, model: Dtpm, gain: float) -> None:
        super().__init__()
        self.config, self.predictor, self.gain = model.config, model.predictor, gain

    def forward(self, image: Tensor, amount: Tensor | None = None) -> Tensor | tuple[Tensor, Tensor]:
        if not self.predictor.calibrated:
            return self.predictor(image)
        base, sigma = self.predict(image, amount)
        return base, self.gain * self.amplitude(sigma, amount)


class _Denoise(nn.Module):
    """The guided prior. image: where it sees the damaged photo; code: where it has one."""

    def __init__(self, model: Dtpm) -> None:
        super().__init__()
        self.denoiser, self.adapters = model.denoiser, model.adapters
        self.slot = model.config.structure_slot

    def forward(
        self, x: Tensor, base: Tensor, t: Tensor, image: Tensor | None = None, code: Tensor | None = None
    ) -> Tensor:
        structure = image if image is not None and self.slot == "y_d" else base
        return self.denoiser(x, structure, code, t, self.adapters, image, base)


class _Fused(nn.Module):
    def __init__(self, model: Dtpm, sampling: Sampling) -> None:
        super().__init__()
        self.model, self.sampling = model, sampling

    def forward(
        self, image: Tensor, noise: Tensor, strength: Tensor, amount: Tensor | None = None, code: Tensor | None = None
    ) -> Tensor:
        levels, times, gain = self.sampling
        return self.model(image, code, noise, gain * strength, levels, times, amount)


def dtpm_graphs(model: Dtpm, encoder: nn.Module, sampling: Sampling) -> dict[str, Graph]:
    """predict, denoise, encode where there is a semantic code and, up to FUSED_STEPS, fused, ready to be traced.

    encoder: with a `config`, as `encoder_of` gives it.
    """
    model, encoder = rewritten(model), rewritten(encoder)
    config, semantic = model.config, model.config.semantic
    code = {"code": ArraySpec("float32", (1, semantic.code))} if semantic.code else {}
    amount, amplitude = ({"amount": SCALAR}, {"amplitude": MAP}) if model.predictor.calibrated else ({}, {})
    image = {"image": IMAGE} if config.structure_slot == "y_d" or config.damage_input != "none" else {}
    graphs = {
        "predict": Graph(_Predict(model, sampling.gain), {"image": IMAGE, **amount}, {"base": IMAGE, **amplitude}),
        "denoise": Graph(
            _Denoise(model), {"x": IMAGE, **image, "base": IMAGE, **code, "t": SCALAR}, {config.prediction: IMAGE}
        ),
    }
    if code:
        thumbnail = ArraySpec("float32", (1, 3, semantic.size, semantic.size))
        graphs = {"encode": Graph(_Encode(model, encoder), {"thumbnail": thumbnail}, code), **graphs}
    if len(sampling.times) <= FUSED_STEPS:
        inputs = {"image": IMAGE, "noise": IMAGE, **amount, **code, "strength": SCALAR}
        graphs["fused"] = Graph(_Fused(model, sampling), inputs, {"restored": IMAGE})
    return graphs


@dataclass(frozen=True)
class DtpmSource:
    """A "dtpm" checkpoint and its semantic encoder (a file, or timm:MODEL=FILE; "" for a model without a code).

    steps: of the sampler; 0 for those of a student, and for 4 of a model that is none. gain: share of the residual
    that is added at strength 1, where a calibrated model has much to add; None for 0.5. window: the tiles of a model
    that sees all of its tile (NAFNet blocks).
    """

    model: Path
    semantic: str = ""
    steps: int = 0
    gain: float | None = None
    window: TileWindow = WINDOW

    def open(self) -> Opened:
        """As in `Source`."""
        checkpoint = checkpoints.load(self.model, "dtpm")
        model = Dtpm(checkpoints.from_dict(DtpmConfig, checkpoint.config))
        checkpoint.fill(model)
        model.eval()
        encoder = self._encoder(model.config.semantic)
        sampling = self._sampling(model, checkpoint.facts)
        graphs = dtpm_graphs(model, encoder, sampling)
        task = checkpoint.facts["task"]
        facts = _facts(model, sampling, task) | {"receptive_field": self._reach(model, graphs, len(sampling.times))}
        return Opened(graphs, facts, _about(task, model.config, len(sampling.times)), TASKS[task])

    def task(self) -> str:
        """What the checkpoint was trained for."""
        return str(checkpoints.load(self.model, "dtpm").facts["task"])

    def digest(self) -> str:
        """As in `Source`."""
        return digest(self.model, *([semantic_file(self.semantic)] if self.semantic else []))

    def _encoder(self, config: SemanticConfig) -> nn.Module:
        """The encoder that the model was trained with; UsageError for another one."""
        if config.code == 0:
            if self.semantic:
                raise UsageError(
                    f"{self.semantic} was given for a DTPM that has no semantic code; leave --semantic out"
                )
            return NoEncoder()
        if not self.semantic:
            raise UsageError("a DTPM checkpoint was given without its semantic encoder; add --semantic FILE")
        encoder = encoder_of(open_semantic(self.semantic))
        if encoder.config != config:
            raise UsageError(f"{self.semantic} is not the encoder that this DTPM was trained with; give that one")
        return encoder

    def _sampling(self, model: Dtpm, facts: Mapping[str, Any]) -> Sampling:
        own, bars = own_steps(facts), SCHEDULES[model.config.schedule]()
        steps = self.steps or (own.step_count if own else STEPS)
        if not 1 <= steps <= len(bars):
            raise UsageError(f"{steps} sampling steps were given; choose 1 .. {len(bars)}")
        if own and steps != own.step_count:
            raise UsageError(f"this model is a student that samples in {own.step_count} steps; {steps} were given")
        levels, times = own or trailing(steps, bars)
        gain = GAIN if self.gain is None else self.gain
        return Sampling(tuple(levels), tuple(times), gain / sampled_deviation(facts, steps))

    def _reach(self, model: Dtpm, graphs: Mapping[str, Graph], steps: int) -> Mapping[str, int | TileWindow]:
        """The fused reach is the sum of its parts' (an upper bound)."""
        if "naf" in (model.config.predictor.body, model.config.denoiser.body):
            return {name: self.window for name in graphs if name != "encode"}
        reach = {name: receptive_field(graphs[name], model.multiple_of) for name in ("predict", "denoise")}
        return reach | ({"fused": reach["predict"] + steps * reach["denoise"]} if "fused" in graphs else {})


def _facts(model: Dtpm, sampling: Sampling, task: str) -> dict[str, Any]:
    calibrated, semantic = model.predictor.calibrated, model.config.semantic
    return {
        "model": "dtpm",
        "tasks": (task,),
        "size": Size(multiple_of=model.multiple_of, minimum=model.multiple_of),
        "sampler": "ddim",
        "predicts": model.config.prediction,
        "start": "noise",
        "levels": sampling.levels,
        "times": sampling.times,
        "state": IMAGE.shape,
        # Of a calibrated model both are in the amplitude, which predict gives.
        "residual_scale": 1.0 if calibrated else float(model.residual_scale),
        "gain": 1.0 if calibrated else sampling.gain,
        "conditions": Conditions(thumbnail=semantic.size) if semantic.code else None,
    }


def _about(task: str, config: DtpmConfig, steps: int) -> About:
    coded = bool(config.semantic.code)
    amount = (
        " The predictor estimates the damage: amount 0 gives the photo as it is, 1 removes what it estimates, up to 2 "
        "removes more. Strong damage gets much texture, a good photo next to none."
    )
    return About(
        what=f"A DTPM restorer for the task {task}: an initial predictor, a frozen diffusion prior of image "
        f"texture with guidance adapters{', and a semantic encoder' if coded else ''}. {steps} deterministic steps",
        strength="Strength 0 gives the predictor alone (highest PSNR, softest), strength 1 adds texture. The "
        "texture is plausible, not measured: do not use it as evidence of what was in the scene."
        f"{amount if config.predictor.damage else ''}",
        training="Initial predictor and adapters: pairs made from clean photos by the degradations of the task. "
        f"Prior{' and semantic encoder' if coded else ''}: the clean photos alone.",
        limits="Trained on about 75 million pixels of daylight photos: faces and text get no special care. Noise"
        " that is correlated between pixels (from strong in-camera processing) is seen as texture.",
    )
