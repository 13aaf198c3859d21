"""A small DTPM with random weights that do something everywhere, for tests of export and training."""

from __future__ import annotations

from pathlib import Path

import torch

from pocketprior.core.models import checkpoints
from pocketprior.core.models.dtpm import DenoiserConfig, Dtpm, DtpmConfig, PredictorConfig
from pocketprior.core.models.semantic import SemanticConfig, SemanticEncoder
from pocketprior.core.schedule import cosine, trailing
from pocketprior.export.graphs import Sampling

CONFIG = DtpmConfig(
    PredictorConfig(widths=(8, 8), blocks=(1, 1)),
    DenoiserConfig(widths=(8, 8), blocks=(1, 1), embedding=8, adapter_minimum=4),
    SemanticConfig(size=16, code=6, widths=(8, 8)),
)
LEVELS, TIMES = trailing(2, cosine())
SAMPLING = Sampling(tuple(LEVELS), tuple(TIMES), 0.5)


def _shaken(module: torch.nn.Module) -> None:
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(0.15 * torch.randn(parameter.shape, generator=random))


def small_model() -> Dtpm:
    """Always the same weights."""
    model = Dtpm(CONFIG).eval().requires_grad_(False)
    _shaken(model)
    return model


def small_encoder() -> SemanticEncoder:
    """Always the same weights."""
    encoder = SemanticEncoder(CONFIG.semantic).eval().requires_grad_(False)
    _shaken(encoder)
    return encoder


def save_small(folder: Path) -> tuple[Path, Path]:
    """Checkpoints of both, as training writes them: model and semantic encoder."""
    paths = folder / "model.safetensors", folder / "semantic.safetensors"
    checkpoints.save(paths[0], "dtpm", CONFIG, small_model().state_dict(), {"task": "cleanup"})
    encoder = {f"encoder.{name}": tensor for name, tensor in small_encoder().state_dict().items()}
    checkpoints.save(paths[1], "semantic", CONFIG.semantic, encoder, {})
    return paths
