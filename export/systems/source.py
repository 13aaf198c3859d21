"""What the writer of packs needs of a trained model, of whatever system: its graphs, facts and words.

Graphs are PyTorch modules: what is traced is the reference, rewritten only where that is exact. Each module's `forward`
takes, by name, and returns, in order, exactly the arrays of the pack's contract (`core/pack/systems.py`); several
outputs are a tuple. The modules of a system are in the file of that name.
"""

from __future__ import annotations

import hashlib
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from ...core.arrays import FloatImage
from ...core.degradations import TASKS
from ...core.errors import UsageError
from ...core.pack.manifest import Size, TileWindow
from ...core.pack.systems import ArraySpec

__all__ = ["CheckpointSource", "ModelGraph", "ModelWords", "Opened", "part_way", "receptive_field", "traced"]

_EXAMPLE = (32, 48)  # multiples of the sampling grid, different so that height and width cannot be confused


class ModelGraph(NamedTuple):
    """A module with the names, dtypes and shapes of what goes in and out."""

    module: nn.Module
    inputs: dict[str, ArraySpec]
    outputs: dict[str, ArraySpec]

    def example(self, height: int, width: int, seed: int = 0) -> dict[str, Tensor]:
        """Random inputs in [0, 1] for tiles of this size."""
        random = torch.Generator().manual_seed(seed)
        sizes = {"h": height, "w": width}
        return {
            name: torch.rand([sizes.get(s, s) if isinstance(s, str) else s for s in spec.shape], generator=random)  # type: ignore[misc]
            for name, spec in self.inputs.items()
        }


def part_way(image: Tensor, restored: Tensor, share: Tensor) -> Tensor:
    """Blend an image (N, 3, H, W) with its restoration by the share (N,) of the latter; clipped to [0, 1]."""
    return (image + share.reshape(-1, 1, 1, 1) * (restored - image)).clamp(0, 1)


def traced(graph: ModelGraph, multiple: int, tile: int | None = None) -> torch.export.ExportedProgram:
    """The graph in PyTorch's operators, from which each target is written.

    Heights and widths are any multiples of `multiple` pixels, unless `tile` is the only one.
    """
    height, width = (tile, tile) if tile else (multiple * side for side in _EXAMPLE)
    sizes = {symbol: multiple * torch.export.Dim(f"{symbol}_units", min=1, max=2**16) for symbol in ("h", "w")}
    shapes = {
        name: {axis: sizes[s] for axis, s in enumerate(spec.shape) if isinstance(s, str)} or None
        for name, spec in graph.inputs.items()
    }
    free = tile is None and any(shapes.values())
    with warnings.catch_warnings(action="ignore"), torch.no_grad():  # PyTorch warns about its own deprecations
        example = graph.example(height, width)
        return torch.export.export(graph.module, (), example, dynamic_shapes=shapes if free else None)


@torch.no_grad()
def receptive_field(graph: ModelGraph, multiple: int, limit: int = 256) -> int:
    """The largest distance, in pixels, from which an output pixel can be influenced: exact, by following NaN.

    One row of every spatial input is NaN at a time, then one column, at each of the `multiple` positions on the
    sampling grid; the result is how far from it an output is NaN. Raises ValueError if that may be more than `limit`.
    """
    length = -(-2 * limit // multiple) * multiple
    largest = 0
    for axis in (2, 3):
        for place in range(length // 2, length // 2 + multiple):
            inputs = graph.example(*((length, multiple) if axis == 2 else (multiple, length)))
            for name, spec in graph.inputs.items():
                if "h" in spec.shape:
                    inputs[name].select(axis, place).fill_(torch.nan)
            outputs = graph.module(**inputs)
            for output in outputs if isinstance(outputs, tuple) else (outputs,):
                touched = output.isnan().any(dim=1).any(dim=4 - axis)[0].nonzero()
                largest = max(largest, int((touched - place).abs().max()))
    if largest >= limit - multiple:
        raise ValueError(f"the receptive field is larger than the {limit} pixels that were examined")
    return largest


DEFAULT_WINDOW = TileWindow(256, 32)  # tiles of a model that sees all of its tile

Damage = Callable[[FloatImage, np.random.Generator], FloatImage]


class ModelWords(NamedTuple):
    """Sentences for the model card; `what` is followed by size and cost."""

    what: str
    strength: str
    training: str
    limits: str


@dataclass(frozen=True)
class Opened:
    """A model that is ready to be exported."""

    graphs: Mapping[str, ModelGraph]  # by name
    facts: Mapping[str, Any]  # the fields of the manifest that are the system's own
    about: ModelWords
    damage: Damage = TASKS["cleanup"]  # spoils the photo of the golden restoration

    def in_tiles(self, edge: int) -> Opened:
        """The model for tiles of exactly `edge` x `edge` pixels. Raises UsageError for an impossible edge."""
        multiple: int = self.facts["size"].multiple_of
        if edge < 1 or edge % multiple:
            raise UsageError(f"expected tiles of a multiple of {multiple} pixels, got {edge}")
        given: dict[str, int | TileWindow] = self.facts["receptive_field"]
        fields = {n: TileWindow(edge, r.overlap) if isinstance(r, TileWindow) else r for n, r in given.items()}
        size = Size(multiple, edge, fixed=True)
        return replace(self, facts={**self.facts, "size": size, "receptive_field": fields})


@dataclass(frozen=True)
class CheckpointSource(ABC):
    """The checkpoint of a pack, and how it is to sample; fields after the path are the options of its system."""

    model: Path  # the checkpoint's file

    @abstractmethod
    def open(self) -> Opened:
        """The model. Raises CheckpointError, and UsageError for a model that cannot be packed."""

    def files(self) -> list[Path]:
        """The files of the checkpoints."""
        return [self.model]

    def digest(self) -> str:
        """sha256 (hex) over the files, one after the other."""
        return hashlib.sha256(b"".join(path.read_bytes() for path in self.files())).hexdigest()
