"""The steps of a restoration: what is computed once for a photo, and what for each of its tiles.

    dtpm      base = predict(image);  residual = sample(denoise), from noise, guided by base
              restored = base + strength gain residual_scale residual
              or, with an amount, base, amplitude = predict(image, amount), the amplitude per pixel:
              restored = base + strength amplitude residual
    diffir    prior = sample(denoise), one vector for the photo, from noise, given the means of encode over the photo
              restored = image + strength gain (compose(image, prior) - image)
    gen2res   x = sample(denoise), from the image, entered at the level of its own noise, or noised up to a level
              restored = image + strength gain (0.5 + residual_scale x - image)

Global conditions are the outputs of `encode`, the prior, and the amount; every graph gets those that it takes. All
steps after encode may be one graph, `fused`, which takes the noise. Where no graph takes the amount, it is the share of
the way from the image to the restored one, from 0 to 1.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ..arrays import Batch, Image, State, to_batch
from ..errors import GraphError
from ..pack.manifest import Manifest, TileWindow
from ..pack.systems import SYSTEMS
from ..photo.resize import thumbnail
from ..sampling.noise import normal, normal_vector
from ..sampling.samplers import ancestral, clipped, ddim, posterior_mean
from ..sampling.steps import EnteredChain, enter, unclipped
from .noise_sigma import noise_sigma
from .tiles import Box, cut, split

__all__ = ["Graph", "Job", "prepare", "restore_tile", "tiled_graphs"]

_Arrays = Mapping[str, NDArray[np.float32]]


class Graph(Protocol):
    """One graph in a runtime: float32 arrays by name, in and out."""

    def __call__(self, **inputs: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        """Outputs for inputs, by name."""
        ...


@dataclass(frozen=True)
class Job:
    """What all tiles of a photo have in common."""

    manifest: Manifest
    graphs: Mapping[str, Graph]
    stages: Sequence[str]  # the graphs that each tile goes through
    image: Image
    seed: int
    strength: float
    amount: float
    conditions: _Arrays
    entry: EnteredChain  # the chain that is sampled, and the noise at its start
    sigma: float  # of the photo's own noise, in units of state

    def run(self, graph: str, where: str, **inputs: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        """Call a graph with the conditions that it takes. Raises GraphError unless its outputs are finite."""
        taken = self.manifest.graphs[graph].inputs
        conditions = {name: array for name, array in self.conditions.items() if name in taken}
        outputs = self.graphs[graph](**inputs, **conditions)
        for name, array in outputs.items():
            if not np.isfinite([array.min(), array.max()]).all():  # NaN wins in both
                raise GraphError(
                    f"graph '{graph}'{where}: its output '{name}' has values that are not finite; the pack is damaged, "
                    "or its precision too low for this photo: check it with 'pocketprior verify'"
                )
        return outputs


def tiled_graphs(manifest: Manifest, graphs: Iterable[str], strength: float, amount: float) -> tuple[str, ...]:
    """The open `graphs` that every tile goes through in turn; none where the photo stays unchanged."""
    given, split = set(graphs), SYSTEMS[manifest.model].split
    if amount == 0:
        return ()
    if strength == 0 and "predict" in given:
        return ("predict",)
    if strength == 0 and "predict" not in split:
        return ()
    if "fused" in given:
        return ("fused",)
    return tuple(name for name in split if name != "encode" and manifest.graphs[name].spatial)


def prepare(
    manifest: Manifest,
    graphs: Mapping[str, Graph],
    stages: Sequence[str],
    image: Image,
    seed: int,
    strength: float,
    amount: float,
    noise: float | None = None,
) -> Job:
    """The job of a photo, with its global conditions, which are computed here once for all tiles.

    noise: of the photo itself, as `noise_sigma` measures it; None to measure it here, where the model uses it.
    """
    counted = manifest.start_level is not None
    sigma = (noise_sigma(image) if noise is None and counted else noise or 0.0) / 255 / manifest.residual_scale
    entry = enter(manifest.levels, manifest.times, manifest.start_level, sigma)
    conditions = {"amount": np.array([amount], np.float32)}
    job = Job(manifest, graphs, stages, image, seed, strength, amount, conditions, entry, sigma)
    if "encode" in graphs:
        if manifest.conditions:
            encoded = job.run("encode", "", thumbnail=thumbnail(image, manifest.conditions.thumbnail))
        else:
            encoded = _mean_conditions(job)
        job = replace(job, conditions={**job.conditions, **encoded})
    if "compose" in stages:
        job = replace(job, conditions={**job.conditions, "prior": _sample(job, "", _start(job))})
    return job


def restore_tile(job: Job, box: Box) -> Batch:
    """The restored `box` of the padded photo: (1, 3, height, width), clipped to [0, 1] as fused graphs clip it."""
    image = to_batch(cut(job.image, box))
    restored = np.clip(_restored(job, image, box), 0, 1)
    return restored if job.manifest.takes_amount or job.amount == 1 else _part_way(image, restored, job.amount)


def _restored(job: Job, image: Batch, box: Box) -> Batch:
    where = f", tile at row {box.y0}, column {box.x0}"
    share = job.strength * job.manifest.gain
    match job.stages:
        case ("predict",):
            return job.run("predict", where, image=image)["base"]
        case ("fused",):
            strength = np.array([job.strength], np.float32)
            noise = _start(job, box) * np.float32(job.entry.topped_up)
            return job.run("fused", where, image=image, noise=noise, strength=strength)["restored"]
        case ("compose",):
            return _part_way(image, job.run("compose", where, image=image)["restored"], share)
        case ("denoise",):
            return _part_way(image, _regenerated(job, where, image, box), share)
        case _:
            return _textured(job, where, image, box)


def _mean_conditions(job: Job) -> _Arrays:
    """Means over the whole photo: those over its windows, weighted by their pixels."""
    height, width = job.image.shape[:2]
    window, size = job.manifest.receptive_field["encode"], job.manifest.size
    assert isinstance(window, TileWindow)
    multiple = size.minimum if size.fixed else size.multiple_of
    totals: dict[str, NDArray[np.float64]] = {}
    for box in split(height, width, window.edge, multiple, size.minimum):
        share = (min(box.y1, height) - box.y0) * (min(box.x1, width) - box.x0) / (height * width)
        where = f", window at row {box.y0}, column {box.x0}"
        for name, mean in job.run("encode", where, image=to_batch(cut(job.image, box))).items():
            totals[name] = totals.get(name, 0) + share * mean.astype(np.float64)
    return {name: total.astype(np.float32) for name, total in totals.items()}


def _textured(job: Job, where: str, image: Batch, box: Box) -> Batch:
    """DTPM: the base and its texture."""
    predicted = job.run("predict", where, image=image)
    base = predicted["base"]
    guides = {"image": image, "base": base}
    taken = {name: guides[name] for name in guides if name in job.manifest.graphs["denoise"].inputs}
    residual = _sample(job, where, _start(job, box), box, **taken)
    scale = np.float32(job.strength * job.manifest.gain * job.manifest.residual_scale)
    texture: State = scale * residual
    texture *= predicted.get("amplitude", np.float32(1))
    return base + texture


def _regenerated(job: Job, where: str, image: Batch, box: Box) -> Batch:
    """Gen2Res: the photo that is sampled from the image; one pass more where its noise was clipped to the range."""
    scale = np.float32(job.manifest.residual_scale)
    photo: State = image / scale - np.float32(0.5 / job.manifest.residual_scale)
    if job.entry.exact and job.entry.times and (abs(photo) >= 1).any():
        foreseen = _entered(replace(job, entry=job.entry.first()), where, photo, box)
        photo = unclipped(photo, foreseen, job.sigma).astype(np.float32)
    return scale * _entered(job, where, photo, box) + np.float32(0.5)


def _entered(job: Job, where: str, photo: State, box: Box) -> State:
    """The sampled state, from that of the photo."""
    x: State = np.float32(math.sqrt(job.entry.levels[0])) * photo
    if job.entry.added:
        x += np.float32(job.entry.added) * _start(job, box)
    return _sample(job, where, x, box)


def _part_way(image: Batch, restored: Batch, share: float) -> Batch:
    """The share of the way from the image to the restored one."""
    change: Batch = restored - image
    change *= np.float32(share)
    return image + change


def _start(job: Job, box: Box | None = None) -> State:
    """The noise that sampling starts with: of a tile, or the one vector of the photo."""
    if SYSTEMS[job.manifest.model].vector:
        return normal_vector(job.seed, 0, int(job.manifest.state[1]))
    assert box is not None
    return normal(job.seed, 0, box.rows, box.cols)


def _sample(job: Job, where: str, x: State, box: Box | None = None, **inputs: NDArray[np.float32]) -> State:
    """Run the sampler from the state `x`; `inputs` go to denoise at every step, besides state and time.

    Noise that is added on the way, after step i (from 0), is draw i + 1 of the photo; draw 0 is that of the start.
    """
    m, (levels, times, *_) = job.manifest, job.entry
    learned = m.sampler == "ancestral" and "variance" in m.graphs["denoise"].outputs
    clip = clipped if m.start == "image" else None

    def denoise(x: State, step: int) -> State | tuple[State, State]:
        t = np.array([times[step]], np.float32)
        outputs = job.run("denoise", f", step {step + 1} of {len(times)}{where}", x=x, t=t, **inputs)
        return (outputs[m.predicts], outputs["variance"]) if learned else outputs[m.predicts]

    if m.sampler == "posterior_mean":
        return posterior_mean(denoise, x, levels)
    if m.sampler == "ddim":
        return ddim(denoise, x, levels, m.predicts, clip)
    assert box is not None
    rows, cols = box.rows, box.cols
    variance = "learned" if learned else "small"
    return ancestral(denoise, x, levels, lambda i: normal(job.seed, i + 1, rows, cols), m.predicts, variance, clip)
