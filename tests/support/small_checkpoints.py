"""Small DTPMs of every body, the checkpoints of their stages, and batches as the loop makes them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pocketprior.core.models.checkpoints import Checkpoint
from pocketprior.core.models.dtpm import DenoiserConfig, Dtpm, DtpmConfig, Predictor, PredictorConfig, TextureDenoiser
from pocketprior.core.models.semantic_code import NO_SEMANTIC, SemanticConfig, SemanticEncoder
from pocketprior.core.training.data.photos import Pool
from pocketprior.core.training.dtpm.prior import PRIOR_STAGE
from pocketprior.core.training.dtpm.task import ADAPTERS_STAGE, FINISH_STAGE, PREDICTOR_STAGE
from pocketprior.core.training.loop.stage import StageDefinition, TrainingStage, stacked

SEMANTIC = SemanticConfig(size=16, code=6, widths=(8, 8))
MODELS = {
    "rep": DtpmConfig(
        PredictorConfig(widths=(8, 8), blocks=(1, 1)),
        DenoiserConfig(widths=(8, 8), blocks=(1, 1), embedding=8, adapter_minimum=4),
        SEMANTIC,
    ),
    "naf": DtpmConfig(
        PredictorConfig("naf", (4, 8), (1, 1)),
        DenoiserConfig("naf", (8, 16), (1, 1), (1,), 1.0, embedding=16, adapter_minimum=4),
        SEMANTIC,
    ),
    "conv": DtpmConfig(
        PredictorConfig("conv", (8, 8), (1, 1), damage=4),
        DenoiserConfig("conv", (8, 8), (1, 1), embedding=8, adapter_minimum=8, finest=4),
        NO_SEMANTIC,
        adapters="shared",
        damage_input="adapters",
        knee=0.03,
    ),
}
CALIBRATED = ("conv",)  # the models whose predictor is
STAGES: dict[str, StageDefinition[Any]] = {
    "predictor": PREDICTOR_STAGE,
    "prior": PRIOR_STAGE,
    "adapters": ADAPTERS_STAGE,
    "finish": FINISH_STAGE,
}

Build = Callable[..., TrainingStage]


def randomize(module: nn.Module) -> None:
    """Weights that do something everywhere: nothing that starts at zero holds a gradient back."""
    random = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(0.1 * torch.randn(parameter.shape, generator=random))


def checkpoint(kind: str, config: Any, module: nn.Module, prefix: str = "", **facts: Any) -> Checkpoint:
    randomize(module)
    return Checkpoint(kind, asdict(config), {f"{prefix}{k}": v for k, v in module.state_dict().items()}, facts)


def earlier(model: DtpmConfig) -> Mapping[str, Checkpoint]:
    """What the stages start from."""
    semantic = {}
    if model.semantic != NO_SEMANTIC:
        semantic["semantic"] = checkpoint("semantic", model.semantic, SemanticEncoder(model.semantic), "encoder.")
    return semantic | {
        "prior": checkpoint("prior", model, TextureDenoiser(model.denoiser, model.semantic.code)),
        "predictor": checkpoint("predictor", model, Predictor(model.predictor)),
        "dtpm": checkpoint("dtpm", model, Dtpm(model), task="cleanup"),
    }


def batch_of(stage: TrainingStage, pool: Pool, count: int = 2) -> dict[str, Tensor]:
    """What the loop hands to `loss`."""
    return stacked([stage.draw(pool, stage.recipe.crop, np.random.default_rng(i)) for i in range(count)])
