from __future__ import annotations

import numpy as np
import pytest
import torch

from pocketprior.core.sampling.samplers import clean_from_v
from pocketprior.core.sampling.schedule import cosine
from pocketprior.core.training.diffusion import draw_level, mix, v_loss, v_target


def test_level_is_that_of_its_time() -> None:
    bars = cosine(10)
    rng = np.random.default_rng(0)
    drawn = [draw_level(bars, (2, 3), rng) for _ in range(400)]
    assert {round(float(d["t"]) * 10) for d in drawn} == set(range(1, 11))
    for level in drawn:
        assert level["bar"] == np.float32(bars[round(float(level["t"]) * 10) - 1])
        assert [level[name].dtype for name in ("t", "bar", "noise")] == [np.float32] * 3
        assert (level["t"].shape, level["noise"].shape) == ((), (2, 3))
    noise = np.stack([d["noise"] for d in drawn])
    assert abs(noise.mean()) < 0.1
    assert noise.std() == pytest.approx(1, abs=0.1)


def test_level_is_seeded() -> None:
    first, second = (draw_level(cosine(10), (4,), np.random.default_rng(5)) for _ in range(2))
    assert all(np.array_equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("shape", [(3, 2), (3, 2, 5, 4)])
def test_v_leads_back_to_the_clean_state(shape: tuple[int, ...]) -> None:
    random = torch.Generator().manual_seed(0)
    clean, noise = (torch.randn(shape, generator=random) for _ in range(2))
    bar = torch.tensor([0.0, 0.3, 1.0])
    x, v = mix(clean, noise, bar), v_target(clean, noise, bar)
    for i, level in enumerate(bar.tolist()):
        torch.testing.assert_close(clean_from_v(x[i], v[i], level), clean[i])
    torch.testing.assert_close(x[0], noise[0])
    torch.testing.assert_close(x[2], clean[2])


def test_v_loss_counts_in_float32() -> None:
    target = torch.full((4,), 1.0)
    assert v_loss(torch.full((4,), 1.0078125, dtype=torch.bfloat16), target) == 0.0078125**2
