from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from pocketprior.core.training.dtpm.dtpm_stage import draw_code, noisy_code


def encode(thumbnails: Tensor) -> Tensor:
    return thumbnails.mean(dim=(2, 3))


def drawn(count: int, drop: float, noise: float) -> dict[str, Tensor]:
    rng = np.random.default_rng(0)
    thumbnail = np.full((3, 4, 4), 51, np.uint8)
    samples = [draw_code(thumbnail, 3, drop, noise, rng) for _ in range(count)]
    return {name: torch.from_numpy(np.stack([s[name] for s in samples])) for name in samples[0]}


def test_code_of_the_thumbnail() -> None:
    torch.testing.assert_close(noisy_code(encode, drawn(2, drop=0, noise=0)), torch.full((2, 3), 0.2))


def test_codes_are_dropped_whole_at_the_given_rate() -> None:
    codes = noisy_code(encode, drawn(2000, drop=0.25, noise=0))
    kept = codes.any(dim=1)
    assert torch.equal(kept, codes.all(dim=1))
    assert 0.7 <= float(kept.float().mean()) <= 0.8


def test_noise_has_the_given_deviation() -> None:
    codes = noisy_code(encode, drawn(2000, drop=0, noise=0.3))
    assert 0.28 <= float(codes.std()) <= 0.32
