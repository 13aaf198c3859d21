from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from pocketprior.core.sampling.schedule import ddpm
from pocketprior.core.training.gen2res.base import hybrid_loss, variational_bound
from pocketprior.core.training.losses import mix

BARS = ddpm()
generator = torch.Generator().manual_seed(0)
CLEAN = (torch.rand(1, 3, 6, 6, generator=generator, dtype=torch.float64) * 255).round() / 127.5 - 1
NOISE, EPS, SHARE = torch.randn(3, 1, 3, 6, 6, generator=generator, dtype=torch.float64)


def levels(step: int) -> tuple[Tensor, Tensor]:
    before = BARS[step - 2] if step > 1 else 1.0
    return torch.tensor([BARS[step - 1]], dtype=torch.float64), torch.tensor([before], dtype=torch.float64)


def posterior(x: Tensor, clean: Tensor, step: int) -> tuple[Tensor, float, float]:
    """Mean, beta~ and beta of q(x_{t-1} | x_t, x_0), Ho et al. Eqs. 6 and 7."""
    bar, before = (float(level) for level in levels(step))
    beta = 1 - bar / before
    mean = math.sqrt(before) * beta / (1 - bar) * clean + math.sqrt(1 - beta) * (1 - before) / (1 - bar) * x
    return mean, beta * (1 - before) / (1 - bar), beta


@pytest.mark.parametrize("step", [2, 3, 200, 1000])
def test_bound_is_the_divergence_of_the_two_normal_distributions(step: int) -> None:
    bar, before = levels(step)
    x = mix(CLEAN, NOISE, bar)
    mean, small, large = posterior(x, CLEAN, step)
    guess = (x - (1 - bar).sqrt() * EPS) / bar.sqrt()
    mean_model, _, _ = posterior(x, guess, step)
    fraction = (SHARE + 1) / 2
    deviation = (fraction * math.log(large) + (1 - fraction) * math.log(small)).exp().sqrt()
    expected = kl_divergence(Normal(mean, math.sqrt(small)), Normal(mean_model, deviation)).mean() / math.log(2)
    torch.testing.assert_close(variational_bound(EPS, SHARE, x, CLEAN, bar, before)[0], expected, rtol=1e-6, atol=1e-9)


def test_last_step_counts_the_bits_of_the_grey_levels() -> None:
    """The probabilities of all 256 levels add up to one, and the bound is minus the logarithm of the photo's."""
    bar, before = levels(1)
    x = torch.full((1, 1, 1, 256), 0.1, dtype=torch.float64)
    zero = torch.zeros_like(x)
    every = (torch.arange(256, dtype=torch.float64) / 127.5 - 1).reshape(256, 1, 1, 1)
    bits = torch.cat(
        [variational_bound(zero[..., :1], zero[..., :1], x[..., :1], level[None], bar, before) for level in every]
    )
    # Levels with less than the smallest probability that is told apart count for that.
    assert float(torch.exp2(-bits).sum()) == pytest.approx(1, abs=1e-6)


def test_bound_is_zero_for_a_perfect_denoiser_with_the_small_variance() -> None:
    bar, before = levels(300)
    x = mix(CLEAN, NOISE, bar)
    assert float(variational_bound(NOISE, -torch.ones_like(NOISE), x, CLEAN, bar, before)) == pytest.approx(0, abs=1e-9)


def test_noise_learns_from_the_error_alone_and_variance_from_the_bound_alone() -> None:
    bar, before = levels(100)
    x = mix(CLEAN, NOISE, bar).float()
    predicted = torch.cat([EPS, SHARE], dim=1).float().requires_grad_(True)
    mse, vlb = hybrid_loss(predicted, x, CLEAN.float(), NOISE.float(), bar.float(), before.float())
    (of_mse,) = torch.autograd.grad(mse.sum(), predicted, retain_graph=True)
    (of_bound,) = torch.autograd.grad(vlb.sum(), predicted)
    assert of_mse[:, :3].all()
    assert not of_mse[:, 3:].any()
    assert not of_bound[:, :3].any()
    assert of_bound[:, 3:].all()


def test_every_step_is_finite_in_float32() -> None:
    bars = torch.tensor(BARS)
    before = torch.cat([torch.ones(1), bars[:-1]])
    clean = CLEAN.float().expand(1000, -1, -1, -1)
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(1))
    predicted = torch.randn(1000, 6, 6, 6, generator=torch.Generator().manual_seed(2)).requires_grad_(True)
    loss = hybrid_loss(predicted, mix(clean, noise, bars), clean, noise, bars, before)
    assert loss.isfinite().all()
    loss.sum().backward()
    assert predicted.grad.isfinite().all()
