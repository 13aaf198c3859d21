"""A pool of small real photos and a trained-looking base model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from pocketprior.core.models import checkpoints
from pocketprior.core.models.gen2res import CONFIGS, Denoiser
from pocketprior.core.photo.io import read
from pocketprior.core.training.data import photos

EXAMPLES = Path(__file__).parents[4] / "examples"
TINY = replace(CONFIGS["mobile"], widths=(8, 16, 16), embedding=16, groups=4)


@pytest.fixture(scope="session")
def pool() -> photos.Pool:
    pictures = [read(path).pixels[:200, :160].astype(np.uint8) for path in sorted(EXAMPLES.glob("*.jpg"))]
    return photos.gather(pictures, minimum=64, side=0, structures=False)


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint whose zeros are small numbers: everything in it matters."""
    torch.manual_seed(0)
    denoiser = Denoiser(TINY)
    for parameter in denoiser.parameters():
        if not parameter.abs().sum():
            torch.nn.init.normal_(parameter, std=0.02)
    path = tmp_path_factory.mktemp("base") / "model.safetensors"
    checkpoints.save(path, "gen2res", TINY, denoiser.state_dict(), {})
    return path
