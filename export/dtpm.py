"""DTPM as a pack: encode, predict and denoise, and all of it in one graph."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor, nn

from ..core.degradations import TASKS
from ..core.errors import UsageError
from ..core.manifest import Conditions, Size
from ..core.models import checkpoints
from ..core.models.dtpm import Dtpm, DtpmConfig
from ..core.models.rewrite import rewritten
from ..core.models.semantic import encoder_of, open_semantic, semantic_file
from ..core.models.steps import own_steps
from ..core.schedule import SCHEDULES, trailing
from ..core.systems import IMAGE, SCALAR, ArraySpec
from ..core.tiles import Window
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


class _Predict(nn.Module):
    def __init__(self, model: Dtpm) -> None:
        super().__init__()
        self.predictor = model.predictor

    def forward(self, image: Tensor) -> Tensor:
        return self.predictor(image)


class _Denoise(nn.Module):
    """The guided prior where y_E takes the place of the structure."""

    def __init__(self, model: Dtpm) -> None:
        super().__init__()
        self.denoiser, self.adapters = model.denoiser, model.adapters

    def forward(self, x: Tensor, base: Tensor, code: Tensor, t: Tensor) -> Tensor:
        return self.denoiser(x, base, code, t, self.adapters)


class _DenoiseBeside(_Denoise):
    """The guided prior where the damaged photo takes the place of the structure."""

    def forward(self, x: Tensor, image: Tensor, base: Tensor, code: Tensor, t: Tensor) -> Tensor:  # type: ignore[override]
        return self.denoiser(x, image, code, t, self.adapters, image, base)


class _Fused(nn.Module):
    def __init__(self, model: Dtpm, sampling: Sampling) -> None:
        super().__init__()
        self.model, self.sampling = model, sampling

    def forward(self, image: Tensor, noise: Tensor, code: Tensor, strength: Tensor) -> Tensor:
        levels, times, gain = self.sampling
        return self.model(image, code, noise, gain * strength, levels, times)


def dtpm_graphs(model: Dtpm, encoder: nn.Module, sampling: Sampling) -> dict[str, Graph]:
    """encode, predict, denoise and, up to FUSED_STEPS, fused, ready to be traced.

    encoder: with a `config`, as `encoder_of` gives it.
    """
    model, encoder = rewritten(model), rewritten(encoder)
    config: Any = encoder.config
    code = ArraySpec("float32", (1, config.code))
    thumbnail = ArraySpec("float32", (1, 3, config.size, config.size))
    beside = model.config.structure_slot == "y_d"
    structure = {"image": IMAGE, "base": IMAGE} if beside else {"base": IMAGE}
    graphs = {
        "encode": Graph(_Encode(model, encoder), {"thumbnail": thumbnail}, {"code": code}),
        "predict": Graph(_Predict(model), {"image": IMAGE}, {"base": IMAGE}),
        "denoise": Graph(
            (_DenoiseBeside if beside else _Denoise)(model),
            {"x": IMAGE, **structure, "code": code, "t": SCALAR},
            {model.config.prediction: IMAGE},
        ),
    }
    if len(sampling.times) <= FUSED_STEPS:
        inputs = {"image": IMAGE, "noise": IMAGE, "code": code, "strength": SCALAR}
        graphs["fused"] = Graph(_Fused(model, sampling), inputs, {"restored": IMAGE})
    return graphs


@dataclass(frozen=True)
class DtpmSource:
    """A "dtpm" checkpoint and its semantic encoder (a file, or timm:MODEL=FILE).

    steps: of the sampler; 0 for those of a student, and for 4 of a model that is none. gain: share of the
    residual that is added at strength 1; window: the tiles of a model that sees all of its tile (NAFNet blocks).
    """

    model: Path
    semantic: str
    steps: int = 0
    gain: float = 0.5
    window: Window = WINDOW

    def open(self) -> Opened:
        """As in `Source`."""
        checkpoint = checkpoints.load(self.model, "dtpm")
        model = Dtpm(checkpoints.from_dict(DtpmConfig, checkpoint.config))
        checkpoint.fill(model)
        model.eval()
        encoder = encoder_of(open_semantic(self.semantic))
        if encoder.config != model.config.semantic:
            raise UsageError(f"{self.semantic} is not the encoder that this DTPM was trained with; give that one")
        sampling = self._sampling(model.config.schedule, checkpoint.facts)
        graphs = dtpm_graphs(model, encoder, sampling)
        task = checkpoint.facts["task"]
        facts = _facts(model, encoder, sampling, task) | {
            "receptive_field": self._reach(model, graphs, len(sampling.times))
        }
        return Opened(graphs, facts, _about(task, len(sampling.times)), TASKS[task])

    def task(self) -> str:
        """What the checkpoint was trained for."""
        return str(checkpoints.load(self.model, "dtpm").facts["task"])

    def digest(self) -> str:
        """As in `Source`."""
        return digest(self.model, semantic_file(self.semantic))

    def _sampling(self, schedule: str, facts: Mapping[str, Any]) -> Sampling:
        own, bars = own_steps(facts), SCHEDULES[schedule]()
        steps = self.steps or (own.count if own else STEPS)
        if not 1 <= steps <= len(bars):
            raise UsageError(f"{steps} sampling steps were given; choose 1 .. {len(bars)}")
        if own and steps != own.count:
            raise UsageError(f"this model is a student that samples in {own.count} steps; {steps} were given")
        levels, times = own or trailing(steps, bars)
        return Sampling(tuple(levels), tuple(times), self.gain)

    def _reach(self, model: Dtpm, graphs: Mapping[str, Graph], steps: int) -> Mapping[str, int | Window]:
        """The fused reach is the sum of its parts' (an upper bound)."""
        if "naf" in (model.config.predictor.body, model.config.denoiser.body):
            return {name: self.window for name in graphs if name != "encode"}
        reach = {name: receptive_field(graphs[name], model.multiple_of, reach=64) for name in ("predict", "denoise")}
        return reach | ({"fused": reach["predict"] + steps * reach["denoise"]} if "fused" in graphs else {})


def _facts(model: Dtpm, encoder: nn.Module, sampling: Sampling, task: str) -> dict[str, Any]:
    config: Any = encoder.config
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
        "residual_scale": float(model.residual_scale),
        "gain": sampling.gain,
        "conditions": Conditions(thumbnail=config.size),
    }


def _about(task: str, steps: int) -> About:
    return About(
        what=f"A DTPM restorer for the task {task}: an initial predictor, a frozen diffusion prior of image "
        f"texture with guidance adapters, and a semantic encoder. {steps} deterministic steps",
        strength="Strength 0 gives the predictor alone (highest PSNR, softest), strength 1 adds texture. The "
        "texture is plausible, not measured: do not use it as evidence of what was in the scene.",
        training="Initial predictor and adapters: pairs made from clean photos by the degradations of the task. "
        "Prior and semantic encoder: the clean photos alone.",
        limits="Trained on about 75 million pixels of daylight photos: faces and text get no special care. Noise"
        " that is correlated between pixels (from strong in-camera processing) is seen as texture.",
    )
