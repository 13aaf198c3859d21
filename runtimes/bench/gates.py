"""What the numbers must show for the model to be worth shipping."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ...core.degradations.fixed import CLEAN, DAMAGES
from .methods import DTPM, NLM, PREDICTOR
from .quality import Measurement, mean

__all__ = ["Gate", "gates"]

NOISES = [damage.name for damage in DAMAGES if damage.sigma is not None]

LIMITS = (
    ("NIQE", "below", 0, ""),
    ("SWD", "below", 0, ""),
    ("PSNR", "at least", -1, " dB"),
    ("HaarPSI", "at least", -0.01, ""),
)


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
    """The gates over all photos: the predictor against fastNlMeans, the whole model against the predictor.

    Those are left out for which nothing was measured: without fastNlMeans, noise, damage or the metric.
    """
    found: list[Gate] = []
    noises = [name for name in NOISES if any((m.damage, m.method) == (name, NLM) for m in measurements)]
    if noises:
        gain = mean(measurements, "PSNR", PREDICTOR, noises) - mean(measurements, "PSNR", NLM, noises)
        claim = f"PSNR, {PREDICTOR} minus {NLM}, mean over {', '.join(noises)}"
        found.append(Gate(claim, gain, "at least 1 dB", gain >= 1))
    damaged = [m for m in measurements if m.damage != CLEAN and m.method in (DTPM, PREDICTOR)]
    for metric, word, bound, unit in LIMITS:
        if damaged and metric in damaged[0].values:
            change = mean(damaged, metric, DTPM) - mean(damaged, metric, PREDICTOR)
            claim = f"{metric}, {DTPM} minus {PREDICTOR}, mean over all damage"
            found.append(
                Gate(claim, change, f"{word} {bound:g}{unit}", change < bound if word == "below" else change >= bound)
            )
    return found
