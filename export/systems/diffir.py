"""DiffIR as a pack: encode means over the photo, denoise a prior vector, compose the photo; the last two also fused."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from ...core.degradations import TASKS
from ...core.errors import UsageError
from ...core.models import checkpoints
from ...core.models.deploy.rewrite import rewritten
from ...core.models.diffir import PERIOD, CpenS2, Diffir, DiffirConfig, PriorDenoiser, sampled
from ...core.pack.manifest import Size, TileWindow
from ...core.pack.systems import IMAGE, SCALAR, ArraySpec
from ..limits import FUSED_STEPS
from .source import DEFAULT_WINDOW, CheckpointSource, ModelGraph, ModelWords, Opened, part_way

__all__ = ["SOURCE", "DiffirSource", "diffir_graphs"]

_MEANS_EDGE = 512  # pixels; the means over the photo are taken in windows of at most this edge


class _DiffirEncode(nn.Module):
    def __init__(self, model: Diffir) -> None:
        super().__init__()
        self.cpen = model.cpen

    def forward(self, image: Tensor) -> Tensor:
        return self.cpen.features(image)


class _DiffirDenoise(nn.Module):
    """The condition of the means, then one step: t = time / T."""

    def __init__(self, cpen: CpenS2, denoiser: PriorDenoiser) -> None:
        super().__init__()
        self.head, self.denoiser = cpen.head, denoiser

    def forward(self, x: Tensor, features: Tensor, t: Tensor) -> Tensor:
        return self.denoiser(self.head(features), t[:, None] / PERIOD, x)


class _DiffirCompose(nn.Module):
    def __init__(self, model: Diffir) -> None:
        super().__init__()
        self.dirformer = model.dirformer

    def forward(self, image: Tensor, prior: Tensor) -> Tensor:
        return self.dirformer(image, prior)


class _DiffirFused(nn.Module):
    """The prior is sampled anew for each tile: it is small."""

    def __init__(self, model: Diffir, denoiser: PriorDenoiser, gain: float) -> None:
        super().__init__()
        self.head, self.denoiser, self.dirformer = model.cpen.head, denoiser, model.dirformer
        self.levels, self.gain = model.levels, gain

    def forward(self, image: Tensor, noise: Tensor, features: Tensor, strength: Tensor) -> Tensor:
        prior = sampled(self.denoiser, self.head(features), noise, self.levels)
        return part_way(image, self.dirformer(image, prior), self.gain * strength)


def diffir_graphs(model: Diffir, gain: float) -> dict[str, ModelGraph]:
    """encode, denoise, compose and, up to FUSED_STEPS, fused, ready to be traced; `gain` as in `DiffirSource`.

    Raises UsageError for a model that does not diffuse, or changes the size of the photo.
    """
    config = model.config
    if model.denoiser is None:
        raise UsageError("this DiffIR was trained without diffusion (steps 0); export one with steps")
    if config.scale != 1 or config.inputs != 3:
        raise UsageError(
            f"expected a DiffIR that keeps the size of an RGB photo, got one that enlarges by {config.scale} and takes "
            f"{config.inputs} channels"
        )
    model = rewritten(model)
    denoiser = model.denoiser
    assert denoiser is not None
    prior = ArraySpec("float32", (1, config.ipr))
    features = ArraySpec("float32", (1, 4 * config.cpen.width))
    taken = {"x": prior, "features": features, "t": SCALAR}
    graphs = {
        "encode": ModelGraph(_DiffirEncode(model), {"image": IMAGE}, {"features": features}),
        "denoise": ModelGraph(_DiffirDenoise(model.cpen, denoiser), taken, {"x0": prior}),
        "compose": ModelGraph(_DiffirCompose(model), {"image": IMAGE, "prior": prior}, {"restored": IMAGE}),
    }
    if config.steps <= FUSED_STEPS:
        inputs = {"image": IMAGE, "noise": prior, "features": features, "strength": SCALAR}
        graphs["fused"] = ModelGraph(_DiffirFused(model, denoiser, gain), inputs, {"restored": IMAGE})
    return graphs


@dataclass(frozen=True)
class DiffirSource(CheckpointSource):
    """A "diffir" checkpoint."""

    gain: float = 1.0  # share of the change that is made at strength 1
    window: TileWindow = DEFAULT_WINDOW  # the tiles that it runs on

    def open(self) -> Opened:
        """As in `CheckpointSource`."""
        checkpoint = checkpoints.load(self.model, "diffir")
        model = checkpoint.fill(Diffir(checkpoints.from_dict(DiffirConfig, checkpoint.config)))
        graphs = diffir_graphs(model, self.gain)
        task = checkpoint.facts["task"]
        steps, multiple = model.config.steps, model.multiple_of
        windows = dict.fromkeys(graphs, self.window) | {"encode": TileWindow(_MEANS_EDGE, 0)}
        del windows["denoise"]  # which does not run on tiles
        facts = {
            "model": "diffir",
            "tasks": (task,),
            "size": Size(multiple_of=multiple, minimum=multiple),
            "sampler": "posterior_mean",
            "predicts": "x0",
            "start": "noise",
            "levels": tuple(model.levels),
            "times": tuple((steps - 1 - step) / steps for step in range(steps)),
            "state": (1, model.config.ipr),
            "residual_scale": 1.0,
            "gain": self.gain,
            "conditions": None,
            "receptive_field": windows,
        }
        return Opened(graphs, facts, _about(task, steps), TASKS[task])


def _about(task: str, steps: int) -> ModelWords:
    return ModelWords(
        what=f"A DiffIR restorer for the task {task}: an estimator and a diffusion model of a prior vector, one for "
        f"the whole photo, and a transformer that restores the photo under it. {steps} deterministic steps",
        strength="Strength 0 gives the photo as it is, strength 1 what the model makes of it, numbers between them"
        " the share of the way.",
        training="First the transformer with an estimator that sees the clean photo, then its twin that does not, "
        "with the diffusion model: on pairs made from clean photos by the degradations of the task.",
        limits="Faces and text get no special care. The transformer looks at all of a tile: large photos are "
        "restored in tiles of one size, blended.",
    )


SOURCE = DiffirSource
