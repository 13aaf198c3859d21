"""A photo of any size in tiles of one size, and the tiles back in one photo, with bounded memory.

The photo is padded at the bottom and right to a multiple of the graph's downsampling, and to the least that it takes
(reflected; where that runs out, the first pixel repeats). Tiles are windows of the padded photo that start on multiples
too, so that a graph sees in a tile just what it sees in the whole. Along either axis:

    |<------------- read, tile k -------------->|
    |<-overlap->|<------- write, k ---->|<-overlap->|
                                |<-feather->|<------- write, k + 1 ------->|<-overlap->|
                |<--- done, k ->|<-------------- done, k + 1 ---->| ...

Nothing in `write` is nearer than `overlap` to an edge of `read`, but for the photo's own edges. With an overlap of at
least the receptive field's radius a tiled result therefore equals the whole one: two tiles agree in the feather zone,
and the ramp there hides only rounding. The `done` boxes, which `join` returns, cover the photo, each pixel once.

The result of a graph whose receptive field has no limit (attention or normalisation over the whole tile) depends on the
tiles. It runs on tiles of one size, a `TileWindow`, whatever the memory; there the ramp hides that two tiles differ.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..arrays import Batch, Image
from ..errors import GraphError, UsageError
from ..native import library
from ..pack.manifest import FEATHER, padded_size, smallest_tile

__all__ = ["Box", "Tile", "TilePlan", "blend", "cut", "join", "plan", "split"]

_Span: TypeAlias = tuple[tuple[int, int], ...]  # a tile along one axis: read, write, done

_RAMP: NDArray[np.float32] = np.arange(1, FEATHER + 1, dtype=np.float32) / np.float32(FEATHER + 1)


@dataclass(frozen=True)
class Box:
    """Rows [y0, y1) and columns [x0, x1) of the padded photo, in pixels."""

    y0: int
    y1: int
    x0: int
    x1: int

    @property
    def rows(self) -> tuple[int, int]:
        """(y0, y1), as `noise.normal` takes them."""
        return self.y0, self.y1

    @property
    def cols(self) -> tuple[int, int]:
        """(x0, x1), as `noise.normal` takes them."""
        return self.x0, self.x1

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width)."""
        return self.y1 - self.y0, self.x1 - self.x0

    @property
    def slices(self) -> tuple[slice, slice]:
        """Index of the box in an Image."""
        return slice(self.y0, self.y1), slice(self.x0, self.x1)


@dataclass(frozen=True)
class Tile:
    """A tile and its parts."""

    read: Box  # what a graph gets
    write: Box  # what its result is used for
    done: Box  # what no later tile changes


@dataclass(frozen=True)
class TilePlan:
    """The tiles of a photo of `height` x `width`, row by row, left to right; all `read` boxes have one shape."""

    height: int
    width: int
    tiles: tuple[Tile, ...]


def plan(height: int, width: int, tile: int, overlap: int, multiple: int, minimum: int = 0) -> TilePlan:
    """Tiles for a photo of `height` x `width` pixels.

    tile: edge of the tiles, rounded down to a multiple; overlap: at least the receptive field's radius; multiple: of
    the heights and widths that the graphs take; minimum: the smallest of these, a multiple too.
    Raises UsageError for sizes below 1 and for a tile below `smallest_tile` or `minimum`.
    """
    if min(height, width, multiple) < 1 or overlap < 0:
        raise UsageError(
            "expected sizes and a multiple of at least 1 and an overlap of at least 0, got "
            f"{height} x {width} pixels, overlap {overlap}, multiple {multiple}"
        )
    smallest = max(smallest_tile(overlap, multiple), minimum)
    if tile < smallest:
        raise UsageError(
            f"expected a tile of at least {smallest} pixels for an overlap of {overlap}, got {tile}; "
            "choose a larger tile"
        )
    edge = tile // multiple * multiple
    down, across = (_spans(side, edge, overlap, multiple, minimum) for side in (height, width))
    return TilePlan(height, width, tuple(_tile(y, x) for y in down for x in across))


def split(height: int, width: int, edge: int, multiple: int, minimum: int = 0) -> list[Box]:
    """The padded photo in as few boxes of at most `edge` pixels as there can be, about equally large, without overlap.

    For means over a photo. `edge` is at least `multiple` and `minimum`, which are as in `plan`.
    """
    bounds: list[list[int]] = []
    for side in (height, width):
        units = padded_size(side, multiple, minimum) // multiple
        parts = -(-units // (edge // multiple))
        bounds.append([multiple * (i * units // parts) for i in range(parts + 1)])
    return [Box(*y, *x) for y in pairwise(bounds[0]) for x in pairwise(bounds[1])]


def _spans(size: int, tile: int, overlap: int, multiple: int, minimum: int) -> list[_Span]:
    padded = padded_size(size, multiple, minimum)
    if padded <= tile:
        return [((0, padded), (0, size), (0, size))]
    step = (tile - 2 * overlap - FEATHER) // multiple * multiple
    starts = [*range(0, padded - tile, step), padded - tile]
    ends = [start + tile - overlap for start in starts[:-1]]
    firsts = [0, *(end - FEATHER for end in ends)]
    return [
        ((start, start + tile), (first, end), (first, done))
        for start, first, end, done in zip(starts, firsts, [*ends, size], [*firsts[1:], size], strict=True)
    ]


def _tile(y: _Span, x: _Span) -> Tile:
    return Tile(*(Box(*rows, *cols) for rows, cols in zip(y, x, strict=True)))


def _source(size: int, start: int, stop: int) -> NDArray[np.intp]:
    """Where the padded photo's positions [start, stop) come from: themselves, else reflected, else position 0."""
    position = np.arange(start, stop)
    return np.maximum(np.where(position < size, position, 2 * (size - 1) - position), 0)


def cut(image: Image, box: Box) -> Image:
    """The part `box` of the padded photo, from the photo itself: (box height, box width, 3); a view where it can be."""
    height, width, _ = image.shape
    if box.y1 <= height and box.x1 <= width:
        return image[box.slices]
    return image[_source(height, *box.rows)[:, np.newaxis], _source(width, *box.cols)]


def blend(kept: Batch, fresh: Batch, axis: int) -> Batch:
    """A seam (1, C, FEATHER, W) for axis 0, (1, C, H, FEATHER) for axis 1: from `kept` to `fresh` along the axis.

    kept + ramp * (fresh - kept), ramp = 1 / (FEATHER + 1) ... FEATHER / (FEATHER + 1): the weights add up to one, and
    where the two agree the result is that value exactly.
    """
    lib = library()
    return _blend_numpy(kept, fresh, axis) if lib is None else _blend_native(lib, kept, fresh, axis)


def _blend_numpy(kept: Batch, fresh: Batch, axis: int) -> Batch:
    seam = fresh - kept
    seam *= _RAMP[:, np.newaxis] if axis == 0 else _RAMP
    seam += kept
    return seam


def _blend_native(lib: ctypes.CDLL, kept: Batch, fresh: Batch, axis: int) -> Batch:
    kept, fresh = np.ascontiguousarray(kept), np.ascontiguousarray(fresh)
    out = np.empty_like(kept)
    lib.pp_blend(kept, fresh, _RAMP, axis, *kept.shape[1:], out)
    return out


def join(plan: TilePlan, results: Iterable[Batch]) -> Iterator[tuple[Box, Batch]]:
    """The photo in finished pieces: (box, values (1, 3, box height, box width)), boxes covering each pixel once.

    `results` yields, for each of `plan.tiles` in order, the result for its `read` box, (1, 3, H, W) float32. Besides
    the current one only the open seams are in memory: FEATHER rows of the photo and FEATHER columns of the tile.
    Raises GraphError for a result of another shape.
    """
    open_rows = FEATHER if plan.tiles[-1].write.y0 > 0 else 0
    below = np.empty((1, 3, open_rows, plan.width), np.float32)
    right = np.empty((1, 3, 0, 0), np.float32)
    for tile, result in zip(plan.tiles, results, strict=True):
        height, width = tile.done.shape
        block = _written(tile, result)
        if tile.write.x0 > 0:
            block[..., :FEATHER] = blend(right, block[..., :FEATHER], axis=1)
        block, right = block[..., :width], block[..., width:].copy()
        seam = below[..., tile.done.x0 : tile.done.x1]
        if tile.write.y0 > 0:
            block[:, :, :FEATHER] = blend(seam, block[:, :, :FEATHER], axis=0)
        if tile.write.y1 > tile.done.y1:
            seam[...] = block[:, :, height:]
        yield tile.done, block[:, :, :height]


def _written(tile: Tile, result: Batch) -> Batch:
    """A copy of the part of a tile's result that is used."""
    if result.shape != (1, 3, *tile.read.shape):
        raise GraphError(f"expected a result of shape {(1, 3, *tile.read.shape)} for a tile, got {result.shape}")
    y, x = tile.write.y0 - tile.read.y0, tile.write.x0 - tile.read.x0
    height, width = tile.write.shape
    return result[:, :, y : y + height, x : x + width].copy()
