"""The padded photo as a whole, for comparing tiles with one pass over it."""

from __future__ import annotations

import numpy as np

from pocketprior.core.arrays import Batch
from pocketprior.core.pack.manifest import padded_size
from pocketprior.core.restore import tiles

__all__ = ["crop", "pad_to_multiple"]


def pad_to_multiple(batch: Batch, multiple: int, minimum: int = 0) -> Batch:
    """Batch (N, C, H, W) with H and W rounded up to multiples: the same pixels as those of `tiles.cut`."""
    height, width = batch.shape[2:]
    rows, cols = (tiles._source(side, 0, padded_size(side, multiple, minimum)) for side in (height, width))
    return np.ascontiguousarray(batch[:, :, rows[:, np.newaxis], cols])


def crop(batch: Batch, height: int, width: int) -> Batch:
    """Undoes `pad_to_multiple`."""
    return batch[:, :, :height, :width]
