"""The metrics of the quality benchmark, each pair of images measured once."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ...core import metrics
from ...core.arrays import Image
from ...core.degradations.fixed import image_digest
from ...core.metrics import read_lpips_weights
from .cache import Cache

__all__ = ["BETTER", "CAP", "QUICK", "Judge", "Metric", "capped_psnr"]

CAP = 60.0  # dB: what an identical image has in the tables, so that every mean is a number
QUICK = ("PSNR", "HaarPSI", "SWD")
BETTER = {"PSNR": 1, "SSIM": 1, "HaarPSI": 1, "NIQE": -1, "SWD": -1, "LPIPS": -1}  # 1: higher, -1: lower is better

Metric = Callable[[Image, Image], float]  # of the restored and the true photo


@dataclass(frozen=True)
class Judge:
    """Measures restored photos, each pair of images once. made_of: the hash of the code and data of the metrics."""

    cache: Cache
    metrics: Mapping[str, Metric]
    made_of: str

    @classmethod
    def open(cls, cache: Cache, lpips: Path | None = None, *, quick: bool = False) -> Judge:
        """The metrics of the tables; LPIPS only with a weights file (UsageError where it is none).

        quick: only those of QUICK.
        """
        table: dict[str, Metric] = {
            "PSNR": capped_psnr,
            "SSIM": metrics.ssim,
            "HaarPSI": metrics.haarpsi,
            "NIQE": _niqe,
            "SWD": metrics.swd,
        }
        if quick:
            table = {name: table[name] for name in QUICK}
        if lpips is not None:
            table["LPIPS"] = partial(metrics.lpips, weights=read_lpips_weights(lpips))
        return cls(cache, table, _made_of(lpips))

    def __call__(self, restored: Image, true: Image) -> dict[str, float]:
        """Every metric of one restored photo."""
        key = f"{' '.join(self.metrics)} {self.made_of} {image_digest(restored)} {image_digest(true)}"
        return self.cache.numbers(key, lambda: {name: metric(restored, true) for name, metric in self.metrics.items()})


def capped_psnr(restored: Image, true: Image) -> float:
    """PSNR in dB, at most CAP: that of identical images would be infinite."""
    return min(CAP, metrics.psnr(restored, true))


def _made_of(lpips: Path | None) -> str:
    folder = Path(str(metrics.__file__)).parent
    files = sorted(path for path in folder.iterdir() if path.suffix in (".py", ".npz"))
    content = b"".join(path.read_bytes() for path in [Path(__file__), *files, *([lpips] if lpips else [])])
    return hashlib.sha256(content).hexdigest()


def _niqe(restored: Image, _: Image) -> float:
    return metrics.niqe(restored)
