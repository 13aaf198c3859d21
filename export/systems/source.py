"""What the writer of packs needs of a trained model, of whatever system."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from ...core.arrays import FloatImage
from ...core.degradations import TASKS
from ...core.errors import UsageError
from ...core.pack.manifest import Size, TileWindow
from .model_graph import ModelGraph

__all__ = ["DEFAULT_WINDOW", "CheckpointSource", "Damage", "ModelWords", "Opened", "files_digest"]

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
        fields: Mapping[str, int | TileWindow] = self.facts["receptive_field"]
        facts = {
            "size": Size(multiple, edge, fixed=True),
            "receptive_field": {
                n: TileWindow(edge, r.overlap) if isinstance(r, TileWindow) else r for n, r in fields.items()
            },
        }
        return replace(self, facts={**self.facts, **facts})


class CheckpointSource(Protocol):
    """The checkpoint of a pack, and how it is to sample; fields after the path are the options of its system."""

    @property
    def model(self) -> Path:
        """The checkpoint's file."""
        ...

    def open(self) -> Opened:
        """The model. Raises CheckpointError, and UsageError for a model that cannot be packed."""
        ...

    def digest(self) -> str:
        """sha256 over the files of the checkpoints."""
        ...


def files_digest(*paths: Path) -> str:
    """sha256 (hex) over files, one after the other."""
    together = hashlib.sha256()
    for path in paths:
        together.update(path.read_bytes())
    return together.hexdigest()
