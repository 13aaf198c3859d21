"""The settings with which a method does its best on validation photos."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from operator import itemgetter
from typing import TypeVar

import numpy as np

from ...core.arrays import Image
from ...core.degradations.fixed import image_digest
from ...core.metrics import psnr
from .cache import Cache
from .photos import Pair

__all__ = ["best"]

Setting = TypeVar("Setting")


def best(
    settings: Iterable[Setting],
    method: Callable[[Image, Setting], Image],
    pairs: Sequence[Pair],
    cache: Cache,
    version: str,
) -> tuple[float, Setting]:
    """The mean PSNR (dB) of the best setting, and the setting.

    Args:
        settings: In rising strength; two falls in a row end the search.
        method: Restores an image, (H, W, 3) uint8 in and out.
        pairs: What is restored.
        cache: Keeps each result.
        version: Names the method and the version of its program in the cache.
    """
    key = f"{version} {' '.join(image_digest(image)[:16] for pair in pairs for image in (pair.true, pair.damaged))}"
    scores: list[tuple[float, Setting]] = []
    for setting in settings:
        score = cache.numbers(f"{key} {setting}", partial(_score, method, setting, pairs))
        scores.append((score["psnr"], setting))
        if len(scores) > 2 and scores[-3][0] > scores[-2][0] > scores[-1][0]:
            break
    return max(scores, key=itemgetter(0))


def _score(method: Callable[[Image, Setting], Image], setting: Setting, pairs: Sequence[Pair]) -> dict[str, float]:
    return {"psnr": float(np.mean([psnr(pair.true, method(pair.damaged, setting)) for pair in pairs]))}
