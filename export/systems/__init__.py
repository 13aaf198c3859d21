"""The systems that can be exported: one file per system, which holds its `SOURCE`, and one name in `SYSTEMS`."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...core.errors import UsageError
from ...core.pack.manifest import TileWindow

if TYPE_CHECKING:
    from .source import CheckpointSource

__all__ = ["SYSTEMS", "SamplingOptions", "check_options", "source_of"]

SYSTEMS = ("dtpm", "diffir", "gen2res")  # kinds of checkpoints


@dataclass(frozen=True)
class SamplingOptions:
    """How a model samples; None leaves it to the system, which refuses what it does not know.

    Raises UsageError for numbers that make no sense for any system.
    """

    semantic: str | None = None  # DTPM: its semantic encoder, a file or timm:MODEL=FILE
    steps: int | None = None  # of the sampler
    gain: float | None = None  # share of what the model adds at strength 1
    window: TileWindow | None = None  # tiles of a model that sees all of its tile
    start: int | None = None  # Gen2Res: level of 1000 that photos are noised to
    sampler: str | None = None  # Gen2Res: "ddim" or "ancestral"

    def __post_init__(self) -> None:
        if self.gain is not None and not 0 < self.gain < math.inf:
            raise UsageError(f"expected a gain above 0, got {self.gain:g}")
        if self.steps is not None and self.steps < 0:
            raise UsageError(f"expected a number of sampling steps, got {self.steps}")

    @property
    def given(self) -> dict[str, Any]:
        """The options that are not None."""
        return {name: value for name, value in vars(self).items() if value is not None}


def source_of(checkpoint: Path, options: SamplingOptions) -> CheckpointSource:
    """The source of a pack for the system that the checkpoint holds.

    Raises CheckpointError, and UsageError for an option that its system does not have.
    """
    from ...core.models import checkpoints

    kind = checkpoints.load(checkpoint, *SYSTEMS).kind
    check_options(kind, options)
    return _source_class(kind)(checkpoint, **options.given)


def check_options(system: str, options: SamplingOptions) -> None:
    """Raise UsageError for an option that the system does not have."""
    known = _source_class(system).__dataclass_fields__
    for name in options.given:
        if name not in known:
            usable = ", ".join(f"--{field.name}" for field in fields(SamplingOptions) if field.name in known)
            raise UsageError(f"--{name} was given for a {system} checkpoint; its options are: {usable}")


def _source_class(system: str) -> Any:
    return import_module(f".{system}", __package__).SOURCE
