from __future__ import annotations

import pytest
import torch

from pocketprior.core.sampling.samplers import PREDICTIONS, ddim
from pocketprior.distill.system import clean_and_eps, implied_clean, snr_loss, state_at

LEVELS = [(0.0, 0.3), (0.1, 0.5), (0.7, 1.0), (0.999, 1.0)]


def states(count: int) -> list[torch.Tensor]:
    random = torch.Generator().manual_seed(0)
    return [torch.randn(2, 3, 4, 4, generator=random, dtype=torch.float64) for _ in range(count)]


@pytest.mark.parametrize("predicts", ["v", "x0", "eps"])
def test_split_is_that_of_the_samplers_with_a_level_for_each_sample(predicts: str) -> None:
    x, predicted = states(2)
    alpha_bars = torch.tensor([0.2, 0.9], dtype=torch.float64)
    found = clean_and_eps(x, predicted, alpha_bars, predicts)
    for i, alpha_bar in enumerate(alpha_bars.tolist()):
        for ours, theirs in zip(found, PREDICTIONS[predicts](x[i], predicted[i], alpha_bar), strict=True):
            torch.testing.assert_close(ours[i], theirs, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("level", "following"), LEVELS)
def test_one_step_of_ddim_with_the_implied_x0_arrives(level: float, following: float) -> None:
    x, reached = states(2)
    alpha_bar, after = (torch.full((2,), value, dtype=torch.float64) for value in (level, following))
    clean = implied_clean(x, reached, alpha_bar, after)
    eps = (x - alpha_bar.sqrt().reshape(-1, 1, 1, 1) * clean) / (1 - alpha_bar).sqrt().reshape(-1, 1, 1, 1)
    torch.testing.assert_close(state_at(clean, eps, after), reached)


def test_what_two_steps_of_ddim_reach_is_reached_in_one() -> None:
    """Salimans and Ho's target, for a denoiser that is a fixed function."""
    (x,) = states(1)
    levels = (0.1, 0.4, 0.8)

    def denoise(x: torch.Tensor, step: int) -> torch.Tensor:
        return torch.tanh((1 + step) * x)

    first = ddim(denoise, x, levels, "v")
    alpha_bars = [torch.full((2,), level, dtype=torch.float64) for level in levels]
    target = implied_clean(x, first, alpha_bars[0], alpha_bars[2])
    v = (alpha_bars[0].sqrt()[0] * x - target) / (1 - alpha_bars[0]).sqrt()[0]
    torch.testing.assert_close(ddim(lambda *_: v, x, (levels[0], levels[2]), "v"), first)


def test_loss_is_that_of_v_whatever_is_predicted() -> None:
    x, v, target = states(3)
    alpha_bar = torch.tensor([0.2, 0.9], dtype=torch.float64)
    (clean, _), (aim, _) = (clean_and_eps(x, value, alpha_bar, "v") for value in (v, target))
    torch.testing.assert_close(
        snr_loss(clean, aim, alpha_bar).double(), (v - target).square().mean(), rtol=1e-5, atol=1e-6
    )
