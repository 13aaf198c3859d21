"""A recipe: everything that decides how a stage is trained, as one value that round-trips to TOML and JSON."""

from __future__ import annotations

import json
import math
import tomllib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, is_dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Self, get_args, get_origin, get_type_hints

from ...errors import TrainingError, UsageError
from ...pack.json import decode

__all__ = ["Recipe"]

PRECISIONS = ("auto", "bf16", "fp32")
OPTIMIZERS = ("adamw", "muon")


@dataclass(frozen=True)
class Recipe:
    """How to train one stage; a stage with further settings subclasses it.

    The rate rises linearly over `warmup` steps, stays, and falls linearly to zero over the last part of the run; a run
    without that part (`cooldown` 0) can be extended, and a copy of it cooled at any time. Raises UsageError for an
    unknown precision or optimiser, a negative or infinite number, a count below 1, a rate of 0 or a share above 1.
    """

    steps: int  # optimiser steps
    batch: int = 32  # crops per step, over all processes
    accumulate: int = 1  # parts in which a process computes its share of a batch, one after the other
    crop: int = 128  # side of a crop, pixels
    grown: tuple[int, ...] = ()  # sides of later crops, pixels, each for `grow_every` steps, the last until the end
    grow_every: int = 2000  # steps
    optimizer: str = "adamw"  # or "muon": Muon for the kernels of hidden convolutions, AdamW for the rest
    rate: float = 1e-3  # peak learning rate of AdamW
    muon_rate: float = 0.01  # peak learning rate of Muon
    warmup: int = 500  # steps over which the rates rise
    cooldown: float = 1.0  # share of the steps after the warm-up, the last ones, over which the rates fall to zero
    decay: float = 0.0  # weight decay, decoupled
    clip: float = 0.0  # largest gradient norm; 0: no clipping
    ema: float = 0.999  # decay of the weight average
    precision: str = "auto"  # of the forward pass: "bf16", "fp32", or "auto", the one that is native to the machine
    seed: int = 0
    save_every: int = 1000  # steps between validation, log line and resume state
    counts = ("steps", "batch", "accumulate", "crop", "grow_every", "save_every")  # fields that are at least 1

    def __post_init__(self) -> None:
        for name, known in (("precision", PRECISIONS), ("optimizer", OPTIMIZERS)):
            if getattr(self, name) not in known:
                raise UsageError(f"{name} must be one of {', '.join(known)}; got '{getattr(self, name)}'")
        for name, value in ((f.name, getattr(self, f.name)) for f in fields(self)):
            if isinstance(value, int | float) and not 0 <= value < math.inf:
                raise UsageError(f"recipe field '{name}' must be finite and at least 0, got {value}")
        for name in ("rate", "muon_rate"):
            if getattr(self, name) == 0:
                raise UsageError(f"recipe field '{name}' must be above 0, got 0")
        for name in ("ema", "cooldown"):
            if getattr(self, name) > 1:
                raise UsageError(f"recipe field '{name}' must be at most 1, got {getattr(self, name)}")
        for name in self.counts:
            if getattr(self, name) < 1:
                raise UsageError(f"recipe field '{name}' must be at least 1, got {getattr(self, name)}")
        if any(a >= b for a, b in pairwise(self.sides)):
            raise UsageError(f"crops must grow: expected sizes that rise from crop={self.crop}, got grown={self.grown}")

    def megapixels(self, steps: int) -> float:
        """Millions of pixels in the crops of `steps` steps."""
        starts = [min(steps, i * self.grow_every) for i in range(len(self.sides))]
        counts = [last - first for first, last in pairwise([*starts, steps])]
        return sum(count * self.batch * side**2 for count, side in zip(counts, self.sides, strict=True)) / 1e6

    def check_crop(self, multiple: int) -> None:
        """Raise UsageError unless the sides of all crops are multiples of `multiple`, as the model needs."""
        for side in self.sides:
            if side % multiple:
                raise UsageError(f"crop is {side}, this model needs a multiple of {multiple}; give --set crop=...")

    @property
    def sides(self) -> tuple[int, ...]:
        """Sides of the crops, pixels, in the order of the run."""
        return (self.crop, *self.grown)

    @property
    def largest_crop(self) -> int:
        """Side of the largest crop of any step, pixels: photos must be at least as large."""
        return self.sides[-1]

    def crop_at(self, step: int) -> int:
        """Side of the crops of a step, pixels."""
        return self.sides[min(step // self.grow_every, len(self.grown))]

    def share_of_rate(self, step: int, start: int = 0) -> float:
        """The factor in (0, 1] by which the schedule multiplies the peak rates at a step, counted from 0.

        start: the step at which this optimiser started, if the run began from trained weights.
        """
        cooling = round(self.cooldown * (self.steps - self.warmup))
        return min(1.0, (step + 1 - start) / max(1, self.warmup), (self.steps - step) / max(1, cooling))

    def with_settings(self, settings: Sequence[str]) -> Self:
        """Return a copy changed by `name=value` texts, in order.

        A dotted name reaches into a nested dataclass (model.denoiser.blocks=1,2); a tuple is a comma list, a bool is
        true or false. Raises UsageError for an unknown name or a value of another type.
        """
        recipe = self
        for setting in settings:
            name, separator, text = setting.partition("=")
            if not separator:
                raise UsageError(f"setting '{setting}' has no value; write name=value with one of: {_names(self)}")
            recipe = _changed(recipe, name.split("."), text, setting)
        return recipe

    def save(self, path: Path) -> None:
        """Write the recipe as TOML or JSON, by the suffix of `path`."""
        if _is_toml(path):
            import tomli_w

            path.write_text(tomli_w.dumps(asdict(self)), encoding="utf-8")
        else:
            path.write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote, exactly; raise TrainingError for unknown, missing or mistyped fields."""
        try:
            text = path.read_text(encoding="utf-8")
            values = tomllib.loads(text) if _is_toml(path) else json.loads(text)
        except OSError as error:
            raise TrainingError(f"cannot read the recipe {path}: {error.strerror}") from error
        except ValueError as error:
            raise TrainingError(f"{path} is not valid {path.suffix[1:].upper()}: {error}") from None
        advice = "a recipe file names every field of the stage's recipe"
        return decode(cls, values, str(path), error=TrainingError, advice=advice, complete=True)


def _is_toml(path: Path) -> bool:
    if path.suffix not in (".toml", ".json"):
        raise UsageError(f"a recipe is a .toml or .json file, got '{path}'")
    return path.suffix == ".toml"


def _names(holder: Any) -> str:
    return ", ".join(f.name for f in fields(holder))


def _changed(holder: Any, path: list[str], text: str, setting: str) -> Any:
    """A copy of the dataclass `holder` in which the field at `path` is what `text` says."""
    name, *rest = path
    if name not in {f.name for f in fields(holder)}:
        kind = "" if isinstance(holder, Recipe) else f" of {type(holder).__name__}"
        raise UsageError(f"unknown setting '{setting}'; write name=value with one of: {_names(holder)}{kind}")
    value = getattr(holder, name)
    if is_dataclass(value) and not rest:
        raise UsageError(f"setting '{setting}' names a group; write {setting.partition('=')[0]}.NAME=value, one of: "
                         f"{_names(value)}")  # fmt: skip
    if rest and not is_dataclass(value):
        raise UsageError(f"setting '{setting}': '{name}' has no fields of its own; valid names: {_names(holder)}")
    if rest:
        return replace(holder, **{name: _changed(value, rest, text, setting)})
    hint = get_type_hints(type(holder))[name]
    try:
        return replace(holder, **{name: _parsed(hint, text)})
    except ValueError:
        raise UsageError(f"setting '{setting}': '{name}' takes {_described(hint)}, got '{text}'") from None


def _parsed(hint: Any, text: str) -> Any:
    """`text` as a value of the type `hint`; ValueError when it is none."""
    if get_origin(hint) is tuple:
        parts, kinds = text.split(",") if text else [], get_args(hint)
        kinds = kinds[:1] * len(parts) if kinds[1:] == (...,) else kinds
        return tuple(_parsed(kind, part) for kind, part in zip(kinds, parts, strict=True))
    return bool(("false", "true").index(text)) if hint is bool else hint(text)


def _described(hint: Any) -> str:
    if get_origin(hint) is tuple:
        kinds = get_args(hint)
        return f"a comma list of {kinds[0].__name__}" + ("" if kinds[1:] == (...,) else f", {len(kinds)} of them")
    return str({int: "a whole number", float: "a number", bool: "true or false"}.get(hint, hint.__name__))
