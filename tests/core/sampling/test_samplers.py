from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from pocketprior.core.sampling import samplers, schedule

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


@pytest.mark.parametrize("predicts", samplers.PREDICTIONS)
@pytest.mark.parametrize("level", [0.02, 0.5, 0.99])
def test_predictions_lead_back_to_the_pair(predicts: str, level: float) -> None:
    clean, noise = CLEAN.astype(np.float64), NOISE.astype(np.float64)
    x = samplers.noised(clean, noise, level)
    predicted = {"x0": clean, "eps": noise, "v": math.sqrt(level) * noise - math.sqrt(1 - level) * clean}[predicts]
    found = samplers.PREDICTIONS[predicts](x, predicted, level)
    np.testing.assert_allclose(found[0], clean, atol=1e-12)
    np.testing.assert_allclose(found[1], noise, atol=1e-12)


def test_clipping_keeps_the_state_on_the_path_of_the_limited_estimate() -> None:
    """One step with x0 predicted as 3: limited to 1, and the noise is what then explains the state."""
    x, levels = np.full((1, 1, 1, 1), 0.7), [0.25, 0.64, 1.0]
    seen = []

    def denoise(x: np.ndarray, _: int) -> np.ndarray:
        seen.append(float(x.item()))
        return np.full_like(x, 3.0)

    assert samplers.ddim(denoise, x, levels, "x0", clip=samplers.clipped).item() == 1.0
    noise = (0.7 - 0.5) / math.sqrt(0.75)
    assert seen == pytest.approx([0.7, 0.8 + 0.6 * noise])


class TestAncestral:
    levels = (0.2, 0.5, 0.8, 1.0)

    def after_first_step(self, variance: str, share: float = 0.0) -> np.ndarray:
        """The state after one step from pure x = 0, x0 predicted as 0: the noise of the step alone."""
        noise = np.random.default_rng(1).standard_normal(200_000)
        zero = np.zeros(200_000)

        def denoise(x: np.ndarray, _: int) -> object:
            return (zero, np.full_like(x, share)) if variance == "learned" else zero

        # The last step adds no noise: its result is the mean, which is 0 for x0 = 0; so look at its input.
        seen: list[np.ndarray] = []
        samplers.ancestral(
            lambda x, i: (seen.append(x), denoise(x, i))[1], zero, self.levels[1:], lambda _: noise, "x0", variance
        )
        return seen[1]

    def test_fixed_variances_are_those_of_the_paper(self) -> None:
        beta = 1 - 0.5 / 0.8
        assert self.after_first_step("large").var() == pytest.approx(beta, rel=0.01)
        assert self.after_first_step("small").var() == pytest.approx(beta * 0.2 / 0.5, rel=0.01)

    def test_learned_variance_lies_between_them_in_its_logarithm(self) -> None:
        small, large = (self.after_first_step(v) for v in ("small", "large"))
        np.testing.assert_allclose(self.after_first_step("learned", -1), small)
        np.testing.assert_allclose(self.after_first_step("learned", 1), large)
        expected = math.sqrt(small.var() * large.var())
        assert self.after_first_step("learned", 0).var() == pytest.approx(expected, rel=1e-6)

    def test_samples_of_a_known_distribution_have_its_mean_and_spread(self) -> None:
        """Data N(0.3, 0.5^2), its exact denoiser, all 1000 steps from noise: what comes out is that distribution."""
        mean, spread, bars = 0.3, 0.5, schedule.ddpm()
        levels, _ = schedule.strided(1000, bars, 1000)
        draws = np.random.default_rng(0)

        def denoise(x: np.ndarray, step: int) -> np.ndarray:
            level = levels[step]
            gain = math.sqrt(level) * spread**2 / (level * spread**2 + 1 - level)
            return mean + gain * (x - math.sqrt(level) * mean)

        x = samplers.ancestral(
            denoise, draws.standard_normal(20_000), levels, lambda _: draws.standard_normal(20_000), "x0"
        )
        assert x.mean() == pytest.approx(mean, abs=0.015)
        assert x.std() == pytest.approx(spread, rel=0.02)

    def test_last_step_asks_for_no_noise(self) -> None:
        asked = []

        def noise(step: int) -> np.ndarray:
            asked.append(step)
            return NOISE

        samplers.ancestral(lambda x, _: x, NOISE, self.levels, noise)
        assert asked == [0, 1]

    def test_guide_replaces_the_state_before_each_step(self) -> None:
        seen = []
        samplers.ancestral(
            lambda x, i: seen.append((i, x)) or x, 0.5, self.levels, lambda _: 0.0, guide=lambda _x, i: 10.0 * i
        )
        assert seen == [(0, 0.0), (1, 10.0), (2, 20.0)]

    def test_numpy_and_torch_run_the_same_text(self) -> None:
        def denoise(x, _):
            return x * 0.3, x.clip(-1, 1) * 0.9

        shapes = [np.random.default_rng(i).standard_normal(NOISE.shape).astype(np.float32) for i in range(2)]
        options = {"variance": "learned", "clip": samplers.clipped}
        ours = samplers.ancestral(denoise, NOISE, self.levels, shapes.__getitem__, **options)
        tensors = [torch.from_numpy(a) for a in shapes]
        theirs = samplers.ancestral(denoise, torch.from_numpy(NOISE), self.levels, tensors.__getitem__, **options)
        assert ours.dtype == np.float32
        np.testing.assert_allclose(ours, theirs.numpy(), atol=1e-5)
