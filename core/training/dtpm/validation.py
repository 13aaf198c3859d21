"""What validation has in common: networks run over held-back photos a few at a time."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ...models.dtpm import Dtpm
from ...sampling.schedule import trailing
from ..data.photos import CONTEXTS, Pool, val_pairs
from ..loop.stage import Validation
from .losses import psnr_loss

__all__ = ["HeldBack", "calibration", "device_of", "in_parts", "psnr", "side_by_side"]

PART = 8  # photos that are run at once
GAINS = (0, 0.5, 1)
DEVIATION_STEPS = (1, 2, 4, 8, 50)  # for which the deviation of the samples is measured


def device_of(model: nn.Module) -> torch.device:
    """Where the weights of a model are."""
    return next(model.parameters()).device


def in_parts(function: Callable[..., Tensor], device: torch.device, *tensors: Tensor) -> Tensor:
    """function(*tensors), computed on `device` for a few rows at a time; the result is on the CPU."""
    parts = zip(*(tensor.split(PART) for tensor in tensors), strict=True)
    return torch.cat([function(*(tensor.to(device) for tensor in part)).cpu() for part in parts])


def psnr(restored: Tensor, clean: Tensor) -> float:
    """Mean PSNR in dB of (N, 3, H, W) clipped to [0, 1]."""
    return -float(psnr_loss(restored.clamp(0, 1), clean))


def calibration(samples: Tensor, residuals: Tensor) -> float:
    """Mean absolute logarithm of the standard deviation of a photo's sampled residual over that of its true one.

    samples, residuals: (N, 3, H, W), in the same unit. 0 is a sampler that knows how much each photo has lost.
    """
    sampled, true = (x.flatten(1).std(dim=1).clamp_min(1e-6) for x in (samples, residuals))
    return float((sampled / true).log().abs().mean())


def side_by_side(*pictures: Tensor) -> Tensor:
    """The first of each (N, 3, H, W) in a row, (3, H, k W), in [0, 1]."""
    return torch.cat([batch[0].detach().cpu() for batch in pictures], dim=2).clamp(0, 1)


class HeldBack:
    """Damaged and clean pairs of held-back photos, with a code for each, on which a whole DTPM is judged."""

    def __init__(self, pool: Pool, task: str, encoder: nn.Module, bars: list[float], steps: int = 4) -> None:
        self.damaged, self.clean = val_pairs(pool, task)
        self.thumbnails = torch.from_numpy(pool.contexts[::CONTEXTS].copy()).float() / 255
        self.noise = torch.randn(self.damaged.shape, generator=torch.Generator().manual_seed(0))
        self.encoder, self.bars = encoder, bars
        self.sampling = trailing(steps, bars)
        self.deviations: dict[str, float] = {}  # of the model that was judged last; see `sampled_deviation`

    def judge(self, model: Dtpm) -> Validation:
        """PSNR in dB at each gain of the texture (0 is the predictor alone), and the `calibration` of the samples."""

        def sample(damaged: Tensor, noise: Tensor, thumbnail: Tensor) -> Tensor:
            base, scale = model.predict(damaged)
            code = model.encode(self.encoder, thumbnail)
            residual = model.residual(damaged, base, code, noise, *self.sampling)
            texture = model.amplitude(scale) * residual
            return torch.stack([*(base + gain * texture for gain in GAINS), scale * residual], dim=1)

        *restored, samples = in_parts(sample, device_of(model), self.damaged, self.noise, self.thumbnails).unbind(dim=1)
        figures = {f"val_psnr_{g:g}": psnr(r, self.clean) for g, r in zip(GAINS, restored, strict=True)}
        figures["val_calibration"] = calibration(samples, self.clean - restored[0])
        if model.predictor.calibrated:
            self.deviations = {str(steps): self._deviation(model, steps) for steps in DEVIATION_STEPS}
            figures["val_deviation_50"] = self.deviations["50"]
        picture = side_by_side(self.damaged, *restored, self.clean)
        return Validation(figures, {"damaged_restored_clean": picture})

    def _deviation(self, model: Dtpm, steps: int) -> float:
        """Root mean square of the scaled residuals sampled in `steps` steps, on the first photos."""
        device = device_of(model)
        damaged, noise, thumbnail = (x[:PART].to(device) for x in (self.damaged, self.noise, self.thumbnails))
        base, _ = model.predict(damaged)
        code = model.encode(self.encoder, thumbnail)
        return float(model.residual(damaged, base, code, noise, *trailing(steps, self.bars)).square().mean().sqrt())
