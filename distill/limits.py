"""The thresholds that students are judged by, each with its reason, and the rules that use them.

A student of a texture prior that loses texture gains PSNR: the mean of all plausible textures is closest to the truth.
So a PSNR above the teacher's together with a worse NIQE or SWD is not progress, and is reported.
"""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["texture_lost", "tolerated_loss"]

# dB that a student may lose: fewer steps must not cost fidelity that anybody sees.
PSNR_LOSS = 0.2
# The share by which NIQE and SWD may be worse: less is no evidence of lost texture on few photos.
USUAL_TOLERANCE = 0.05
# The same in one step, which cannot correct itself.
ONE_STEP_TOLERANCE = 0.10
# One step must be so many times faster than SPEEDUP_STEPS of them: 70 % of the ratio of the calls, the rest runs once.
SPEEDUP = 35
SPEEDUP_STEPS = 50  # those of a teacher that is not a student itself


def tolerated_loss(steps: int) -> float:
    """The share by which NIQE and SWD may be worse than the teacher's in so many steps."""
    return ONE_STEP_TOLERANCE if steps == 1 else USUAL_TOLERANCE


def texture_lost(
    student: Mapping[str, float], teacher: Mapping[str, float], tolerance: float = USUAL_TOLERANCE
) -> bool:
    """Whether PSNR (dB, higher is better) rose above the teacher's while NIQE or SWD (lower is better) got worse."""
    worse = any(student[name] > (1 + tolerance) * teacher[name] for name in ("NIQE", "SWD"))
    return worse and student["PSNR"] > teacher["PSNR"]
