"""What a comparison found, as data: checks, the error sources that they belong to, and the report of a run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ...core.arrays import Array, Image
from ..limits import ParityLimit
from .measures import ArrayDifference

__all__ = [
    "Check",
    "ErrorBudget",
    "ErrorSource",
    "ImageResult",
    "LayerDifference",
    "LayerValue",
    "ParityReport",
    "unmeasured",
]

# Causes before effects: the first error source over its limit is where to look.
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
    """One thing that was compared."""

    graph: str  # "" for what belongs to no graph
    place: str  # the call, output and case, or the file or field
    problem: str  # "" where the check passed
    found: ArrayDifference | None = None
    change_db: float | None = None  # of the PSNR to the clean photos

    def __str__(self) -> str:
        return ", ".join(word for word in (self.graph, self.place) if word)


@dataclass(frozen=True)
class ErrorSource:
    """One step of the way from the reference to what runs here, with its checks."""

    name: str  # one of ORDER
    checks: tuple[Check, ...]
    limit: ParityLimit | None = None  # None where checks are exact or have no limit
    reason: str = ""  # why it was not measured; "" where it was

    @property
    def broken(self) -> tuple[Check, ...]:
        """The checks that failed, in the order in which they were made."""
        return tuple(check for check in self.checks if check.problem)

    @property
    def status(self) -> str:
        """One of "held", "BREACH" and "not measured"."""
        if not self.checks:
            return "not measured"
        return "BREACH" if self.broken else "held"

    @property
    def worst(self) -> Check | None:
        """The check with the largest difference; of those that failed, if any did."""
        found = [check for check in self.broken or self.checks if check.found is not None]
        return max(found, key=lambda check: _badness(check.found), default=None)


@dataclass(frozen=True)
class ErrorBudget:
    """Where the error of the final images comes from, as root mean squares in grey levels of 0 to 255."""

    sources: Mapping[str, float]
    total: float  # of what is shipped, compared with the reference
    rest: float  # signed root of the squares that the sources do not add up to; positive if errors point the same way


@dataclass(frozen=True)
class ImageResult:
    """A final image and its reference, both (H, W, 3) uint16."""

    case: str
    form: str
    reference: Image
    restored: Image
    found: ArrayDifference


class LayerValue(NamedTuple):
    """An array inside a graph."""

    array: Array
    node: str
    operator: str
    module: str  # the part of the model that the node comes from, "" if unknown


class LayerDifference(NamedTuple):
    """A layer of a graph, compared with the same layer of another variant."""

    graph: str
    name: str
    operator: str
    module: str
    found: ArrayDifference
    broken: bool  # whether it is the first over the limit


@dataclass(frozen=True)
class ParityReport:
    """What a run of `compare` found."""

    pack: str
    model: str
    runtime: str
    precision: str
    arithmetic: str
    reference: str
    environment: Mapping[str, str]
    runs: Sequence[str]  # the variants, in words
    sources: Sequence[ErrorSource]
    budget: ErrorBudget | None = None
    images: Sequence[ImageResult] = ()
    layers: Sequence[LayerDifference] = ()  # by graph, in the order of computation; only if asked for
    notes: Sequence[str] = ()

    @property
    def compared(self) -> int:
        """How many arrays were compared; file hashes and facts do not count."""
        return sum(check.found is not None for source in self.sources for check in source.checks)

    @property
    def ok(self) -> bool:
        """Something was compared, and every check passed."""
        return self.compared > 0 and not any(source.broken for source in self.sources)

    @property
    def first(self) -> tuple[ErrorSource, Check] | None:
        """Where to look: the first error source over its limit, and its first failed check."""
        ordered = sorted(self.sources, key=lambda source: ORDER.index(source.name))
        return next(((source, source.broken[0]) for source in ordered if source.broken), None)


def unmeasured(reasons: Mapping[str, str]) -> Iterable[ErrorSource]:
    """Error sources that were not measured, each with its reason."""
    return (ErrorSource(name, (), reason=reason) for name, reason in reasons.items())


def _badness(found: ArrayDifference | None) -> tuple[int, float]:
    assert found is not None
    return found.broken, -found.psnr_db
