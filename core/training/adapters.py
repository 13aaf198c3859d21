"""Stage II, second part: the guidance adapters of one task around the frozen prior.

Trained: the adapters, and the predictor at a tenth of the rate. Frozen, bit for bit: the prior. The residual that is
diffused is x_0 - y_E with y_E taken as a constant, scaled by the standard deviation measured for this predictor.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.random import Generator
from torch import Tensor, nn

from ..degradations import TASKS
from ..models.dtpm import Dtpm, DtpmConfig
from ..models.semantic import SemanticEncoder
from ..schedule import SCHEDULES, trailing
from .loop import Arrays
from .photos import Pool
from .predictor import planar, psnr_loss, val_pairs
from .prior import CODE_DROP, CODE_NOISE, diffuse, pool_codes, v_loss
from .recipe import Recipe

__all__ = ["RECIPE", "AdapterStage"]

RECIPE = Recipe(steps=20_000, batch=32, rate=1e-3, final_rate=1e-6, ema=0.9995)
PREDICTOR_RATE = 0.1  # of the adapters' learning rate
SCALE_BATCHES = 32  # batches on which the scale of the residual is measured
SAMPLING_STEPS = 4


class AdapterStage:
    """Trains the adapters of `task`; `prior` and `predictor` are the weights of the earlier stages."""

    kind = "dtpm"

    def __init__(
        self,
        config: DtpmConfig,
        task: str,
        encoder: SemanticEncoder,
        prior: dict[str, Tensor],
        predictor: dict[str, Tensor],
        train: Pool,
        val: Pool,
    ) -> None:
        self.config = config
        self.task = task
        self.train = train
        self.codes = pool_codes(encoder, train)
        self.pairs = val_pairs(val)
        self.bars = torch.tensor(SCHEDULES[config.schedule]())
        self.dtpm = Dtpm(config)
        self.model: nn.Module = self.dtpm
        self.dtpm.denoiser.load_state_dict(prior)
        self.dtpm.predictor.load_state_dict(predictor)
        self.dtpm.residual_scale.fill_(self._measure_scale())
        self.trained = {"adapters": 1.0, "predictor": PREDICTOR_RATE}

    @torch.no_grad()
    def _measure_scale(self) -> float:
        recipe = Recipe(steps=SCALE_BATCHES)
        squares = []
        for i in range(SCALE_BATCHES):
            batch = self.draw(recipe, np.random.Generator(np.random.Philox(key=[2**32, i])))
            base = self.dtpm.predictor(torch.from_numpy(batch["damaged"]))
            squares.append((torch.from_numpy(batch["clean"]) - base).square().mean())
        return float(torch.stack(squares).mean().sqrt())

    def draw(self, recipe: Recipe, rng: Generator) -> Arrays:
        """clean and damaged (batch, 3, crop, crop) and the context row of each crop (batch,)."""
        crops = [self.train.crop(recipe.crop, rng) for _ in range(recipe.batch)]
        return {
            "clean": planar([c.clean for c in crops]),
            "damaged": planar([TASKS[self.task](c.clean, rng) for c in crops]),
            "context": np.array([c.context for c in crops]),
        }

    def loss(self, batch: dict[str, Tensor], random: torch.Generator) -> dict[str, Tensor]:
        """MSE on v of the scaled residual, plus L1 of the predictor."""
        code = self.codes[batch["context"]]
        code = code + CODE_NOISE * torch.randn(code.shape, generator=random)
        code = code * (torch.rand((len(code), 1), generator=random) >= CODE_DROP)
        clean = batch["clean"]
        base = self.dtpm.predictor(batch["damaged"].contiguous(memory_format=torch.channels_last)).float()
        fixed = base.detach()
        x, v, t = diffuse((clean - fixed) / self.dtpm.residual_scale, self.bars, random)
        x = x.contiguous(memory_format=torch.channels_last)
        texture = v_loss(self.dtpm.denoiser(x, fixed, code, t, self.dtpm.adapters), v)
        content = F.l1_loss(base, clean)
        return {"loss": texture + content, "texture": texture, "content": content}

    def validate(self, model: nn.Module) -> dict[str, float]:
        """PSNR in dB on held-back pairs: of the predictor, and of 4 steps at full and at half texture."""
        assert isinstance(model, Dtpm)
        levels, times = trailing(SAMPLING_STEPS, self.bars.tolist())
        figures = {}
        for name, (damaged, clean) in self.pairs.items():
            base = model.predictor(damaged)
            noise = torch.randn(damaged.shape, generator=torch.Generator().manual_seed(0))
            code = torch.zeros(len(damaged), self.config.semantic.code)
            texture = model.residual_scale * model.residual(base, code, noise, levels, times)
            for gain in (0, 0.5, 1):
                figures[f"val_psnr_{name}_{gain}"] = -float(psnr_loss((base + gain * texture).clamp(0, 1), clean))
        return figures

    def facts(self) -> dict[str, Any]:
        """The task, and the scale of its residual."""
        return {"task": self.task, "residual_scale": float(self.dtpm.residual_scale)}
