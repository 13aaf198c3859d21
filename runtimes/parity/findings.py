"""What a comparison found, as data: checks, the stages that they belong to, and the report of a run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ...core.arrays import Array, Image
from .limits import Limit
from .measures import Difference

__all__ = ["ORDER", "Budget", "Check", "Layer", "Picture", "Report", "Stage", "Value", "unmeasured"]

# Causes before effects: the first stage that breaks is where to look.
ORDER = (
    "files",
    "facts",
    "kernel",
    "conversion",
    "runtime",
    "precision",
    "quantization",
    "tiling",
    "pipeline",
    "forms",
    "picture",
    "task",
    "golden",
    "steps",
)


@dataclass(frozen=True)
class Check:
    """One thing that was compared; `problem` is empty where it held.

    graph: which one, "" for what belongs to none. place: the call, output and case, or the file or field. change_db: of
    the PSNR to the clean photos, where it is about that.
    """

    graph: str
    place: str
    problem: str
    found: Difference | None = None
    change_db: float | None = None

    def __str__(self) -> str:
        return ", ".join(word for word in (self.graph, self.place) if word)


@dataclass(frozen=True)
class Stage:
    """One part of the way from the reference to what runs here.

    limit: what its checks were held to, None where they are exact or nothing is asked of them. reason: why it was not
    measured; "" where it was.
    """

    name: str
    checks: tuple[Check, ...]
    limit: Limit | None = None
    reason: str = ""

    @property
    def broken(self) -> tuple[Check, ...]:
        """The checks that did not hold, in the order in which they were made."""
        return tuple(check for check in self.checks if check.problem)

    @property
    def status(self) -> str:
        """One word or two."""
        if not self.checks:
            return "not measured"
        return "BREACH" if self.broken else "held"

    @property
    def worst(self) -> Check | None:
        """The check that is furthest from what was expected: of those that broke, if some did."""
        found = [check for check in self.broken or self.checks if check.found is not None]
        return max(found, key=lambda check: _badness(check.found), default=None)


@dataclass(frozen=True)
class Budget:
    """Where the error of the final pictures is from: stage -> root mean square in levels of 0 to 255.

    total: of what is shipped against the reference. rest: the root, with its sign, of the squares that the stages do
    not add up to; errors that point the same way give a positive one.
    """

    stages: Mapping[str, float]
    total: float
    rest: float


@dataclass(frozen=True)
class Picture:
    """A final picture beside its reference, both (H, W, 3) uint16."""

    case: str
    form: str
    reference: Image
    restored: Image
    found: Difference


class Value(NamedTuple):
    """An array inside a graph: of which node and operator, and of which part of the model as far as that is told."""

    array: Array
    node: str
    operator: str
    module: str


class Layer(NamedTuple):
    """A layer of a graph and how far what it gives is from what it gives elsewhere; broken: whether it is the first."""

    graph: str
    name: str
    operator: str
    module: str
    found: Difference
    broken: bool


@dataclass(frozen=True)
class Report:
    """A run. runs: what the legs were, in words. layers: by graph, in the order of computation; asked for or empty."""

    pack: str
    model: str
    runtime: str
    precision: str
    arithmetic: str
    reference: str
    environment: Mapping[str, str]
    runs: Sequence[str]
    stages: Sequence[Stage]
    budget: Budget | None = None
    pictures: Sequence[Picture] = ()
    layers: Sequence[Layer] = ()
    notes: Sequence[str] = ()

    @property
    def compared(self) -> int:
        """Numbers that were held against others; file hashes and facts are not among them."""
        return sum(check.found is not None for stage in self.stages for check in stage.checks)

    @property
    def ok(self) -> bool:
        """Something was compared, and nothing broke."""
        return self.compared > 0 and not any(stage.broken for stage in self.stages)

    @property
    def first(self) -> tuple[Stage, Check] | None:
        """Where to look: the first stage that broke, and the first thing in it."""
        ordered = sorted(self.stages, key=lambda stage: ORDER.index(stage.name))
        return next(((stage, stage.broken[0]) for stage in ordered if stage.broken), None)


def unmeasured(reasons: Mapping[str, str]) -> Iterable[Stage]:
    """Stages that were not measured, each with its reason."""
    return (Stage(name, (), reason=reason) for name, reason in reasons.items())


def _badness(found: Difference | None) -> tuple[int, float]:
    assert found is not None
    return found.broken, -found.psnr_db
