"""The thresholds that students are judged by, each with its reason, and the rule that combines them.

A student of a texture prior that loses texture gains PSNR: the mean of all plausible textures is closest to the truth.
So a PSNR above the teacher's together with a worse NIQE or SWD is not progress, and is reported.
"""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["texture_lost", "tolerated_loss"]

PSNR_LOSS = 0.2  # dB that a student may lose: fewer steps must not cost fidelity that anybody sees
USUAL_TOLERANCE = 0.05  # share by which NIQE and SWD may be worse: less is no evidence of lost texture on few photos
ONE_STEP_TOLERANCE = 0.10  # the same in one step, which cannot correct itself
SPEEDUP, SPEEDUP_STEPS = 35, 50  # one step is to be 35 times faster than 50: 70 % of what the number of calls promises


def tolerated_loss(steps: int) -> float:
    """The share by which NIQE and SWD may be worse than the teacher's in so many steps."""
    return ONE_STEP_TOLERANCE if steps == 1 else USUAL_TOLERANCE


def texture_lost(
    student: Mapping[str, float], teacher: Mapping[str, float], tolerance: float = USUAL_TOLERANCE
) -> bool:
    """Whether PSNR (dB, higher is better) rose above the teacher's while NIQE or SWD (lower is better) got worse."""
    worse = any(student[name] > (1 + tolerance) * teacher[name] for name in ("NIQE", "SWD"))
    return worse and student["PSNR"] > teacher["PSNR"]
