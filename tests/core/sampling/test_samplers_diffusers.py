"""Our samplers against the schedulers of the diffusers package: same model, same noise, same levels."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from torch import Tensor

from pocketprior.core.sampling import samplers, schedule

KINDS = {"eps": "epsilon", "v": "v_prediction", "x0": "sample"}
START = torch.from_numpy(np.random.default_rng(0).standard_normal((2, 3, 8, 8)))
BETAS = np.linspace(1e-4, 0.02, 1000)


def model(x: Tensor, t: int) -> Tensor:
    """Something smooth that depends on the state and the time, in float64."""
    return torch.tanh(x * (0.4 + t / 2000)) * 0.8 + 0.1 * math.sin(t)


def timesteps(times: list[float]) -> list[int]:
    """The package counts from 0, we from 1."""
    return [round(t * 1000) - 1 for t in times]


def run_reference(scheduler: Any, steps: int, predict: Callable[[Tensor, int], Tensor], **options: Any) -> Tensor:
    scheduler.set_timesteps(steps)
    x = START
    for t in scheduler.timesteps.tolist():
        x = scheduler.step(predict(x, t), t, x, **options).prev_sample
    return x


def ddim_scheduler(bars: list[float] | None, predicts: str, **options: Any) -> DDIMScheduler:
    scheduler = DDIMScheduler(
        trained_betas=BETAS.tolist(),
        prediction_type=KINDS[predicts],
        set_alpha_to_one=True,
        **{"clip_sample": False, "timestep_spacing": "trailing", **options},
    )
    # The package computes in float32; the comparison is of formulas, so both get the same float64 levels.
    if bars is not None:
        scheduler.alphas_cumprod = torch.tensor(bars, dtype=torch.float64)
    scheduler.final_alpha_cumprod = torch.tensor(1.0, dtype=torch.float64)
    return scheduler


@pytest.mark.parametrize("steps", [4, 50])
@pytest.mark.parametrize("predicts", KINDS)
@pytest.mark.parametrize("clip", [False, True])
def test_ddim(steps: int, predicts: str, clip: bool) -> None:
    bars = schedule.ddpm()
    levels, times = schedule.trailing(steps, bars)
    counts = timesteps(times)
    ours = samplers.ddim(lambda x, i: model(x, counts[i]), START, levels, predicts, samplers.clipped if clip else None)
    scheduler = ddim_scheduler(bars, predicts, clip_sample=clip)
    theirs = run_reference(scheduler, steps, model, use_clipped_model_output=clip)
    assert scheduler.timesteps.tolist() == counts
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


@pytest.mark.parametrize("predicts", ["v", "x0"])
def test_ddim_from_pure_noise(predicts: str) -> None:
    """Zero terminal signal-to-noise ratio and trailing spacing: our `linear` is their rescaled schedule."""
    levels, times = schedule.trailing(10, schedule.linear())
    counts = timesteps(times)
    scheduler = ddim_scheduler(None, predicts, rescale_betas_zero_snr=True)
    np.testing.assert_allclose(scheduler.alphas_cumprod.numpy(), schedule.linear(), atol=1e-5)
    scheduler = ddim_scheduler(schedule.linear(), predicts, rescale_betas_zero_snr=True)
    ours = samplers.ddim(lambda x, i: model(x, counts[i]), START, levels, predicts)
    torch.testing.assert_close(ours, run_reference(scheduler, 10, model), rtol=0, atol=1e-5)


@pytest.mark.parametrize("steps", [20, 1000])
@pytest.mark.parametrize("predicts", KINDS)
@pytest.mark.parametrize("variance", ["small", "large", "learned"])
def test_ancestral(steps: int, predicts: str, variance: str, monkeypatch: pytest.MonkeyPatch) -> None:
    bars = schedule.ddpm()
    levels, times = schedule.trailing(steps, bars)
    counts = timesteps(times)
    draws = np.random.default_rng(1)
    noises = [torch.from_numpy(draws.standard_normal(tuple(START.shape))) for _ in counts]
    # The package takes its last step for a noisy one unless it is at time 0; Algorithm 2 of the paper adds none.
    noises[-1] = torch.zeros_like(START)

    def share(x: Tensor) -> Tensor:
        return torch.sin(x * 3)

    def ours_predict(x: Tensor, i: int) -> Any:
        value = model(x, counts[i])
        return (value, share(x)) if variance == "learned" else value

    def theirs_predict(x: Tensor, t: int) -> Tensor:
        return torch.cat([model(x, t), share(x)], dim=1) if variance == "learned" else model(x, t)

    scheduler = DDPMScheduler(
        trained_betas=BETAS.tolist(),
        prediction_type=KINDS[predicts],
        clip_sample=True,
        variance_type={"small": "fixed_small", "large": "fixed_large", "learned": "learned_range"}[variance],
        timestep_spacing="trailing",
    )
    scheduler.alphas_cumprod = torch.tensor(bars, dtype=torch.float64)
    scheduler.one = torch.tensor(1.0, dtype=torch.float64)
    following = iter(noises)
    monkeypatch.setattr("diffusers.schedulers.scheduling_ddpm.randn_tensor", lambda *_, **__: next(following))
    ours = samplers.ancestral(ours_predict, START, levels, noises.__getitem__, predicts, variance, samplers.clipped)
    torch.testing.assert_close(ours, run_reference(scheduler, steps, theirs_predict), rtol=0, atol=1e-5)
