"""What the numbers must show for the model to be worth shipping."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .photos import DAMAGES
from .quality import DTPM, NLM, PREDICTOR, Measurement, mean

__all__ = ["Gate", "gates"]

NOISES = [damage.name for damage in DAMAGES if damage.sigma is not None]
METRICS = ("PSNR", "HaarPSI", "NIQE", "SWD")


@dataclass(frozen=True)
class Gate:
    """A claim about means and whether it holds: `value` against `limit`."""

    claim: str
    value: float
    limit: str
    passed: bool

    def __str__(self) -> str:
        return f"{'pass' if self.passed else 'FAIL'}: {self.claim}: {self.value:+.4f}, required {self.limit}"


def gates(measurements: Sequence[Measurement]) -> list[Gate]:
    """The gates over all photos: the predictor against fastNlMeans, the whole model against the predictor."""
    gain = mean(measurements, "PSNR", PREDICTOR, NOISES) - mean(measurements, "PSNR", NLM, NOISES)
    change = {m: mean(measurements, m, DTPM) - mean(measurements, m, PREDICTOR) for m in METRICS}
    over = f"{DTPM} minus {PREDICTOR}, mean over all damage"
    return [
        Gate(f"PSNR, {PREDICTOR} minus {NLM}, mean over {', '.join(NOISES)}", gain, "at least 1 dB", gain >= 1),
        Gate(f"NIQE, {over}", change["NIQE"], "below 0", change["NIQE"] < 0),
        Gate(f"SWD, {over}", change["SWD"], "below 0", change["SWD"] < 0),
        Gate(f"PSNR, {over}", change["PSNR"], "at least -1 dB", change["PSNR"] >= -1),
        Gate(f"HaarPSI, {over}", change["HaarPSI"], "at least -0.01", change["HaarPSI"] >= -0.01),
    ]
