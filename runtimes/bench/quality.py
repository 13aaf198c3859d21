"""Restore the same damaged photos with every method and measure what comes out."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from tqdm import tqdm

from ...core import metrics
from ...core.arrays import Image
from ...core.metrics import LpipsWeights
from ...core.restore import Restorer
from . import rivals
from .cache import Cache
from .photos import DAMAGES, BenchPhoto, Damage, digest, evenly

__all__ = [
    "BM3D",
    "DTPM",
    "INPUT",
    "LOWER_IS_BETTER",
    "NLM",
    "PREDICTOR",
    "Measurement",
    "Method",
    "Metric",
    "mean",
    "measure",
    "our_methods",
    "quality_metrics",
    "rival_methods",
]

INPUT = "input"
NLM = "fastNlMeans"
BM3D = "BM3D"
PREDICTOR = "predictor alone"
DTPM = "DTPM"
LOWER_IS_BETTER = frozenset({"NIQE", "SWD", "LPIPS"})

Metric = Callable[[Image, Image], float]  # of the restored and the true photo


@dataclass(frozen=True)
class Method:
    """What restores; `key` says all that the result depends on besides the input, None: never kept on disk."""

    name: str
    restore: Callable[[Image], Image]
    key: str | None = None


@dataclass(frozen=True)
class Measurement:
    """What one method made of one damaged photo."""

    photo: str
    damage: str
    method: str
    values: Mapping[str, float]


def quality_metrics(lpips: LpipsWeights | None) -> dict[str, Metric]:
    """The metrics of the table by name; LPIPS only with weights."""
    table: dict[str, Metric] = {
        "PSNR": metrics.psnr,
        "SSIM": metrics.ssim,
        "HaarPSI": metrics.haarpsi,
        "NIQE": _niqe,
        "SWD": metrics.swd,
    }
    return table | ({"LPIPS": partial(metrics.lpips, weights=lpips)} if lpips is not None else {})


def _niqe(restored: Image, _: Image) -> float:
    return metrics.niqe(restored)


def our_methods(restorer: Restorer) -> list[Method]:
    """The predictor alone and the whole model with its usual strength and seed 0."""
    return [Method(PREDICTOR, partial(restorer, strength=0.0, seed=0)), Method(DTPM, partial(restorer, seed=0))]


def rival_methods(
    validation: Sequence[BenchPhoto], cache: Cache, *, with_bm3d: bool
) -> tuple[dict[str, list[Method]], dict[str, dict[str, str]]]:
    """The rivals tuned for each damage, and how: damage -> methods, damage -> method -> settings."""
    methods: dict[str, list[Method]] = {}
    for damage in tqdm(DAMAGES, desc="tuning rivals", unit="damage", disable=None):
        methods[damage.name] = [_nl_means(damage, validation, cache)]
        methods[damage.name] += [_bm3d(damage, validation, cache)] if with_bm3d else []
    return methods


def _nl_means(damage: Damage, validation: Sequence[BenchPhoto], cache: Cache) -> Method:
    settings = rivals.tuned_nl_means(damage, validation, cache)
    return Method(
        NLM, partial(rivals.fast_nl_means, settings=settings), f"fastNlMeans {rivals.opencv_version()} {settings}"
    )


def _bm3d(damage: Damage, validation: Sequence[BenchPhoto], cache: Cache) -> Method:
    sigma = rivals.tuned_bm3d_sigma(damage, validation, cache)
    return Method(BM3D, partial(rivals.bm3d, sigma=sigma), f"BM3D {rivals.bm3d_version()} {sigma}")
