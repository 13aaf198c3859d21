"""Gen2Res as a pack: a graph that denoises the photo itself, and all of a few steps in one graph.

A fused graph starts at its first level, whatever the photo. The host adds less noise to a photo that has some of its
own, so that the sum is that of the first level.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from ...core.degradations import TASKS
from ...core.errors import UnknownNameError, UsageError
from ...core.models import checkpoints
from ...core.models.deploy.rewrite import rewritten
from ...core.models.gen2res import NOISIEST, USUAL_STEPS, Denoiser, build, restore
from ...core.pack.manifest import Size, TileWindow
from ...core.pack.systems import IMAGE, SCALAR, SYSTEMS
from ...core.sampling.schedule import ddpm, quadratic, strided
from ...core.sampling.steps import Steps, own_steps
from ..limits import FUSED_STEPS
from .source import DEFAULT_WINDOW, CheckpointSource, ModelGraph, ModelWords, Opened, part_way

__all__ = ["SOURCE", "Gen2ResSource", "gen2res_graphs"]

_TASK = "blind"  # any damage: it is not trained for a task


class _Eps(nn.Module):
    """The noise of an image, and the learned variance for the sampler that needs it."""

    def __init__(self, denoiser: Denoiser, variance: bool) -> None:
        super().__init__()
        self.denoiser, self.variance = denoiser, variance

    def forward(self, x: Tensor, t: Tensor) -> Tensor | tuple[Tensor, ...]:
        result = self.denoiser(x, t)
        return result.chunk(2, dim=1) if self.variance else result[:, :3]


class _Gen2ResFused(nn.Module):
    """`restore` of the model, by DDIM."""

    def __init__(self, denoiser: Denoiser, steps: Steps, gain: float) -> None:
        super().__init__()
        self.denoiser, self.steps, self.gain = denoiser, steps, gain

    def forward(self, image: Tensor, noise: Tensor, strength: Tensor) -> Tensor:
        restored = restore(self.denoiser, image, lambda _: noise, *self.steps, "ddim")
        return part_way(image, restored, self.gain * strength)


def gen2res_graphs(denoiser: Denoiser, sampler: str, steps: Steps, gain: float) -> dict[str, ModelGraph]:
    """denoise and, for up to FUSED_STEPS of "ddim", fused, ready to be traced; `gain` as in `Gen2ResSource`.

    The learned variance is an output only for the sampler that needs it, "ancestral".
    """
    denoiser, ancestral = rewritten(denoiser), sampler == "ancestral"
    outputs = {"eps": IMAGE, "variance": IMAGE} if ancestral else {"eps": IMAGE}
    graphs = {"denoise": ModelGraph(_Eps(denoiser, ancestral), {"x": IMAGE, "t": SCALAR}, outputs)}
    if steps.step_count <= FUSED_STEPS and not ancestral:
        taken = {"image": IMAGE, "noise": IMAGE, "strength": SCALAR}
        graphs["fused"] = ModelGraph(_Gen2ResFused(denoiser, steps, gain), taken, {"restored": IMAGE})
    return graphs


@dataclass(frozen=True)
class Gen2ResSource(CheckpointSource):
    """A "gen2res" checkpoint: the base, or one constrained to an album. A student has its own start and steps."""

    sampler: str = "ddim"  # for few steps, or "ancestral", the paper's
    start: int = 0  # least level K of 1000 to which a photo is noised, its own noise counted; 0: that of its own noise
    steps: int = USUAL_STEPS  # from K, or from level 300, of which a photo visits those below its own; 0 for all
    gain: float = 1.0  # share of the change that is made at strength 1
    window: TileWindow = DEFAULT_WINDOW  # the tiles that it runs on

    def open(self) -> Opened:
        """As in `CheckpointSource`."""
        chosen, checkpoint = Steps.of(*self.schedule()), checkpoints.load(self.model, "gen2res")
        own = own_steps(checkpoint.facts)  # a student has both start and steps
        steps = own or chosen
        denoiser = build(checkpoint)
        graphs = gen2res_graphs(denoiser, self.sampler, steps, self.gain)
        if not (own or self.start):
            graphs.pop("fused", None)
        levels, start_level = self._chain(steps, fixed=own is not None or "fused" in graphs)
        facts = {
            "model": "gen2res",
            "tasks": (_TASK,),
            "size": Size(multiple_of=denoiser.multiple_of, minimum=denoiser.multiple_of),
            "sampler": self.sampler,
            "predicts": "eps",
            "start": "image",
            "levels": levels.levels,
            "times": levels.times,
            "start_level": start_level,
            "state": IMAGE.shape,
            "residual_scale": 0.5,
            "gain": self.gain,
            "conditions": None,
            "receptive_field": dict.fromkeys(graphs, self.window),
        }
        about = _about(self.sampler, steps.step_count, album=checkpoint.facts.get("constrained", False))
        return Opened(graphs, facts, about, TASKS["noise"])

    def schedule(self) -> tuple[list[float], list[float]]:
        """alpha_bar per step and a final 1.0; t per step; from K, or from NOISIEST. Does not read the checkpoint.

        Raises UnknownNameError for an unknown sampler, UsageError for an impossible level or number of steps.
        """
        samplers = SYSTEMS["gen2res"].samplers
        if self.sampler not in samplers:
            raise UnknownNameError("sampler", self.sampler, samplers)
        alpha_bar, start = ddpm(), self.start or NOISIEST
        steps = self.steps or start
        if not 1 <= steps <= start <= len(alpha_bar):
            raise UsageError(
                f"{steps} steps from level {start} were given; choose a level from 1 to {len(alpha_bar)} and no more "
                "steps than that"
            )
        return (strided if self.start else quadratic)(steps, alpha_bar, start)

    def _chain(self, steps: Steps, *, fixed: bool) -> tuple[Steps, float]:
        """All levels of the pack, and the least one at which a photo enters them: the first if `fixed`."""
        if fixed or not self.start:
            return steps, steps.levels[0] if fixed else 1.0
        above = Steps.of(*quadratic(min(steps.step_count, NOISIEST), ddpm(), NOISIEST))
        count = sum(level < steps.levels[0] for level in above.levels)
        both = Steps(above.levels[:count] + steps.levels, above.times[:count] + steps.times)
        return both, steps.levels[0]


def _about(sampler: str, steps: int, *, album: bool) -> ModelWords:
    constrained = " It was then trained on the photos of one album." if album else ""
    private = " It knows what its album shows, people included: treat the pack like those photos." if album else ""
    return ModelWords(
        what="A Gen2Res restorer, for noise, and for damage that noise covers: a diffusion model of clean photos, "
        f"entered at the photo, whose own noise is counted. Up to {steps} steps ({sampler})",
        strength="Strength 0 gives the photo as it is, strength 1 what the model makes of it, numbers between them the "
        "share of the way. Detail is generated, not measured: do not use it as evidence of what was in the scene.",
        training=f"The clean photos alone, without pairs.{constrained}",
        limits="Damage that is not covered by noise stays, and detail that is covered is lost. The model looks "
        f"at all of a tile: large photos are restored in tiles of one size, blended.{private}",
    )


SOURCE = Gen2ResSource
