"""The thresholds of the gates of this layer, each with its reason: of parity by precision, and of `bench quality`."""

from __future__ import annotations

import math
from typing import NamedTuple

from ..core.pack.manifest import Manifest

__all__ = ["GateLimit", "ParityLimit", "doubled", "limit_of", "sharpened", "task_drop_db"]


class ParityLimit(NamedTuple):
    """What a difference between two arrays may be, in units of their scale: 1 is white for an image."""

    psnr_db: float  # at least
    max_abs: float  # of any one value, at most
    shift: float  # of the mean of an image's channel, at most
    reason: str


# By what a graph computes in; each record has its reason.
PARITY_LIMITS = {
    "host": ParityLimit(
        100, 2e-5, 1e-6, "the same float32 arithmetic on the same numbers: one 16-bit value may round the other way"
    ),
    "fp32": ParityLimit(
        90, 1e-3, 1e-5, "float32 sums in another order stay below 0.008 grey levels; more is another computation"
    ),
    "half": ParityLimit(
        50, 0.1, 1e-3, "16 bits of arithmetic or of weights cost 0.8 grey levels at most, spread evenly"
    ),
    "coded": ParityLimit(
        40,
        0.25,
        2e-3,
        "quantization may cost 2.6 grey levels, which is invisible; half a grey level of brightness is not",
    ),
    "form": ParityLimit(
        90, 1e-5, 1e-6, "one graph for all steps and a loop around graphs compute the same float32 numbers"
    ),
}
# A conversion is held to ten times PyTorch's own rounding, but never beyond this: a runtime computes functions such as
# exp and erf by polynomials of its own, which no rounding of PyTorch bounds.
SHARPEST_DB = 110.0
# PSNR to the clean photos that a pack may lose in the mean: a tenth of the gain that `bench quality` demands.
TASK_DROP_DB = 0.1


class GateLimit(NamedTuple):
    """What the mean of a metric must gain over a baseline."""

    metric: str
    word: str  # "below" or "at least"
    bound: float
    unit: str
    reason: str

    def allows(self, change: float) -> bool:
        """Whether a change of the mean passes."""
        return change < self.bound if self.word == "below" else change >= self.bound

    def __str__(self) -> str:
        return f"{self.word} {self.bound:g}{self.unit}"


# The predictor against fastNlMeans, on plain noise.
NLM_GATE = GateLimit("PSNR", "at least", 1, " dB", "a network that gains less is not worth its size and time")
# The whole model against its own predictor, on all damage.
TEXTURE_GATES = (
    GateLimit("NIQE", "below", 0, "", "added texture must make photos look more natural"),
    GateLimit("SWD", "below", 0, "", "added texture must be nearer to that of the true photo"),
    GateLimit("PSNR", "at least", -1, " dB", "texture in the wrong place costs PSNR; 1 dB is the price we accept"),
    GateLimit("HaarPSI", "at least", -0.01, "", "the structure that the predictor restored must stay"),
)


def limit_of(name: str, manifest: Manifest) -> ParityLimit:
    """The limit of a class of PARITY_LIMITS for a pack, whose field `limits` may replace it."""
    limit, own = PARITY_LIMITS[name], manifest.limits.get(name)
    if own is None:
        return limit
    given = {name: value for name in ("psnr_db", "max_abs", "shift") if (value := getattr(own, name)) is not None}
    return limit._replace(**given, reason=own.reason)


def sharpened(limit: ParityLimit, rounding: float) -> ParityLimit:
    """The limit of float32 where its own rounding is known: ten times that, which no order of sums explains.

    It is never looser than `limit`. rounding: Root mean square distance of PyTorch in float32 from float64, in the unit
    of the output.
    """
    floor = SHARPEST_DB if rounding == 0 else min(SHARPEST_DB, -20 * math.log10(10 * rounding))
    if floor <= limit.psnr_db:
        return limit
    return limit._replace(psnr_db=floor, reason="ten times the rounding of PyTorch's own float32, as recorded")


def task_drop_db(manifest: Manifest) -> float:
    """The PSNR in dB that a pack may lose; it may say so as `drop_db` of the class "task" of its limits."""
    own = manifest.limits.get("task")
    return TASK_DROP_DB if own is None or own.drop_db is None else own.drop_db


def doubled(limit: ParityLimit) -> ParityLimit:
    """What two results may differ by that are each within `limit` of a third."""
    reason = f"both within {limit.psnr_db:g} dB of float: {limit.reason}"
    return ParityLimit(limit.psnr_db - 6.1, 2 * limit.max_abs, 2 * limit.shift, reason)
