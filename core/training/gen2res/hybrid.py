"""The objective of Improved DDPM (Nichol and Dhariwal, ICML 2021): squared error on the noise, and a variational bound
from which only the variance learns.

Pictures are in [-1, 1]; `bar` is abar_t and `before` abar_{t-1}, 1 at the last step of sampling; both are (N,).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["bound", "hybrid_loss"]

BIN = 1 / 255  # half the distance between two grey levels of a picture in [-1, 1]
LEAST = 1e-12  # of a probability, before its logarithm


def hybrid_loss(predicted: Tensor, x: Tensor, clean: Tensor, noise: Tensor, bar: Tensor, before: Tensor) -> Tensor:
    """L_simple + lambda L_vlb (Eq. 16) of each sample: (N,) as one row each of "mse" and "bound": (2, N).

    predicted: (N, 6, H, W), the noise and the share of the variance's range. lambda is 0.001 and L_vlb sums 1000
    steps, so at a uniformly drawn step the term weighs 1.
    """
    eps, share = predicted.float().chunk(2, dim=1)
    mse = (eps - noise).square().mean(dim=(1, 2, 3))
    return torch.stack([mse, bound(eps.detach(), share, x, clean, bar, before)])


def bound(eps: Tensor, share: Tensor, x: Tensor, clean: Tensor, bar: Tensor, before: Tensor) -> Tensor:
    """L_{t-1} of the variational bound (Eqs. 4 to 7), mean over the pixels, in bits per dimension: (N,).

    The divergence of p(x_{t-1} | x_t) from q(x_{t-1} | x_t, x_0); at the last step (before = 1) minus the log
    probability of the picture's grey level.
    """
    bar, before = (level.reshape(-1, 1, 1, 1) for level in (bar, before))
    last = before >= 1
    alpha = bar / before
    beta = 1 - alpha
    # The last step has no beta~ of its own; Improved DDPM takes that of the step before it: about beta / 2.
    small = torch.where(last, beta * 0.5, beta * (1 - before) / (1 - bar))
    log_variance = torch.lerp(small.log(), beta.log(), (share + 1) / 2)
    guess = (x - (1 - bar).sqrt() * eps) / bar.sqrt()
    on_clean, on_state = before.sqrt() * beta / (1 - bar), alpha.sqrt() * (1 - before) / (1 - bar)
    error = on_clean * (guess - clean)  # the difference of the two means: both have on_state * x
    mean = on_clean * guess + on_state * x
    ratio = small.log() - log_variance
    divergence = 0.5 * (ratio.exp() - 1 - ratio + error.square() * (-log_variance).exp())
    terms = torch.where(last, -_log_grey_level(clean, mean, log_variance), divergence)
    return terms.mean(dim=(1, 2, 3)) / math.log(2)


def _log_grey_level(clean: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    """Log probability of the grey level of `clean` under a normal distribution; the outermost levels reach on."""
    inverse = (-0.5 * log_variance).exp()
    upper = torch.special.ndtr((clean + BIN - mean) * inverse)
    lower = torch.special.ndtr((clean - BIN - mean) * inverse)
    upper = torch.where(clean > 0.999, torch.ones_like(upper), upper)
    lower = torch.where(clean < -0.999, torch.zeros_like(lower), lower)
    return (upper - lower).clamp_min(LEAST).log()
