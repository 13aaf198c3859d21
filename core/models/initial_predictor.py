"""DTPM's initial predictor: the deterministic first estimate y_E of the clean image.

The *calibrated* predictor is ours, not the paper's: it estimates the damage, accepts an `amount` of it to remove, and
returns, with y_E, the standard deviation sigma of what it could not restore.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import UsageError
from .blocks import Unet, UnetConfig, conv3x3, zero_
from .lora import add_lora, factor_names

__all__ = ["DamageEstimator", "Estimate", "Predictor", "PredictorConfig"]

SIGMA, LOG_RANGE = 0.03, 4.0  # sigma lies within exp(+-4) of 0.03: from 0.14 grey levels to more than white


@dataclass(frozen=True)
class PredictorConfig(UnetConfig):
    """The initial predictor E: a U-Net with a global residual.

    Raises UsageError for a negative rank, and for factors of a body that cannot share its weights.
    """

    lora: int = 0  # rank of the factors of a predictor that shares another task's weights; 0: it has weights of its own
    damage: int = 0  # channels of a calibrated predictor's `DamageEstimator`; 0: a plain one, without amount and sigma

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.lora < 0:
            raise UsageError(f"lora is the rank of a predictor's factors, 0 for none; got {self.lora}")
        if self.lora and self.body not in ("rep", "conv"):
            raise UsageError(
                f"lora={self.lora} was given for a predictor with the body '{self.body}'; only one with the body 'rep' "
                "or 'conv' can share its weights"
            )


class Estimate(NamedTuple):
    """The output of a calibrated predictor, in [0, 1] units."""

    base: Tensor  # (N, 3, H, W): y_E, not clipped
    sigma: Tensor  # (N, 1, H, W): expected standard deviation of x_0 - y_E, at an amount of 1 or more
    damage: Tensor  # (N, 1, H / 16, W / 16): expected root mean square of y_d - x_0 around each cell


class DamageEstimator(nn.Module):
    """Estimates from an image's own statistics how much it is damaged; strided convolutions only."""

    cell = 16  # pixels on a side
    unit = 0.05  # 13 grey levels: what a fresh network estimates
    log_range = 5.0  # estimates lie within exp(+-5) of it: from 0.1 grey levels on

    def __init__(self, channels: int) -> None:
        super().__init__()
        wide = 2 * channels
        self.layers = nn.Sequential(
            nn.Conv2d(3, channels, 4, stride=4),
            nn.ReLU(),
            conv3x3(channels, channels),
            nn.ReLU(),
            nn.Conv2d(channels, wide, 2, stride=2),
            nn.ReLU(),
            conv3x3(wide, wide),
            nn.ReLU(),
            nn.Conv2d(wide, wide, 2, stride=2),
            nn.ReLU(),
            nn.Conv2d(wide, 1, 1),
        )

    def forward(self, image: Tensor) -> Tensor:
        """image: (N, 3, H, W) in [0, 1], sides multiples of 16. Returns (N, 1, H / 16, W / 16), above 0."""
        logarithm = self.layers(image - 0.5)
        return self.unit * torch.exp(logarithm.clamp(-self.log_range, self.log_range))


class Predictor(nn.Module):
    """y_E = y_d + net(y_d).

    With `config.damage` it is calibrated: it estimates the damage d of the image and restores under it, R(y_d, d), with
    one more output for the logarithm of sigma. An `amount` a in 0..2 sets how much of the damage to remove:

        y_E = y_d + min(a, 1) (R(y_d, max(a, 1) d) - y_d),

    so 0 returns the image itself, 1 the predictor's own estimate; above 1 the image is treated as a worse one.
    """

    def __init__(self, config: PredictorConfig) -> None:
        super().__init__()
        self.config = config
        self.calibrated = config.damage > 0
        self.unet = Unet(config, 3, 4 if self.calibrated else 3)
        self.multiple_of = self.unet.multiple_of
        if self.calibrated:
            self.damage = DamageEstimator(config.damage)
            self.condition = nn.Conv2d(1, config.widths[0], 1)
            zero_(self.unet.end)  # at first the image itself, and a sigma of SIGMA
            self.multiple_of = max(self.multiple_of, DamageEstimator.cell)
        if config.lora:
            add_lora(self, config.lora)

    def own_parts(self) -> list[str]:
        """Names of the parts that belong to the task: all ("") or, with `config.lora`, only the factors."""
        return factor_names(self) or [""]

    def forward(self, image: Tensor, amount: Tensor | None = None) -> Tensor:
        """y_E, not clipped, (N, 3, H, W); arguments as in `estimate`."""
        if self.calibrated:
            return self.estimate(image, amount).base
        return image + self.unet(image - 0.5)

    def estimate(self, image: Tensor, amount: Tensor | None = None) -> Estimate:
        """y_E with its sigma and the estimated damage; only for a calibrated predictor.

        image: (N, 3, H, W) in [0, 1], sides multiples of `multiple_of`. amount: (N,) in 0..2; None for 1.
        """
        damage = self.damage(image)
        if amount is None:
            return Estimate(*self.restore(image, damage), damage)
        amount = amount.reshape(-1, 1, 1, 1)
        base, sigma = self.restore(image, damage * amount.clamp(min=1))
        return Estimate(image + amount.clamp(max=1) * (base - image), sigma, damage)

    def restore(self, image: Tensor, damage: Tensor) -> tuple[Tensor, Tensor]:
        """R(y_d, d) and its sigma: (N, 3, H, W) and (N, 1, H, W); damage: (N, 1, H / 16, W / 16) in [0, 1] units."""
        scale = DamageEstimator.cell // self.unet.finest
        seen = F.interpolate(damage / DamageEstimator.unit, scale_factor=float(scale), mode="bilinear")
        change, log_sigma = self.unet(image - 0.5, entry=self.condition(seen)).split([3, 1], dim=1)
        return image + change, SIGMA * torch.exp(log_sigma.clamp(-LOG_RANGE, LOG_RANGE))
