"""The restoration of a whole photo: predict, sample, compose, tile by tile, in whatever runs the graphs.

One pipeline, DESIGN: base = predict(image); the residual is sampled from noise by `denoise` under the guidance of base
and of conditions that are computed once for the whole photo; restored = base + strength * gain * residual_scale *
residual. A pack may hold all of it in one graph as well, `fused`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Protocol, TypedDict, Unpack

import numpy as np
from numpy.typing import NDArray

from .arrays import Batch, Image, State, to_batch, to_image
from .errors import GraphError, PackError, UnknownNameError, UsageError
from .manifest import Manifest
from .noise import normal
from .pack import default_pack
from .photo import Photo
from .samplers import ddim
from .thumbnail import thumbnail
from .tiles import Box, Plan, choose_tile, cut, join, padded_size, plan, smallest_tile

__all__ = ["FORMS", "Graph", "Options", "Progress", "Restorer", "graph_names", "tile_edge"]

FORMS = ("auto", "fused", "split")

MAX_MEMORY_BYTES = 2**30  # of the whole process, where the caller sets none
PROCESS_BYTES = 160 * 2**20  # Python, NumPy, Pillow, the runtime and a pack
WORKING_BYTES = 256 * 2**20  # least for the tiles where the caller sets no limit
HOST_BYTES_PER_PIXEL = 144  # our own float32 arrays of a tile: image, noise, base, x, v, x0 and their temporaries

_Arrays = Mapping[str, NDArray[np.float32]]

Progress = Callable[[int, int], None]  # (tiles done, tiles in all)


class Options(TypedDict, total=False):
    """The options of a restoration, as `Restorer.__call__` explains them."""

    task: str | None
    strength: float
    seed: int
    tile: int | None
    max_memory: int | None
    progress: Progress | None


class Graph(Protocol):
    """One graph in a runtime: float32 arrays by name, in and out."""

    def __call__(self, **inputs: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]: ...


@dataclass(frozen=True)
class _Job:
    """What is the same for all tiles of a photo."""

    image: Image
    seed: int
    strength: float
    conditions: _Arrays


@dataclass(frozen=True)
class Restorer:
    """A model that is ready to run: the facts about it and its open graphs."""

    manifest: Manifest
    graphs: Mapping[str, Graph]

    @classmethod
    def from_pack(
        cls,
        path: str | Path | None = None,
        runtime: str = "onnxruntime",
        graphs: str = "auto",
        threads: int | None = None,
    ) -> Restorer:
        """Open the pack in the folder `path` (None: the one that comes with the package).

        graphs: "fused" for the restoration in one graph, "split" for the loop here, "auto" for fused where the pack
        has it. threads: for one graph call, None for the runtime's own choice. Raises PackError and its kinds for a
        pack that cannot be used, UnknownNameError for another runtime or another word for `graphs`.
        """
        folder = default_pack() if path is None else Path(path)
        manifest = Manifest.load(folder)
        names = graph_names(manifest, graphs)
        runtimes = import_module("..runtimes", __package__)
        return cls(manifest, runtimes.open_graphs(manifest, folder, runtime, names=names, threads=threads))

    def __call__(
        self,
        image: Image,
        *,
        task: str | None = None,
        strength: float = 1.0,
        seed: int = 0,
        tile: int | None = None,
        max_memory: int | None = None,
        progress: Progress | None = None,
    ) -> Image:
        """Restore a photo of any size: (H, W, 3) uint8 or uint16, the result alike.

        task: one of the manifest's, None for its first. strength: share of the model's texture, 0 for the predictor
        alone. seed: of the noise, in [0, 2^64). tile: edge in pixels of what a graph gets; or max_memory: bytes of
        the whole process, by which the tile is chosen (None: 1 GiB, more for photos that need more). The result
        depends on neither, but for rounding. progress: called with (tiles done, tiles in all), at the start too.

        Raises UsageError for another array or an option out of its range, GraphError where a graph fails or gives NaN.
        """
        _check_image(image)
        self.check(task=task, strength=strength, seed=seed, tile=tile, max_memory=max_memory)
        layout = self._layout(image, self._stages(strength), tile, max_memory)
        job = _Job(image, seed, strength, self._conditions(image))
        restored = np.empty_like(image)
        report = progress or _no_progress
        report(0, len(layout.tiles))
        pieces = join(layout, (self._restore(job, tile.read) for tile in layout.tiles))
        for done, (box, values) in enumerate(pieces, 1):
            restored[box.slices] = to_image(values, image.dtype.type)
            report(done, len(layout.tiles))
        return restored

    def photo(self, photo: Photo, **options: Unpack[Options]) -> Photo:
        """Restore the pixels of a photo and keep all else; a grey photo stays grey (the mean of the channels)."""
        restored = self(photo.pixels, **options)
        if photo.grey:
            _make_grey(restored)
        return photo.with_pixels(restored)

    def check(self, **options: Unpack[Options]) -> None:
        """Raise UsageError for options that suit no photo at all, before any photo is read."""
        task, tile = options.get("task"), options.get("tile")
        strength, seed = options.get("strength", 1.0), options.get("seed", 0)
        if task is not None and task not in self.manifest.tasks:
            raise UnknownNameError("task", task, self.manifest.tasks)
        if not 0 <= strength <= 1:
            raise UsageError(f"strength {strength} was given; choose a number from 0 (no texture) to 1")
        if not 0 <= seed < 2**64:
            raise UsageError(f"seed {seed} was given; choose a whole number from 0 to 2^64 - 1")
        if tile is not None and options.get("max_memory") is not None:
            raise UsageError("a tile and a memory limit were given; give one of them: the tile follows from the memory")
        if tile is not None:
            plan(1, 1, tile, self.manifest.radius(self._stages(strength)), self.manifest.size.minimum)

    def _stages(self, strength: float) -> tuple[str, ...]:
        """The tiled graphs that are run: without texture the predictor is all there is to do."""
        if strength == 0 and "predict" in self.graphs:
            return ("predict",)
        return ("fused",) if "fused" in self.graphs else ("predict", "denoise")

    def _layout(self, image: Image, stages: tuple[str, ...], tile: int | None, max_memory: int | None) -> Plan:
        """Tiles that overlap by the receptive field of `stages`."""
        height, width = image.shape[:2]
        size, overlap = self.manifest.size, self.manifest.radius(stages)
        multiple = size.multiple_of if min(height, width) >= size.minimum else size.minimum
        if tile is None:
            bytes_per_pixel = HOST_BYTES_PER_PIXEL + sum(self.manifest.bytes_per_pixel[name] for name in stages)
            tile = tile_edge(image, max_memory, bytes_per_pixel, overlap, multiple)
        return plan(height, width, tile, overlap, multiple)

    def _conditions(self, image: Image) -> _Arrays:
        """The global conditions, from a thumbnail of the whole photo."""
        if self.manifest.conditions is None:
            return {}
        small = thumbnail(image, self.manifest.conditions.thumbnail)
        conditions = self.graphs["encode"](thumbnail=small)
        for name, condition in conditions.items():
            _check_finite(condition, f"graph 'encode': its output '{name}'")
        return conditions

    def _restore(self, job: _Job, box: Box) -> Batch:
        """One tile: what the `box` of the padded photo becomes."""
        where = f"tile at row {box.y0}, column {box.x0}"
        image = to_batch(cut(job.image, box))
        stages = self._stages(job.strength)
        if stages == ("predict",):
            return self._run("predict", where, job, image=image)
        noise = normal(job.seed, 0, box.rows, box.cols)
        if stages == ("fused",):
            strength = np.array([job.strength], np.float32)
            return self._run("fused", where, job, image=image, noise=noise, strength=strength)
        base = self._run("predict", where, job, image=image)
        residual: State = ddim(partial(self._denoise, job, where, base), noise, self.manifest.levels)
        scale = np.float32(job.strength * self.manifest.gain * self.manifest.residual_scale)
        texture: State = scale * residual
        return base + texture

    def _denoise(self, job: _Job, where: str, base: Batch, x: State, step: int) -> State:
        times = self.manifest.times
        t = np.array([times[step]], np.float32)
        return self._run("denoise", f"step {step + 1} of {len(times)}, {where}", job, x=x, base=base, t=t)

    def _run(self, graph: str, where: str, job: _Job, **inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        """The one output of a graph, called with the conditions that it takes; GraphError unless it is finite."""
        taken = self.manifest.graphs[graph].inputs
        conditions = {name: array for name, array in job.conditions.items() if name in taken}
        ((name, output),) = self.graphs[graph](**inputs, **conditions).items()
        _check_finite(output, f"graph '{graph}', {where}: its output '{name}'")
        return output


def graph_names(manifest: Manifest, form: str) -> list[str]:
    """The graphs that one form of the restoration needs: "fused", "split", or "auto" for fused where there is one.

    The predictor is always among them where the pack has it: strength 0 runs it alone.
    """
    if form not in FORMS:
        raise UnknownNameError("form of the graphs", form, FORMS)
    last = "denoise" if form == "split" or "fused" not in manifest.graphs else "fused"
    if last not in manifest.graphs or form not in ("auto", "split", last):
        raise PackError(f"the pack '{manifest.name}' has no {form} graphs; it has: {', '.join(manifest.graphs)}")
    return [name for name in ("encode", "predict", last) if name in manifest.graphs]


def _check_image(image: Image) -> None:
    right = image.ndim == 3 and image.shape[2] == 3 and min(image.shape) > 0
    if not right or image.dtype.name not in ("uint8", "uint16"):
        raise UsageError(f"an array {image.dtype} {image.shape} was given; expected uint8 or uint16 (height, width, 3)")


def _check_finite(array: NDArray[np.float32], what: str) -> None:
    if not np.isfinite([array.min(), array.max()]).all():  # NaN wins in both
        raise GraphError(
            f"{what} has values that are not finite; the pack is damaged, or too coarse in its numbers for this photo: "
            "check it with 'pocketprior verify'"
        )


def _no_progress(done: int, total: int) -> None:
    pass


def _make_grey(image: Image) -> None:
    """Replace the channels by their mean, rounded half up, in place."""
    for row in image:
        total = row.sum(axis=1, dtype=np.uint32)
        row[...] = ((2 * total + 3) // 6)[:, np.newaxis]


def tile_edge(image: Image, max_memory: int | None, bytes_per_pixel: int, overlap: int, multiple: int) -> int:
    """Edge of the tiles; the photo and its result, which are in memory too, are taken off the limit first."""
    height, width = (padded_size(size, multiple) for size in image.shape[:2])
    smallest = smallest_tile(overlap, multiple)
    least = bytes_per_pixel * min(height * width, smallest**2)
    fixed = PROCESS_BYTES + 2 * image.nbytes
    if max_memory is None:
        max_memory = max(MAX_MEMORY_BYTES, fixed + max(WORKING_BYTES, least))
    if fixed + least > max_memory:
        raise UsageError(
            f"{_mib(max_memory)} MiB of memory were allowed; a photo of {width} x {height} pixels needs "
            f"{_mib(fixed + least)} MiB at least: allow more"
        )
    if bytes_per_pixel * height * width <= max_memory - fixed:
        return max(height, width, smallest)
    return choose_tile(max_memory - fixed, bytes_per_pixel, overlap, multiple)


def _mib(size: int) -> int:
    return -(-size // 2**20)
