"""What the writer of packs needs of a trained model, whichever system it is of."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from ..core.arrays import FloatImage
from ..core.degradations import TASKS
from ..core.errors import UsageError
from ..core.pack.manifest import Size
from ..core.pack.size import TileWindow
from .graphs import Graph

__all__ = ["FUSED_STEPS", "WINDOW", "About", "Opened", "Source", "Task", "digest"]

FUSED_STEPS = 8  # at most: such a graph repeats the nodes of the denoiser for each step
WINDOW = TileWindow(256, 32)  # tiles of a model that sees all of its tile, unless told otherwise

Task = Callable[[FloatImage, np.random.Generator], FloatImage]


class About(NamedTuple):
    """What the model card says of a model: sentences; `what` is followed by its size and cost."""

    what: str
    strength: str
    training: str
    limits: str


@dataclass(frozen=True)
class Opened:
    """A model that is ready to be exported.

    graphs: by name. facts: the fields of the manifest that are the system's own. damage: the task that spoils the
    photo of the golden restoration.
    """

    graphs: Mapping[str, Graph]
    facts: Mapping[str, Any]
    about: About
    damage: Task = TASKS["cleanup"]

    def in_tiles(self, edge: int) -> Opened:
        """The model for tiles of just `edge` x `edge` pixels. Raises UsageError for an edge that it cannot have."""
        multiple: int = self.facts["size"].multiple_of
        if edge < 1 or edge % multiple:
            raise UsageError(f"tiles of {edge} pixels were asked for; choose a multiple of {multiple}")
        reach: Mapping[str, int | TileWindow] = self.facts["receptive_field"]
        facts = {
            "size": Size(multiple, edge, fixed=True),
            "receptive_field": {
                n: TileWindow(edge, r.overlap) if isinstance(r, TileWindow) else r for n, r in reach.items()
            },
        }
        return replace(self, facts={**self.facts, **facts})


class Source(Protocol):
    """The checkpoints that a pack is made of, and how it is to sample."""

    def open(self) -> Opened:
        """The model. Raises CheckpointError, UsageError for what cannot be packed."""
        ...

    def digest(self) -> str:
        """sha256 over the files of the checkpoints."""
        ...


def digest(*paths: Path) -> str:
    """sha256 (hex) over files, one after the other."""
    together = hashlib.sha256()
    for path in paths:
        together.update(path.read_bytes())
    return together.hexdigest()
