"""The arithmetic of one DDIM step with a noise level per sample.

The samplers of core take plain floats, one level for all; in training each sample has its own. States are (N, ...),
`alpha_bar` is (N,), the share of signal variance.
"""

from __future__ import annotations

from torch import Tensor

__all__ = ["clean_and_eps", "implied_clean", "snr_loss", "state_at"]


def clean_and_eps(x: Tensor, predicted: Tensor, alpha_bar: Tensor, predicts: str) -> tuple[Tensor, Tensor]:
    """(x0, eps) from a state and a prediction of "v", "x0" or "eps"; as `samplers.PREDICTIONS`, per sample."""
    signal, noise = _roots(alpha_bar, x)
    predicted = predicted.to(x.dtype)
    if predicts == "v":
        return signal * x - noise * predicted, noise * x + signal * predicted
    if predicts == "x0":
        return predicted, (x - signal * predicted) / noise
    assert predicts == "eps", predicts
    return (x - noise * predicted) / signal, predicted


def state_at(clean: Tensor, eps: Tensor, alpha_bar: Tensor) -> Tensor:
    """The state at a level: sqrt(alpha_bar) clean + sqrt(1 - alpha_bar) eps (Song et al. 2021, Eq. 12)."""
    signal, noise = _roots(alpha_bar, clean)
    return signal * clean + noise * eps


def implied_clean(x: Tensor, reached: Tensor, alpha_bar: Tensor, following: Tensor) -> Tensor:
    """The x0 with which one DDIM step takes the state x at `alpha_bar` to the state `reached` at `following`.

    Salimans and Ho, "Progressive Distillation" (2022), Appendix G: (reached - r x) / (a' - r a), r = s' / s, where a, s
    are the roots of signal and noise at the two levels. following > alpha_bar.
    """
    signal, noise = _roots(alpha_bar, x)
    next_signal, next_noise = _roots(following, x)
    ratio = next_noise / noise
    return (reached - ratio * x) / (next_signal - ratio * signal)


def snr_loss(clean: Tensor, target: Tensor, alpha_bar: Tensor) -> Tensor:
    """Mean squared error of x0, weighted by SNR + 1 = 1 / (1 - alpha_bar): the error of v, whatever is predicted."""
    errors = (clean.float() - target).square().flatten(1).mean(dim=1)
    return (errors / (1 - alpha_bar)).mean()


def _roots(alpha_bar: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
    alpha_bar = alpha_bar.reshape(-1, *[1] * (like.dim() - 1))
    return alpha_bar.sqrt(), (1 - alpha_bar).sqrt()
