"""A recipe: everything that decides how a stage is trained, as one value that round-trips to TOML and JSON.

The options that every command which trains has: how it uses the machine, and for how long."""

from __future__ import annotations

import argparse
import json
import math
import tomllib
import types
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields, is_dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Self, Union, get_args, get_origin, get_type_hints

from ...errors import TrainingError, UsageError
from .threads import PRECISIONS, Threads, parse_threads

__all__ = ["Recipe", "add_options", "options"]

OPTIMIZERS = ("adamw", "muon")


@dataclass(frozen=True)
class Recipe:
    """How to train one stage. A stage that needs more subclasses it.

    The rate rises linearly over `warmup` steps, stays, and falls linearly to zero over the last part of the run; a run
    without that part (`cooldown` 0) can be extended, and a copy of it cooled at any time.

    Raises UsageError for a precision or optimiser that does not exist and for numbers that make no sense: negative or
    not finite, counts below 1, a rate of 0, shares above 1.
    """

    steps: int  # optimiser steps
    batch: int = 32  # crops per step, over all processes
    accumulate: int = 1  # parts that a process computes its share of a batch in, one after the other
    crop: int = 128  # side of a crop, pixels
    grown: tuple[int, ...] = ()  # sides of the crops after `crop`, pixels, each for `grow_every` steps, the last on
    grow_every: int = 2000  # steps
    optimizer: str = "adamw"  # or "muon": Muon for the kernels of hidden convolutions, AdamW for the rest
    rate: float = 1e-3  # peak learning rate of AdamW
    muon_rate: float = 0.01  # peak learning rate of Muon
    warmup: int = 500  # steps over which the rates rise
    cooldown: float = 1.0  # share of the steps after the warm-up, the last ones, over which the rates fall to zero
    decay: float = 0.0  # weight decay, decoupled
    clip: float = 0.0  # largest gradient norm; 0: any
    ema: float = 0.999  # decay of the weight average
    precision: str = "auto"  # autocast type of the forward pass: "bf16", "fp32", or what the machine computes in
    seed: int = 0
    save_every: int = 1000  # steps between validation, log line and resume state

    def __post_init__(self) -> None:
        for name, known in (("precision", PRECISIONS), ("optimizer", OPTIMIZERS)):
            if getattr(self, name) not in known:
                raise UsageError(f"{name} must be one of {', '.join(known)}; got '{getattr(self, name)}'")
        for name, value in ((f.name, getattr(self, f.name)) for f in fields(self)):
            if isinstance(value, int | float) and not 0 <= value < math.inf:
                raise UsageError(f"recipe field '{name}' must be a finite number and not negative, got {value}")
        for name in ("rate", "muon_rate"):
            if getattr(self, name) == 0:
                raise UsageError(f"recipe field '{name}' must be above 0, or nothing would be learnt")
        for name in ("ema", "cooldown"):
            if getattr(self, name) > 1:
                raise UsageError(f"recipe field '{name}' must be at most 1, got {getattr(self, name)}")
        self.at_least_one("steps", "batch", "accumulate", "crop", "grow_every", "save_every")
        if any(a >= b for a, b in pairwise((self.crop, *self.grown))):
            raise UsageError(f"the crops are to grow from {self.crop} to {self.grown}; give sizes that rise")

    def megapixels(self, steps: int) -> float:
        """Of the crops that `steps` steps see, in millions."""
        starts = [min(steps, i * self.grow_every) for i in range(len(self.grown) + 1)]
        counts = [last - first for first, last in pairwise([*starts, steps])]
        sides = (self.crop, *self.grown)
        return sum(count * self.batch * side**2 for count, side in zip(counts, sides, strict=True)) / 1e6

    def at_least_one(self, *names: str) -> None:
        """Raise UsageError when one of the fields `names` is below 1."""
        for name in names:
            if getattr(self, name) < 1:
                raise UsageError(f"recipe field '{name}' must be at least 1, got {getattr(self, name)}")

    def check_crop(self, multiple: int) -> None:
        """Raise UsageError when the model cannot take the crops, whose sides must be multiples of `multiple`."""
        for side in (self.crop, *self.grown):
            if side % multiple:
                raise UsageError(f"crop is {side}, this model needs a multiple of {multiple}; give --set crop=...")

    def crop_at(self, step: int) -> int:
        """Side of the crops of a step, pixels."""
        return (self.crop, *self.grown)[min(step // self.grow_every, len(self.grown))]

    @property
    def largest_crop(self) -> int:
        """Side of the largest crop of any step, pixels: photos must be at least as large."""
        return (self.crop, *self.grown)[-1]

    def share_of_rate(self, step: int, start: int = 0) -> float:
        """What the schedule makes of the peak rates at a step, counted from 0: above 0, at most 1.

        start: step that the optimiser started at, from weights that others had trained.
        """
        cooling = round(self.cooldown * (self.steps - self.warmup))
        return min(1.0, (step + 1 - start) / max(1, self.warmup), (self.steps - step) / max(1, cooling))

    def with_settings(self, settings: Sequence[str]) -> Self:
        """A copy changed by `name=value` texts, one after the other.

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
        """Write the recipe as TOML or JSON, as the suffix of `path` says."""
        if _is_toml(path):
            import tomli_w

            path.write_text(tomli_w.dumps(asdict(self)), encoding="utf-8")
        else:
            path.write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote, exactly. Raises TrainingError for unknown, missing or mistyped fields."""
        decode: Callable[[str], Any] = tomllib.loads if _is_toml(path) else json.loads
        try:
            values = decode(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise TrainingError(f"cannot read the recipe {path}: {error.strerror}") from error
        except ValueError as error:
            raise TrainingError(f"{path} is not valid {path.suffix[1:].upper()}: {error}") from None
        recipe = _built(cls, values, f"{path}: ")
        assert isinstance(recipe, cls)
        return recipe


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
    options = _options(hint)
    if type(None) in options:
        return None if text == "none" else _parsed(_first(options), text)
    if get_origin(hint) is tuple:
        parts = text.split(",") if text else []
        return tuple(_parsed(kind, part) for kind, part in zip(_kinds(hint, len(parts)), parts, strict=True))
    if hint is bool:
        return {"true": True, "false": False}[text] if text in ("true", "false") else _refuse(text)
    return hint(text)


def _built(cls: Any, values: Any, where: str) -> Any:
    """The (nested) dataclass `cls` from its plain form."""
    names = [f.name for f in fields(cls)]
    given = sorted(values) if isinstance(values, dict) else values
    if given != sorted(names):
        raise TrainingError(f"{where}the fields of {cls.__name__} are {given}, expected {sorted(names)}")
    hints = get_type_hints(cls)
    return cls(**{name: _value(hints[name], values[name], f"{where}{name}: ") for name in names})


def _value(hint: Any, value: Any, where: str) -> Any:
    """A plain value read from a file as the type `hint`."""
    if is_dataclass(hint):
        return _built(hint, value, where)
    options = _options(hint)
    if value is None and type(None) in options:
        return None
    if type(None) in options:
        return _value(_first(options), value, where)
    if get_origin(hint) is tuple and isinstance(value, list):
        try:
            return tuple(_value(k, v, where) for k, v in zip(_kinds(hint, len(value)), value, strict=True))
        except ValueError:
            raise TrainingError(f"{where}{len(value)} values given, expected {_described(hint)}") from None
    if hint is float and type(value) is int:
        return float(value)
    if type(value) is not hint:
        raise TrainingError(f"{where}expected {_described(hint)}, got {value!r}")
    return value


def _options(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else ()


def _first(options: tuple[Any, ...]) -> Any:
    return next(option for option in options if option is not type(None))


def _kinds(hint: Any, count: int) -> tuple[Any, ...]:
    """The types of the `count` entries of a tuple of type `hint`."""
    kinds = get_args(hint)
    return kinds[:1] * count if kinds[1:] == (...,) else kinds


def _refuse(text: str) -> Any:
    raise ValueError(text)


def _described(hint: Any) -> str:
    if get_origin(hint) is tuple:
        kinds = get_args(hint)
        return f"a comma list of {kinds[0].__name__}" + ("" if kinds[1:] == (...,) else f", {len(kinds)} of them")
    return {int: "a whole number", float: "a number", bool: "true or false"}.get(
        hint, str(getattr(hint, "__name__", hint))
    )


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare them."""
    parser.add_argument("--workers", type=int, default=1, help="processes that draw batches (default 1)")
    parser.add_argument("--threads", default="auto", help="number of threads; 'auto' (default): as many as cores idle")
    parser.add_argument("--minutes", type=float, help="save and leave after so long; the same command goes on")


def options(args: argparse.Namespace) -> dict[str, Any]:
    """What `loop.train` takes of them. Raises UsageError for numbers that make no sense."""
    if args.workers < 0:
        raise UsageError(f"{args.workers} workers were given; choose 0 (draw in the training process) or more")
    if args.minutes is not None and not args.minutes > 0:
        raise UsageError(f"{args.minutes:g} minutes were given; choose a number above 0")
    threads = Threads(parse_threads(args.threads), Path(args.out))
    return {"workers": args.workers, "minutes": args.minutes, "threads": threads}
