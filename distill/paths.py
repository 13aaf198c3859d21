"""The arithmetic of one step with a level per sample: what a prediction says, and what it should have said.

The samplers of core work on plain floats, one level for all; in training each sample has its own. bar: (N,), the share
of signal variance. States are (N, ...).
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

__all__ = ["implied", "move", "snr_loss", "split"]


def split(x: Tensor, predicted: Tensor, bar: Tensor, predicts: str) -> tuple[Tensor, Tensor]:
    """(x0, eps) of a state and what was predicted of it, "v", "x0" or "eps"; as `samplers.PREDICTIONS`, by sample."""
    signal, noise = _roots(bar, x)
    return _SPLITS[predicts](x, predicted.to(x.dtype), signal, noise)


def _from_v(x: Tensor, v: Tensor, signal: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    return signal * x - noise * v, noise * x + signal * v


def _from_clean(x: Tensor, clean: Tensor, signal: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    return clean, (x - signal * clean) / noise


def _from_noise(x: Tensor, eps: Tensor, signal: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    return (x - noise * eps) / signal, eps


_SPLITS: dict[str, Callable[[Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]] = {
    "v": _from_v,
    "x0": _from_clean,
    "eps": _from_noise,
}


def move(clean: Tensor, eps: Tensor, bar: Tensor) -> Tensor:
    """The state at a level: sqrt(bar) clean + sqrt(1 - bar) eps, one DDIM step (Song et al. 2021, Eq. 12)."""
    signal, noise = _roots(bar, clean)
    return signal * clean + noise * eps


def implied(x: Tensor, reached: Tensor, bar: Tensor, following: Tensor) -> Tensor:
    """The x0 with which one DDIM step takes the state x at `bar` to the state `reached` at `following`.

    Salimans and Ho, "Progressive Distillation" (2022), Appendix G: (reached - r x) / (a' - r a), r = s' / s, where a, s
    are the roots of signal and noise at the two levels. following > bar.
    """
    signal, noise = _roots(bar, x)
    next_signal, next_noise = _roots(following, x)
    ratio = next_noise / noise
    return (reached - ratio * x) / (next_signal - ratio * signal)


def snr_loss(clean: Tensor, target: Tensor, bar: Tensor) -> Tensor:
    """Mean squared error of x0, weighted by SNR + 1 = 1 / (1 - bar): that of v, whatever is predicted."""
    errors = (clean.float() - target).square().flatten(1).mean(dim=1)
    return (errors / (1 - bar)).mean()


def _roots(bar: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
    bar = bar.reshape(-1, *[1] * (like.dim() - 1))
    return bar.sqrt(), (1 - bar).sqrt()
