"""What a comparison found, as data: differences, checks, the error sources that they belong to, the report of a run.

The difference of two arrays is measured in float64, on a fixed scale, and never NaN.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...core.arrays import Array, Image
from ..limits import ParityLimit

__all__ = [
    "ArrayDifference",
    "Check",
    "ErrorBudget",
    "ErrorSource",
    "ImageResult",
    "LayerDifference",
    "LayerValue",
    "ParityReport",
    "as_unit",
    "breach",
    "compare_arrays",
    "measure",
    "scale_of",
    "unmeasured",
]

# Causes before effects: the first error source over its limit is where to look.
ORDER = (
    *("files", "facts", "kernel", "conversion", "runtime", "precision", "quantization"),  # of files and of graph calls
    *("tiling", "pipeline", "forms", "picture", "task", "golden", "steps"),  # of whole restorations
)


@dataclass(frozen=True)
class ArrayDifference:
    """What `measure` found, in units of the scale: 1 is white for an image. Broken values count in no other field."""

    max_abs: float
    rmse: float
    psnr_db: float  # -inf where all values are broken
    shift: float  # the mean difference of the channel that moved most, with its sign
    broken: int  # values that are not finite where they should be, or differ where they should not be finite
    count: int  # values that were compared


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
    checks: Sequence[Check]
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
    def allowed(self) -> str:
        """The least PSNR of the limit, in words; "" without a limit."""
        return "" if self.limit is None else f">= {self.limit.psnr_db:g} dB"

    @property
    def worst(self) -> tuple[Check, ArrayDifference] | None:
        """The check with the largest difference; of those that failed, if any did."""
        found = [(check, check.found) for check in self.broken or self.checks if check.found is not None]
        return max(found, key=lambda pair: (pair[1].broken, -pair[1].psnr_db), default=None)


@dataclass(frozen=True)
class ErrorBudget:
    """Where the error of the final images comes from, as root mean squares in grey levels of 0 to 255."""

    sources: Mapping[str, float]
    total: float  # of what is shipped, compared with the reference
    rest: float  # signed root of the squares that the sources do not add up to; positive if errors point the same way

    def __str__(self) -> str:
        shares = ", ".join(f"{source} {error:.2g}" for source, error in self.sources.items())
        return (
            f"error of the final images, root mean square in grey levels of 255: {self.total:.2g} in all; "
            f"{shares}; unexplained rest {self.rest:+.2g}"
        )


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
    sources: Sequence[ErrorSource]
    runs: Sequence[str] = ()  # the variants, in words
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


def measure(given: NDArray[Any], expected: NDArray[Any], scale: float = 1.0) -> ArrayDifference:
    """Compare two arrays of one shape, (1, C, H, W) or (1, N); ValueError for others and for empty ones."""
    if given.shape != expected.shape or given.size == 0:
        raise ValueError(f"expected two arrays of one shape with values in it, got {given.shape} and {expected.shape}")
    finite = np.isfinite(given) & np.isfinite(expected)
    distance = np.zeros(given.shape)
    distance[finite] = (given[finite].astype(np.float64) - expected[finite].astype(np.float64)) / scale
    rmse = math.sqrt(float(np.mean(np.square(distance))))
    means = distance.mean(axis=(0, 2, 3)) if distance.ndim == 4 else distance.mean(keepdims=True).ravel()
    psnr_db = math.inf if rmse == 0 else -20 * math.log10(rmse)
    return ArrayDifference(
        max_abs=float(np.abs(distance).max()),
        rmse=rmse,
        psnr_db=psnr_db if finite.any() else -math.inf,
        shift=float(means[np.abs(means).argmax()]),
        broken=int(np.count_nonzero(~finite & (given != expected))),
        count=int(finite.size),
    )


def breach(found: ArrayDifference, limit: ParityLimit, *, image: bool) -> str:
    """In what way a difference exceeds a limit, '' if it does not; the mean shift is limited only for images."""
    if found.broken:
        return f"{found.broken} of {found.count} values are not finite"
    if found.psnr_db < limit.psnr_db:
        return f"{found.psnr_db:.1f} dB, expected at least {limit.psnr_db:.1f} dB"
    if found.max_abs > limit.max_abs:
        return f"one value is off by {found.max_abs:.2g}, allowed are {limit.max_abs:.2g}"
    if image and abs(found.shift) > limit.shift:
        return f"a channel is shifted by {found.shift:+.2g}, allowed are {limit.shift:.2g}"
    return ""


def compare_arrays(
    where: tuple[str, str],
    given: NDArray[Any],
    expected: NDArray[Any],
    limit: ParityLimit,
    scale: float = 1.0,
    *,
    image: bool = True,
) -> Check:
    """Check two arrays by a limit; `where` is the (graph, place) of the check. Raises as `measure` does."""
    found = measure(given, expected, scale)
    return Check(*where, breach(found, limit, image=image), found)


def scale_of(*expected: NDArray[Any], least: float = 1.0) -> float:
    """The unit for an array that is no image: the root mean square of its reference, but at least `least`.

    It depends only on the reference, so that a result that is far off cannot make its own error look small.
    """
    squares = sum(float(np.square(array[np.isfinite(array)], dtype=np.float64).sum()) for array in expected)
    return max(least, math.sqrt(squares / sum(array.size for array in expected)))


def as_unit(image: Image) -> NDArray[np.float64]:
    """An image (H, W, 3) as (1, 3, H, W) float64 in 0 to 1."""
    return (image.astype(np.float64) / np.iinfo(image.dtype).max).transpose(2, 0, 1)[np.newaxis]
