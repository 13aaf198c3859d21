"""What is allowed, by what a graph computes in, and why; a pack may say otherwise in the field `limits`."""

from __future__ import annotations

import math
from typing import NamedTuple

from ...core.pack.manifest import Manifest
from .measures import Difference

__all__ = ["CLASSES", "DROP", "Limit", "breach", "drop_of", "limit_of", "sharpened", "twice"]


class Limit(NamedTuple):
    """The least PSNR, the largest difference of one value, and the largest mean shift of a channel of a picture."""

    psnr_db: float
    max_abs: float
    shift: float
    reason: str


CLASSES = {
    "host": Limit(
        100, 2e-5, 1e-6, "the same float32 arithmetic on the same numbers: one level of 16 bits may round the other way"
    ),
    "fp32": Limit(
        90,
        1e-3,
        1e-5,
        "float32 sums in another order stay below 0.008 grey levels; what is more is another computation",
    ),
    "half": Limit(50, 0.1, 1e-3, "16 bits of arithmetic or of weights cost 0.8 grey levels at most, spread evenly"),
    "coded": Limit(
        40, 0.25, 2e-3, "fewer bits may cost 2.6 grey levels, which is not seen; half a level of brightness is"
    ),
    "form": Limit(90, 1e-5, 1e-6, "one graph for all steps and a loop around graphs compute the same float32 numbers"),
}
SHARPEST = 110.0  # dB
DROP = 0.1  # dB to the clean photos, in the mean, that what is shipped may lose against its reference


def limit_of(name: str, manifest: Manifest) -> Limit:
    """The limit of a class for this pack."""
    limit, told = CLASSES[name], manifest.limits.get(name)
    if told is None:
        return limit
    given = {measure: getattr(told, measure) for measure in ("psnr_db", "max_abs", "shift")}
    known = {measure: number for measure, number in given.items() if number is not None}
    return limit._replace(**known, reason=told.reason)


def sharpened(limit: Limit, rounding: float) -> Limit:
    """The limit of float32 where its own rounding is known: ten times that, which no order of sums explains.

    rounding: root mean square distance of PyTorch in float32 from float64, in the unit of the output. Never looser than
    `limit`, and no more than SHARPEST: the functions of a runtime (exp, erf) are polynomials of their own.
    """
    floor = SHARPEST if rounding == 0 else min(SHARPEST, -20 * math.log10(10 * rounding))
    if floor <= limit.psnr_db:
        return limit
    return limit._replace(psnr_db=floor, reason="ten times the rounding of PyTorch's own float32, as recorded")


def drop_of(manifest: Manifest) -> float:
    """dB to the clean photos that this pack may lose in the mean; it may say so as `drop_db` of the class "task"."""
    told = manifest.limits.get("task")
    return DROP if told is None or told.drop_db is None else told.drop_db


def twice(limit: Limit) -> Limit:
    """What two results may differ by that are each within `limit` of a third."""
    reason = f"both within {limit.psnr_db:g} dB of float: {limit.reason}"
    return Limit(limit.psnr_db - 6.1, 2 * limit.max_abs, 2 * limit.shift, reason)


def breach(found: Difference, limit: Limit, *, picture: bool) -> str:
    """In what way a difference is more than allowed, '' for none; only pictures are held to a mean shift."""
    if found.broken:
        return f"{found.broken} of {found.count} values are not finite"
    if found.psnr_db < limit.psnr_db:
        return f"{found.psnr_db:.1f} dB, at least {limit.psnr_db:.1f} dB are expected"
    if found.max_abs > limit.max_abs:
        return f"one value is off by {found.max_abs:.2g}, at most {limit.max_abs:.2g} is allowed"
    if picture and abs(found.shift) > limit.shift:
        return f"a channel is shifted by {found.shift:+.2g}, at most {limit.shift:.2g} is allowed"
    return ""
