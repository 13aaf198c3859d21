"""The semantic code in training: few photos and many crops, so the codes are made noisy, and dropped at times."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor

from ..stage import Arrays

__all__ = ["CODE_DROP", "CODE_NOISE", "draw_code", "noisy_code"]

CODE_DROP = 0.1  # share of crops trained without a code
CODE_NOISE = 0.3  # standard deviation of noise on the (unit variance) codes


def draw_code(thumbnail: NDArray[np.uint8], length: int, drop: float, noise: float, rng: Generator) -> Arrays:
    """ "thumbnail" uint8 (3, S, S), "code_noise" float32 (length,) and "code_kept" float32 (), 0 or 1."""
    return {
        "thumbnail": thumbnail,
        "code_noise": np.float32(noise) * rng.standard_normal(length, dtype=np.float32),
        "code_kept": np.array(rng.random() >= drop, np.float32),
    }


def noisy_code(encode: Callable[[Tensor], Tensor], batch: Mapping[str, Tensor]) -> Tensor:
    """The codes of a batch of what `draw_code` drew, (N, K) float32. encode: thumbnails (N, 3, S, S) -> codes."""
    thumbnails = batch["thumbnail"].float() / 255
    with torch.no_grad(), torch.autocast(thumbnails.device.type, enabled=False):
        code = encode(thumbnails)
    return (code + batch["code_noise"]) * batch["code_kept"][:, None]
