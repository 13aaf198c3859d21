"""A recipe: everything that decides how a stage is trained, as one value that round-trips to JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from ..errors import TrainingError, UsageError

__all__ = ["Recipe"]


@dataclass(frozen=True)
class Recipe:
    """How to train one stage."""

    steps: int  # optimiser steps
    batch: int = 32  # crops per step
    crop: int = 96  # side of a crop, pixels
    rate: float = 1e-3  # peak learning rate
    final_rate: float = 1e-5  # learning rate at the end of the cosine
    warmup: int = 500  # steps of linear warm-up
    decay: float = 0.0  # AdamW weight decay
    clip: float = 1.0  # largest gradient norm
    ema: float = 0.999  # decay of the weight average
    precision: str = "bf16"  # autocast type of the forward pass: "bf16" or "fp32"
    seed: int = 0
    save_every: int = 1000  # steps between validation, log line and resume state

    def __post_init__(self) -> None:
        if self.precision not in ("bf16", "fp32"):
            raise UsageError(f"precision must be 'bf16' or 'fp32', got '{self.precision}'")
        for name in ("steps", "batch", "crop", "save_every"):
            if getattr(self, name) < 1:
                raise UsageError(f"recipe field '{name}' must be at least 1, got {getattr(self, name)}")

    def with_settings(self, settings: list[str]) -> Recipe:
        """A copy changed by `name=value` texts. Raises UsageError for an unknown name or a value of another type."""
        values = asdict(self)
        for setting in settings:
            name, separator, text = setting.partition("=")
            if not separator or name not in values:
                raise UsageError(f"unknown setting '{setting}'; write name=value with one of: {', '.join(values)}")
            try:
                values[name] = type(values[name])(text)
            except ValueError:
                kind = type(values[name]).__name__
                raise UsageError(f"setting '{name}' takes a number of type {kind}, got '{text}'") from None
        return Recipe(**values)

    def save(self, path: Path) -> None:
        """Write the recipe as JSON."""
        path.write_text(json.dumps(asdict(self), indent=2) + "\n")

    @classmethod
    def load(cls, path: Path) -> Recipe:
        """Read a recipe written by `save`. Raises TrainingError for unknown or missing fields."""
        values: dict[str, Any] = json.loads(path.read_text())
        names = {f.name for f in fields(cls)}
        if set(values) != names:
            raise TrainingError(f"{path} has recipe fields {sorted(values)}, expected {sorted(names)}")
        return cls(**values)
