"""The restoration of a whole photo of any size, tile by tile, in any runtime; `pipeline.py` has the steps.

Where the graphs' receptive field has a limit and sizes are free, tiles are as large as memory allows, and the result is
that of the whole photo. Elsewhere tiles have the one size in the manifest, so that the result does not depend on memory
either.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from math import isqrt
from pathlib import Path
from typing import TypedDict, Unpack

import numpy as np

from ..arrays import Image, to_image
from ..errors import PackError, UnknownNameError, UsageError
from ..limits import LARGEST_AMOUNT, LARGEST_TILE, MAX_MEMORY_BYTES, WORKING_BYTES
from ..pack.manifest import Manifest, TileWindow, padded_size, smallest_tile
from ..pack.store import default_pack
from ..pack.systems import SYSTEMS
from ..photo.photo import Photo, check_pixels, mean_of_channels
from .noise_sigma import noise_sigma
from .pipeline import Graph, prepare, restore_tile, tiled_graphs
from .tiles import TilePlan, join, plan

__all__ = ["FORMS", "GoldenSettings", "Graph", "RestoreOptions", "Restorer", "graph_names", "tile_edge"]

FORMS = ("auto", "fused", "split")

PROCESS_BYTES = 160 * 2**20  # Python, NumPy, Pillow, the runtime and a pack
HOST_BYTES_PER_PIXEL = 144  # our own float32 arrays of a tile: image, noise, base, x, v, x0 and their temporaries

ProgressCallback = Callable[[int, int], None]  # (tiles done, tiles in all)


class RestoreOptions(TypedDict, total=False):
    """The options of a restoration, as `Restorer.__call__` explains them."""

    task: str | None
    strength: float
    amount: float
    noise: float | None
    seed: int
    tile: int | None
    max_memory: int | None
    progress: ProgressCallback | None


class GoldenSettings(TypedDict):
    """The options that a golden restoration was recorded with."""

    seed: int
    strength: float
    amount: float


@dataclass(frozen=True)
class Restorer:
    """A model that is ready to run: its manifest and its open graphs."""

    manifest: Manifest
    graphs: Mapping[str, Graph]

    @classmethod
    def from_pack(
        cls,
        path: str | Path | None = None,
        runtime: str = "onnxruntime",
        graphs: str = "auto",
        threads: int | None = None,
        device: str = "CPU",
        arithmetic: str | None = None,
        task: str | None = None,
    ) -> Restorer:
        """Open a pack.

        Args:
            path: Its folder; None for the pack included in the package.
            runtime: What runs the graphs.
            graphs: "fused" for the restoration in one graph, "split" for the steps in `pipeline`, "auto" for fused
                where the pack has it.
            threads: For one graph call; None for the runtime's own choice.
            device: A name that the runtime knows.
            arithmetic: "fp32", "bf16" or "fp16"; None for what the pack says.
            task: Whose graphs are opened, where tasks have graphs of their own; None for the first.

        Raises PackError for a pack that cannot be used, UnknownNameError for another runtime, task or word for
        `graphs`, UsageError for an option that the runtime does not have.
        """
        folder = default_pack() if path is None else Path(path)
        manifest = Manifest.load(folder).of(task)
        names = graph_names(manifest, graphs)
        runtimes = import_module("...runtimes", __package__)
        opened = runtimes.open_graphs(
            manifest, folder, runtime, names=names, threads=threads, device=device, arithmetic=arithmetic
        )
        return cls(manifest, opened)

    def __call__(
        self,
        image: Image,
        *,
        task: str | None = None,
        strength: float = 1.0,
        amount: float = 1.0,
        noise: float | None = None,
        seed: int = 0,
        tile: int | None = None,
        max_memory: int | None = None,
        progress: ProgressCallback | None = None,
    ) -> Image:
        """Restore a photo of any size: an image of the same shape and dtype. Tile and memory change only rounding.

        Args:
            image: (H, W, 3) uint8 or uint16.
            task: One that the open graphs are for; None for the first.
            strength: Share of the texture that the model adds, 0 to 1. At 0 the result is the predictor's (DTPM), or
                the photo itself (DiffIR, Gen2Res).
            amount: How much damage is removed. 0 returns the photo itself, 1 removes what the model estimates, and up
                to 2 removes more, where the model does estimate it (`Manifest.takes_amount`).
            noise: Of the photo itself, in grey levels of 255, for a model that counts it; None: `noise_sigma` of it.
            seed: Of the noise that is added, in [0, 2^64).
            tile: Edge in pixels of the tiles, for a pack whose tiles may vary.
            max_memory: Bytes of the whole process, which decide the tile; None: 1 GiB, more for photos that need more.
            progress: Called with (tiles done, tiles in all), also at the start.

        Raises UsageError for another array or an option out of its range, GraphError if a graph fails or returns NaN.
        """
        check_pixels(image)
        self.check(
            task=task, strength=strength, amount=amount, noise=noise, seed=seed, tile=tile, max_memory=max_memory
        )
        report: ProgressCallback = progress or (lambda _done, _total: None)
        stages = tiled_graphs(self.manifest, self.graphs, strength, amount)
        if not stages:
            report(1, 1)
            return image.copy()
        layout = self._layout(image, stages, tile, max_memory)
        job = prepare(self.manifest, self.graphs, stages, image, seed, strength, amount, noise)
        restored = np.empty_like(image)
        report(0, len(layout.tiles))
        pieces = join(layout, (restore_tile(job, tile.read) for tile in layout.tiles))
        for done, (box, values) in enumerate(pieces, 1):
            restored[box.slices] = to_image(values, image.dtype.type)
            report(done, len(layout.tiles))
        return restored

    def photo(self, photo: Photo, **options: Unpack[RestoreOptions]) -> Photo:
        """Restore the pixels of a photo and keep everything else; a grey photo stays grey (the mean of the channels).

        A notice reports more noise than the model can remove.
        """
        if self.manifest.start_level is not None and options.get("noise") is None:
            options["noise"] = noise_sigma(photo.pixels)
        restored = self(photo.pixels, **options)
        for row in restored if photo.grey else ():
            row[...] = mean_of_channels(row)
        notices = _too_noisy(self.manifest, options.get("noise") or 0.0)
        return replace(photo.with_pixels(restored), notices=photo.notices + notices)

    def check(self, **options: Unpack[RestoreOptions]) -> None:
        """Raise UsageError for options that are wrong for every photo, before any photo is read."""
        task, tile = options.get("task"), options.get("tile")
        strength, amount, seed = options.get("strength", 1.0), options.get("amount", 1.0), options.get("seed", 0)
        if task is not None and task not in self.manifest.tasks:
            raise UnknownNameError("task", task, self.manifest.tasks)
        if not 0 <= strength <= 1:
            raise UsageError(f"expected a strength from 0 (no texture) to 1, got {strength}")
        if not 0 <= amount <= LARGEST_AMOUNT:
            raise UsageError(
                f"expected an amount from 0 (the photo itself) through 1 (what the model estimates) to "
                f"{LARGEST_AMOUNT} (more), got {amount}"
            )
        if amount > 1 and not self.manifest.takes_amount:
            raise UsageError(
                f"expected an amount from 0 (the photo itself) to 1, got {amount}: the pack '{self.manifest.name}' "
                "does not estimate the damage, so it cannot remove more of it"
            )
        noise = options.get("noise")
        if noise is not None and self.manifest.start_level is None:
            raise UsageError(
                f"got noise {noise:g}, but the pack '{self.manifest.name}' does not use the noise of a photo; "
                "leave the option out"
            )
        if noise is not None and not 0 <= noise <= 255:
            raise UsageError(f"expected noise of a standard deviation from 0 to 255 grey levels, got {noise:g}")
        if not 0 <= seed < 2**64:
            raise UsageError(f"expected a seed from 0 to 2^64 - 1, got {seed}")
        if tile is not None and options.get("max_memory") is not None:
            raise UsageError("got both a tile and a memory limit; give one of them: the memory decides the tile")
        if tile is not None:
            stages, size = tiled_graphs(self.manifest, self.graphs, strength, amount), self.manifest.size
            window = self.manifest.window(stages)
            if window is not None:
                raise UsageError(
                    f"got a tile of {tile} pixels, but the pack '{self.manifest.name}' runs only on tiles of "
                    f"{window.edge} pixels; leave the option out"
                )
            plan(1, 1, tile, self.manifest.radius(stages), size.multiple_of, size.minimum)

    def _layout(self, image: Image, stages: Sequence[str], tile: int | None, max_memory: int | None) -> TilePlan:
        """Tiles that overlap by the receptive field of `stages`, or as their window says."""
        height, width = image.shape[:2]
        size, window = self.manifest.size, self.manifest.window(stages)
        if window is not None:
            self._check_memory(image, max_memory, window)
            return plan(height, width, window.edge, window.overlap, size.multiple_of, size.minimum)
        overlap = self.manifest.radius(stages)
        if tile is None:
            bytes_per_pixel = HOST_BYTES_PER_PIXEL + sum(self.manifest.bytes_per_pixel[name] for name in stages)
            tile = tile_edge(image, max_memory, bytes_per_pixel, overlap, size.multiple_of, size.minimum)
        return plan(height, width, tile, overlap, size.multiple_of, size.minimum)

    def _check_memory(self, image: Image, max_memory: int | None, window: TileWindow) -> None:
        """Raise UsageError where windows, whose size is given, need more than `max_memory`."""
        needed = PROCESS_BYTES + 2 * image.nbytes
        for name in self.graphs:
            field = self.manifest.receptive_field.get(name)
            if field is not None:
                edge, size = field.edge if isinstance(field, TileWindow) else window.edge, self.manifest.size
                height, width = (min(padded_size(s, size.multiple_of, size.minimum), edge) for s in image.shape[:2])
                needed += height * width * (HOST_BYTES_PER_PIXEL + self.manifest.bytes_per_pixel[name])
        if max_memory is not None and needed > max_memory:
            raise _too_little(max_memory, image, needed)


def graph_names(manifest: Manifest, form: str) -> list[str]:
    """The graphs that one form of the restoration needs: "fused", "split", or "auto" for fused where there is one.

    The predictor is always among them where the pack has it: strength 0 runs only the predictor.
    """
    if form not in FORMS:
        raise UnknownNameError("form of the graphs", form, FORMS)
    split = SYSTEMS[manifest.model].split
    names = split if form == "split" or "fused" not in manifest.graphs else ("encode", "predict", "fused")
    if names[-1] not in manifest.graphs or (form == "fused" and names is split):
        raise PackError(f"the pack '{manifest.name}' has no {form} graphs; it has: {', '.join(manifest.graphs)}")
    return [name for name in names if name in manifest.graphs]


def _too_noisy(manifest: Manifest, noise: float) -> tuple[str, ...]:
    """A notice where the photo's own noise is above the noisiest level of the model, nothing elsewhere."""
    level = manifest.levels[0]
    if manifest.start_level is None or not level:
        return ()
    most = 255 * manifest.residual_scale * ((1 - level) / level) ** 0.5
    if noise <= most:
        return ()
    return (f"it has noise of about {noise:.0f} grey levels, of which the model removes at most {most:.0f}",)


def tile_edge(
    image: Image, max_memory: int | None, bytes_per_pixel: int, overlap: int, multiple: int, minimum: int = 0
) -> int:
    """Edge of the tiles for a memory limit, less what the photo and its result need."""
    height, width = (padded_size(size, multiple, minimum) for size in image.shape[:2])
    smallest = max(smallest_tile(overlap, multiple), minimum)
    least = bytes_per_pixel * min(height * width, smallest**2)
    fixed = PROCESS_BYTES + 2 * image.nbytes
    if max_memory is None:
        max_memory = max(MAX_MEMORY_BYTES, fixed + max(WORKING_BYTES, least))
    if fixed + least > max_memory:
        raise _too_little(max_memory, image, fixed + least)
    if bytes_per_pixel * height * width <= max_memory - fixed:
        return max(min(max(height, width), LARGEST_TILE), smallest)
    return min(isqrt((max_memory - fixed) // bytes_per_pixel) // multiple * multiple, LARGEST_TILE)


def _too_little(max_memory: int, image: Image, needed: int) -> UsageError:
    height, width = image.shape[:2]
    at_least, limit = (-(-size // 2**20) for size in (needed, max_memory))
    return UsageError(
        f"a photo of {width} x {height} pixels needs at least {at_least} MiB of memory, got a limit of {limit} MiB; "
        "allow more"
    )
