from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from pocketprior.core import samplers, schedule

LEVELS, _ = schedule.trailing(4, schedule.cosine())
rng = np.random.default_rng(0)
CLEAN, NOISE = rng.standard_normal((2, 1, 3, 5, 7)).astype(np.float32)


def oracle(x: np.ndarray, step: int) -> np.ndarray:
    """The v that leads exactly to CLEAN from any state."""
    level = LEVELS[step]
    return (math.sqrt(level) * x - CLEAN) / math.sqrt(1 - level)


@pytest.mark.parametrize("steps", [1, 2, 4, 50])
def test_ddim_reaches_what_a_perfect_denoiser_knows(steps: int) -> None:
    levels, _ = schedule.trailing(steps, schedule.linear())

    def denoise(x: np.ndarray, step: int) -> np.ndarray:
        return (math.sqrt(levels[step]) * x - CLEAN) / math.sqrt(1 - levels[step])

    np.testing.assert_allclose(samplers.ddim(denoise, NOISE, levels), CLEAN, atol=1e-5)


def test_ddim_stays_on_the_path_of_its_noise() -> None:
    """With v of a known (clean, noise) pair every state is sqrt(abar) clean + sqrt(1 - abar) noise."""
    seen = []

    def denoise(x: np.ndarray, step: int) -> np.ndarray:
        level = LEVELS[step]
        seen.append((x, math.sqrt(level) * CLEAN + math.sqrt(1 - level) * NOISE))
        return math.sqrt(level) * NOISE - math.sqrt(1 - level) * CLEAN

    samplers.ddim(denoise, NOISE, LEVELS)
    for state, expected in seen:
        np.testing.assert_allclose(state, expected, atol=1e-5)


def test_one_step_is_ddim_of_one_step() -> None:
    levels = [LEVELS[0], 1.0]
    np.testing.assert_array_equal(
        samplers.one_step(oracle, NOISE, levels), samplers.ddim(oracle, NOISE, levels).astype(np.float32)
    )


def test_numpy_and_torch_run_the_same_sampler() -> None:
    def denoise(x, step):
        return x * 0.3 - step * 0.1

    ours = samplers.ddim(denoise, NOISE, LEVELS)
    theirs = samplers.ddim(denoise, torch.from_numpy(NOISE), LEVELS).numpy()
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_posterior_mean_has_the_weights_of_diffir() -> None:
    """Weights on x0 and on the state, as counted from the published schedule (t = T .. 1)."""
    levels = [*reversed(schedule.diffir()), 1.0]
    on_clean, on_state = [], []
    for step in range(4):
        pair = levels[step : step + 2]
        on_clean.append(float(samplers.posterior_mean(lambda _x, _i: np.float64(1), np.float64(0), pair)))
        on_state.append(float(samplers.posterior_mean(lambda _x, _i: np.float64(0), np.float64(1), pair)))
    assert on_clean == pytest.approx([0.506, 0.636, 0.765, 1.0], abs=2e-3)
    assert on_state == pytest.approx([0.074, 0.315, 0.230, 0.0], abs=2e-3)
