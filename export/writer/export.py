"""The public function `export`: one checkpoint, or those of several tasks around one prior, become a pack."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ...core.errors import UsageError
from ...core.pack.manifest import Manifest
from ...core.photo.listing import released_photos
from ..systems import SamplingOptions, source_of
from ..systems.dtpm import DtpmSource
from .multitask import write_tasks
from .pack import PackOptions, write_pack

__all__ = ["export"]

_PHOTOS = 24  # validation photos, from which 8 bits get their ranges


def export(
    checkpoints: Sequence[Path],
    folder: Path,
    data: Path,
    options: PackOptions | None = None,
    sampling: SamplingOptions | None = None,
) -> Manifest:
    """Write a pack from trained checkpoints.

    Args:
        checkpoints: A model.safetensors of any system, or those of several DTPMs that share their prior, one per task.
        folder: Of the pack; it must not exist.
        data: Folder of clean photos; of a data folder its `val` photos are taken.
        options: What the pack holds; None for float32 ONNX graphs.
        sampling: How the model samples; None for the defaults of its system.

    Returns:
        The manifest of the pack.

    Raises:
        UsageError: The checkpoints cannot share a pack, or one cannot have these options.
        PocketPriorError: As `write_pack`.
    """
    options, photos = options or PackOptions(), released_photos(data, split="val")[:_PHOTOS]
    sources = [source_of(checkpoint, sampling or SamplingOptions()) for checkpoint in checkpoints]
    if len(sources) == 1:
        return write_pack(sources[0], folder, photos, options)
    shared = [source for source in sources if isinstance(source, DtpmSource)]
    if len(shared) < len(sources) or not sources:
        raise UsageError("only checkpoints of DTPMs can share a pack; export the others one at a time")
    return write_tasks(shared, folder, photos, options)
