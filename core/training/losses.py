"""The noising of diffusion models, and the losses of the stages. Images are (N, 3, H, W) in [0, 1].

alpha_bar is the share of signal variance: x_t = sqrt(alpha_bar) x_0 + sqrt(1 - alpha_bar) noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

__all__ = [
    "damage_loss",
    "detail_loss",
    "diffusion_loss",
    "draw_level",
    "local_damage",
    "local_deviation",
    "mix",
    "psnr_loss",
    "sigma_loss",
    "v_target",
]

WINDOW = 5  # pixels over which local contrast is measured
OCTAVES = 3


def draw_level(alpha_bars: Sequence[float], shape: Sequence[int], rng: np.random.Generator) -> dict[str, NDArray[Any]]:
    """Draw a random time "t" () in (0, 1], its "alpha_bar" () and standard normal "noise" of `shape`, all float32.

    alpha_bars: alpha_bar_1 .. alpha_bar_T, from nearly clean to nearly pure noise.
    """
    step = int(rng.integers(1, len(alpha_bars) + 1))
    return {
        "t": np.array(step / len(alpha_bars), np.float32),
        "alpha_bar": np.array(alpha_bars[step - 1], np.float32),
        "noise": rng.standard_normal(tuple(shape), dtype=np.float32),
    }


def mix(clean: Tensor, noise: Tensor, alpha_bar: Tensor) -> Tensor:
    """x_t = sqrt(alpha_bar) clean + sqrt(1 - alpha_bar) noise. clean, noise: (N, ...); alpha_bar: (N,) in [0, 1]."""
    alpha_bar = alpha_bar.reshape(-1, *[1] * (clean.dim() - 1))
    return alpha_bar.sqrt() * clean + (1 - alpha_bar).sqrt() * noise


def v_target(clean: Tensor, noise: Tensor, alpha_bar: Tensor) -> Tensor:
    """The target v = sqrt(alpha_bar) noise - sqrt(1 - alpha_bar) clean (Salimans and Ho 2022, App. D); see `mix`."""
    return mix(noise, -clean, alpha_bar)


def psnr_loss(restored: Tensor, clean: Tensor, floor: float = 1e-6) -> Tensor:
    """Minus the mean PSNR of the batch in dB (Chen et al., NAFNet, ECCV 2022): every photo counts alike.

    `floor` is the mean squared error below which a smaller error hardly lowers the loss.
    """
    errors = (restored.float() - clean).square().mean(dim=(1, 2, 3))
    return 10 * torch.log10(errors + floor).mean()


def local_damage(damaged: Tensor, clean: Tensor, cell: int) -> Tensor:
    """Root mean square of damaged - clean around each cell, (N, 1, H / cell, W / cell): over 3 x 3 cells."""
    squares = F.avg_pool2d((damaged - clean).square().mean(dim=1, keepdim=True), cell)
    return F.avg_pool2d(squares, 3, 1, 1, count_include_pad=False).sqrt()


def local_deviation(residual: Tensor, window: int) -> Tensor:
    """Standard deviation of a residual (N, 3, H, W) around each pixel, (N, 1, H, W): over `window` pixels, odd.

    At least half a grey level, so that flat regions stay flat when divided by it.
    """
    squares = residual.square().mean(dim=1, keepdim=True)
    local = squares
    for across in ((window, 1), (1, window)):
        padding = tuple(side // 2 for side in across)
        local = F.avg_pool2d(local, across, 1, padding, count_include_pad=False)
    return (local + (0.5 / 255) ** 2).sqrt()


def damage_loss(estimated: Tensor, true: Tensor) -> Tensor:
    """Squared error of the logarithm of the damage; less than half a grey level counts as none."""
    least = 0.5 / 255
    return (torch.log(estimated.float() + least) - torch.log(true + least)).square().mean()


def sigma_loss(sigma: Tensor, error: Tensor) -> Tensor:
    """Negative log-likelihood of `error` (N, 3, H, W), a constant, under N(0, sigma^2); sigma: (N, 1, H, W).

    Errors below an eighth of a grey level do not count: rounding to 8 bits hides them.
    """
    sigma = sigma.float()
    squares = error.detach().square().mean(dim=1, keepdim=True) + (1 / 8 / 255) ** 2
    return (squares / (2 * sigma.square()) + sigma.log()).mean()


def diffusion_loss(
    predicted: Tensor, clean: Tensor, noise: Tensor, alpha_bar: Tensor, prediction: str, snr_cap: float = 0.0
) -> Tensor:
    """Mean squared error on the prediction, "v" or "x0", of the scaled residual `clean`; see `mix` for the arrays.

    With `snr_cap` above 0, the x0 error is weighted by min(SNR, snr_cap) instead (Hang et al., "Efficient Diffusion
    Training via Min-SNR Weighting Strategy", ICCV 2023; 5 there). That leaves the noisiest times, where few-step
    sampling begins, nearly untrained; so it is not our default.
    """
    target = v_target(clean, noise, alpha_bar) if prediction == "v" else clean
    errors = (predicted.float() - target).square().mean(dim=(1, 2, 3))
    if snr_cap > 0:
        weights = (alpha_bar / (1 - alpha_bar)).clamp(max=snr_cap)
        errors = errors * (weights * (1 - alpha_bar) if prediction == "v" else weights)
    return errors.mean()


def detail_loss(restored: Tensor, clean: Tensor) -> Tensor:
    """Mean absolute difference of local contrast at three octaves, (N,): the amount of texture, not its place.

    It replaces the perceptual term of the reference design, whose network (LPIPS) would have to be downloaded. Local
    contrast is the standard deviation of brightness in windows of 5 pixels.
    """
    first, second = (x.float().mean(dim=1, keepdim=True) for x in (restored, clean))
    total = torch.zeros(len(first), device=first.device)
    for _ in range(OCTAVES):
        total = total + (_contrast(first) - _contrast(second)).abs().mean(dim=(1, 2, 3))
        first, second = F.avg_pool2d(first, 2), F.avg_pool2d(second, 2)
    return total / OCTAVES


def _contrast(x: Tensor) -> Tensor:
    mean, square = (F.avg_pool2d(a, WINDOW, 1, WINDOW // 2, count_include_pad=False) for a in (x, x.square()))
    variance = square - mean.square()
    return torch.sqrt(variance.clamp_min(0) + 1e-5)  # the root of zero has no gradient
