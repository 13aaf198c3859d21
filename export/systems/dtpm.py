"""DTPM as a pack: encode, predict and denoise, and all of them in one graph."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor, nn

from ...core.degradations import TASKS
from ...core.errors import UsageError
from ...core.models import checkpoints
from ...core.models.deploy.rewrite import rewritten
from ...core.models.dtpm import Composed, Dtpm, DtpmConfig
from ...core.models.semantic_code import NoEncoder, SemanticConfig, encoder_of, open_semantic, semantic_file
from ...core.pack.manifest import Conditions, Size, TileWindow
from ...core.pack.systems import IMAGE, MAP, SCALAR, ArraySpec
from ...core.sampling.schedule import SCHEDULES, trailing
from ...core.sampling.steps import GAIN, own_steps, sampled_deviation
from ..limits import FUSED_STEPS
from .source import DEFAULT_WINDOW, CheckpointSource, ModelGraph, ModelWords, Opened, receptive_field

__all__ = ["SOURCE", "DtpmSource", "Sampling", "dtpm_graphs"]

_STEPS = 4  # of a model that has none of its own


class Sampling(NamedTuple):
    """How the residual is sampled and used."""

    levels: tuple[float, ...]  # alpha_bar per step, and a final 1.0
    times: tuple[float, ...]  # t per step
    gain: float  # of the texture at strength 1


class _DtpmEncode(nn.Module):
    def __init__(self, model: Dtpm, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.predictor = model.predictor if model.config.code_of == "y_E" else None

    def forward(self, thumbnail: Tensor) -> Tensor:
        if self.predictor is not None:
            thumbnail = self.predictor(thumbnail).clamp(0, 1)
        return self.encoder(thumbnail)


class _DtpmPredict(Composed):
    """What comes before the sampler; a calibrated predictor also returns the amplitude of the texture at strength 1."""

    def __init__(self, model: Dtpm, gain: float) -> None:
        super().__init__()
        self.config, self.predictor, self.gain = model.config, model.predictor, gain

    def forward(self, image: Tensor, amount: Tensor | None = None) -> Tensor | tuple[Tensor, Tensor]:
        if not self.predictor.calibrated:
            return self.predictor(image)
        base, sigma = self.predict(image, amount)
        return base, self.gain * self.amplitude(sigma, amount)


class _DtpmDenoise(nn.Module):
    """The guided prior; it takes `image` if it sees the damaged photo, `code` if it has a semantic code."""

    def __init__(self, model: Dtpm) -> None:
        super().__init__()
        self.denoiser, self.adapters = model.denoiser, model.adapters
        self.slot = model.config.structure_slot

    def forward(
        self, x: Tensor, base: Tensor, t: Tensor, image: Tensor | None = None, code: Tensor | None = None
    ) -> Tensor:
        structure = image if image is not None and self.slot == "y_d" else base
        return self.denoiser(x, structure, code, t, self.adapters, image, base)


class _DtpmFused(nn.Module):
    def __init__(self, model: Dtpm, sampling: Sampling) -> None:
        super().__init__()
        self.model, self.sampling = model, sampling

    def forward(
        self, image: Tensor, noise: Tensor, strength: Tensor, amount: Tensor | None = None, code: Tensor | None = None
    ) -> Tensor:
        levels, times, gain = self.sampling
        return self.model(image, code, noise, gain * strength, levels, times, amount)


def dtpm_graphs(model: Dtpm, encoder: nn.Module, sampling: Sampling) -> dict[str, ModelGraph]:
    """predict, denoise, encode if there is a semantic code and, up to FUSED_STEPS, fused, ready to be traced.

    `encoder` has a `config`, as those of `encoder_of`.
    """
    model, encoder = rewritten(model), rewritten(encoder)
    config, semantic = model.config, model.config.semantic
    code = {"code": ArraySpec("float32", (1, semantic.code))} if semantic.code else {}
    amount, amplitude = ({"amount": SCALAR}, {"amplitude": MAP}) if model.predictor.calibrated else ({}, {})
    image = {"image": IMAGE} if config.structure_slot == "y_d" or config.damage_input != "none" else {}
    predict = ModelGraph(_DtpmPredict(model, sampling.gain), {"image": IMAGE, **amount}, {"base": IMAGE, **amplitude})
    taken = {"x": IMAGE, **image, "base": IMAGE, **code, "t": SCALAR}
    graphs = {"predict": predict, "denoise": ModelGraph(_DtpmDenoise(model), taken, {config.prediction: IMAGE})}
    if code:
        thumbnail = ArraySpec("float32", (1, 3, semantic.size, semantic.size))
        graphs = {"encode": ModelGraph(_DtpmEncode(model, encoder), {"thumbnail": thumbnail}, code), **graphs}
    if len(sampling.times) <= FUSED_STEPS:
        inputs = {"image": IMAGE, "noise": IMAGE, **amount, **code, "strength": SCALAR}
        graphs["fused"] = ModelGraph(_DtpmFused(model, sampling), inputs, {"restored": IMAGE})
    return graphs


@dataclass(frozen=True)
class DtpmSource(CheckpointSource):
    """A "dtpm" checkpoint."""

    semantic: str = ""  # its semantic encoder, a file or timm:MODEL=FILE; "" for a model without a code
    steps: int = 0  # of the sampler; 0 for a student's own, and for 4 of other models
    gain: float | None = None  # share of the residual that is added at strength 1; None for 0.5
    window: TileWindow = DEFAULT_WINDOW  # the tiles of a model that sees all of its tile (NAFNet blocks)

    def open(self) -> Opened:
        """As in `CheckpointSource`."""
        checkpoint = checkpoints.load(self.model, "dtpm")
        model = checkpoint.fill(Dtpm(checkpoints.from_dict(DtpmConfig, checkpoint.config))).eval()
        encoder = self._encoder(model.config.semantic)
        sampling = self._sampling(model, checkpoint.facts)
        graphs = dtpm_graphs(model, encoder, sampling)
        task = checkpoint.facts["task"]
        steps, calibrated, semantic = len(sampling.times), model.predictor.calibrated, model.config.semantic
        facts = {
            "model": "dtpm",
            "tasks": (task,),
            "size": Size(multiple_of=model.multiple_of, minimum=model.multiple_of),
            "sampler": "ddim",
            "predicts": model.config.prediction,
            "start": "noise",
            "levels": sampling.levels,
            "times": sampling.times,
            "state": IMAGE.shape,
            # Of a calibrated model both are in the amplitude, an output of predict.
            "residual_scale": 1.0 if calibrated else float(model.residual_scale),
            "gain": 1.0 if calibrated else sampling.gain,
            "conditions": Conditions(thumbnail=semantic.size) if semantic.code else None,
            "receptive_field": self._receptive_fields(model, graphs, steps),
        }
        return Opened(graphs, facts, _about(task, model.config, steps), TASKS[task])

    def task(self) -> str:
        """The task that the checkpoint was trained for."""
        return str(checkpoints.load(self.model, "dtpm").facts["task"])

    def files(self) -> list[Path]:
        """As in `CheckpointSource`."""
        return [self.model, *([semantic_file(self.semantic)] if self.semantic else [])]

    def _encoder(self, config: SemanticConfig) -> nn.Module:
        """The encoder that the model was trained with. Raises UsageError for another one."""
        if config.code == 0:
            if self.semantic:
                raise UsageError(
                    f"--semantic {self.semantic} was given; this DTPM has no semantic code: leave the option out"
                )
            return NoEncoder()
        if not self.semantic:
            raise UsageError("this DTPM needs its semantic encoder; add --semantic FILE")
        encoder = encoder_of(open_semantic(self.semantic))
        if encoder.config != config:
            raise UsageError(f"this DTPM was trained with another semantic encoder than {self.semantic}; give that one")
        return encoder

    def _sampling(self, model: Dtpm, facts: Mapping[str, Any]) -> Sampling:
        own, alpha_bar = own_steps(facts), SCHEDULES[model.config.schedule]()
        steps = self.steps or (own.step_count if own else _STEPS)
        if not 1 <= steps <= len(alpha_bar):
            raise UsageError(f"expected 1 .. {len(alpha_bar)} sampling steps, got {steps}")
        if own and steps != own.step_count:
            raise UsageError(f"this student samples in {own.step_count} steps, got {steps}; leave --steps out")
        levels, times = own or trailing(steps, alpha_bar)
        gain = GAIN if self.gain is None else self.gain
        return Sampling(tuple(levels), tuple(times), gain / sampled_deviation(facts, steps))

    def _receptive_fields(
        self, model: Dtpm, graphs: Mapping[str, ModelGraph], steps: int
    ) -> Mapping[str, int | TileWindow]:
        """The receptive fields; that of fused is the sum of its parts' (an upper bound)."""
        if "naf" in (model.config.predictor.body, model.config.denoiser.body):
            return {name: self.window for name in graphs if name != "encode"}
        fields = {name: receptive_field(graphs[name], model.multiple_of) for name in ("predict", "denoise")}
        return fields | ({"fused": fields["predict"] + steps * fields["denoise"]} if "fused" in graphs else {})


def _about(task: str, config: DtpmConfig, steps: int) -> ModelWords:
    semantic = bool(config.semantic.code)
    amount = (
        " The predictor estimates the damage: amount 0 gives the photo as it is, 1 removes what it estimates, up to 2 "
        "removes more. Strong damage gets much texture, a good photo next to none."
    )
    return ModelWords(
        what=f"A DTPM restorer for the task {task}: an initial predictor, a frozen diffusion prior of image "
        f"texture with guidance adapters{', and a semantic encoder' if semantic else ''}. {steps} deterministic steps",
        strength="Strength 0 gives the predictor alone (highest PSNR, softest), strength 1 adds texture. The "
        "texture is plausible, not measured: do not use it as evidence of what was in the scene."
        f"{amount if config.predictor.damage else ''}",
        training="Initial predictor and adapters: pairs made from clean photos by the degradations of the task. "
        f"Prior{' and semantic encoder' if semantic else ''}: the clean photos alone.",
        limits="Trained on about 75 million pixels of daylight photos: faces and text get no special care. Noise"
        " that is correlated between pixels (from strong in-camera processing) is seen as texture.",
    )


SOURCE = DtpmSource
