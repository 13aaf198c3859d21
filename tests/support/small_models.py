"""Small models of the three systems, with random weights that do something everywhere, for tests of export."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from pocketprior.core.models import checkpoints
from pocketprior.core.models.diffir import CpenConfig, Diffir, DiffirConfig
from pocketprior.core.models.dirformer import DirformerConfig
from pocketprior.core.models.dtpm import DenoiserConfig, Dtpm, DtpmConfig, PredictorConfig
from pocketprior.core.models.gen2res import Denoiser, Gen2ResConfig
from pocketprior.core.models.semantic_code import NO_SEMANTIC, SemanticConfig, SemanticEncoder
from pocketprior.core.pack.manifest import TileWindow
from pocketprior.core.sampling.schedule import cosine, trailing
from pocketprior.export.systems.diffir import DiffirSource
from pocketprior.export.systems.dtpm import DtpmSource, Sampling
from pocketprior.export.systems.gen2res import Gen2ResSource
from pocketprior.export.systems.source import CheckpointSource

CONFIG = DtpmConfig(
    PredictorConfig(widths=(8, 8), blocks=(1, 1)),
    DenoiserConfig(widths=(8, 8), blocks=(1, 1), embedding=8, adapter_minimum=4),
    SemanticConfig(size=16, code=6, widths=(8, 8)),
)
CALIBRATED = DtpmConfig(
    PredictorConfig("conv", widths=(8, 8), blocks=(1, 1), damage=4),
    DenoiserConfig("conv", widths=(8, 8), blocks=(1, 1), expansion=1.0, embedding=8, adapter_minimum=4, finest=4),
    NO_SEMANTIC,
    adapters="shared",
    damage_input="adapters",
    knee=0.03,
)
DIFFIR = DiffirConfig(
    ipr=6,
    steps=4,
    cpen=CpenConfig(width=4, blocks=1),
    dirformer=DirformerConfig(width=4, blocks=(1, 1), heads=(1, 2), refinement=0, unshuffle=2),
)
GEN2RES = Gen2ResConfig(
    widths=(8, 8), blocks=1, attention=(4,), unshuffle=2, embedding=16, groups=4, dropout=0.0
)  # downscales 2 and 4: attention at the lower level
TASKS = ("cleanup", "rain", "haze")  # around one prior
SYSTEMS = ("diffir", "gen2res")  # of which there are packs beside the DTPM's
WINDOW = TileWindow(64, 8)
START, STEPS = 200, 3
PHOTOS = sorted((Path(__file__).parents[2] / "examples").glob("*.jpg"))
LEVELS, TIMES = trailing(2, cosine())
SAMPLING = Sampling(tuple(LEVELS), tuple(TIMES), 0.5)


def _shaken(module: torch.nn.Module, scale: float = 0.15, seed: int = 0) -> None:
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(scale * torch.randn(parameter.shape, generator=random))


def small_model(config: DtpmConfig = CONFIG) -> Dtpm:
    """Always the same weights."""
    model = Dtpm(config).eval().requires_grad_(False)
    _shaken(model)
    return model


def small_encoder() -> SemanticEncoder:
    """Always the same weights."""
    encoder = SemanticEncoder(CONFIG.semantic).eval().requires_grad_(False)
    _shaken(encoder)
    return encoder


def small_diffir(config: DiffirConfig = DIFFIR) -> Diffir:
    """Always the same weights."""
    model = Diffir(config).eval().requires_grad_(False)
    _shaken(model, 0.3)
    return model


def small_gen2res() -> Denoiser:
    """Always the same weights."""
    denoiser = Denoiser(GEN2RES).eval().requires_grad_(False)
    _shaken(denoiser)
    return denoiser


def save_small(folder: Path) -> tuple[Path, Path]:
    """Checkpoints of a DTPM, as training writes them: model and semantic encoder."""
    paths = folder / "model.safetensors", folder / "semantic.safetensors"
    checkpoints.save(paths[0], "dtpm", CONFIG, small_model().state_dict(), {"task": "cleanup"})
    encoder = {f"encoder.{name}": tensor for name, tensor in small_encoder().state_dict().items()}
    checkpoints.save(paths[1], "semantic", CONFIG.semantic, encoder, {})
    return paths


def save_calibrated(folder: Path) -> Path:
    """The checkpoint of a calibrated DTPM, which has no semantic encoder."""
    path = folder / "calibrated.safetensors"
    checkpoints.save(path, "dtpm", CALIBRATED, small_model(CALIBRATED).state_dict(), {"task": "cleanup"})
    return path


def save_tasks(folder: Path, config: DtpmConfig = CONFIG, scale: float = 0.15) -> tuple[list[Path], Path | None]:
    """Checkpoints of DTPMs for three tasks around one prior and one predictor, and their semantic encoder if any."""
    first = Dtpm(config)
    paths = [folder / f"{task}.safetensors" for task in TASKS]
    _shaken(first, scale)
    checkpoints.save(paths[0], "dtpm", config, first.state_dict(), {"task": TASKS[0]})
    further = replace(config, predictor=replace(config.predictor, lora=4))
    for seed, (path, task) in enumerate(zip(paths[1:], TASKS[1:], strict=True), 1):
        model = Dtpm(further)
        model.load_state_dict(first.state_dict(), strict=False)
        own = [model.get_submodule(name) for name in ("adapters", *model.predictor_parts())]
        _shaken(torch.nn.ModuleList(own), scale, seed)
        checkpoints.save(path, "dtpm", further, model.state_dict(), {"task": task})
    return paths, save_encoder(folder, config.semantic, scale) if config.semantic.code else None


def save_encoder(folder: Path, config: SemanticConfig, scale: float) -> Path:
    """The checkpoint of a semantic encoder."""
    encoder, path = SemanticEncoder(config), folder / "semantic.safetensors"
    _shaken(encoder, scale)
    tensors = {f"encoder.{name}": tensor for name, tensor in encoder.state_dict().items()}
    checkpoints.save(path, "semantic", config, tensors, {})
    return path


def save_diffir(folder: Path) -> Path:
    """The checkpoint of a DiffIR."""
    path = folder / "diffir.safetensors"
    checkpoints.save(path, "diffir", DIFFIR, small_diffir().state_dict(), {"task": "cleanup"})
    return path


def save_gen2res(folder: Path, facts: Mapping[str, Any] | None = None) -> Path:
    """The checkpoint of a Gen2Res."""
    path = folder / "gen2res.safetensors"
    checkpoints.save(path, "gen2res", GEN2RES, small_gen2res().state_dict(), dict(facts or {}))
    return path


def source_of(system: str, folder: Path, steps: int = 2) -> CheckpointSource:
    """What a pack of a system is written from, the checkpoint in `folder`; steps: of a DTPM."""
    if system == "dtpm":
        model, semantic = save_small(folder)
        return DtpmSource(model, str(semantic), steps=steps)
    if system == "calibrated":
        return DtpmSource(save_calibrated(folder), steps=steps)
    if system == "diffir":
        return DiffirSource(save_diffir(folder), window=WINDOW)
    return Gen2ResSource(save_gen2res(folder), "ancestral", START, STEPS, window=WINDOW)
