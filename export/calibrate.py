"""What a quantizer looks at: real photos, really damaged, and the states of real sampling runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ..core.degradations import TASKS
from ..core.image import read
from ..core.models.dtpm import Dtpm
from ..core.noise import normal
from ..core.samplers import ddim
from ..core.thumbnail import thumbnail
from .source import Feed

__all__ = ["record"]

CROP = 256


@torch.no_grad()
def record(
    model: Dtpm,
    encoder: nn.Module,
    levels: Sequence[float],
    times: Sequence[float],
    photos: Sequence[Path],
    *,
    task: str,
) -> dict[str, list[Feed]]:
    """Inputs of every graph, by name, while these photos are damaged (seeded by their order) and restored.

    Each photo gives its centre crop of 256 pixels; `denoise` gets the states at every level of the sampler.
    """
    config: Any = encoder.config
    feeds: dict[str, list[Feed]] = {"encode": [], "predict": [], "denoise": [], "fused": []}
    for seed, path in enumerate(photos):
        clean = _centre(read(path).pixels, model.multiple_of)
        damaged = TASKS[task](clean, np.random.default_rng(seed))
        small = thumbnail(np.round(damaged * 255).astype(np.uint8), config.size)
        image = torch.from_numpy(np.ascontiguousarray(damaged.transpose(2, 0, 1)[None]))
        code, base = model.encode(encoder, torch.from_numpy(small)), model.predictor(image)
        noise = torch.from_numpy(normal(seed, 0, (0, image.shape[2]), (0, image.shape[3])))
        feeds["encode"].append({"thumbnail": small})
        feeds["predict"].append({"image": image.numpy()})
        feeds["fused"].append(_numpy(image=image, noise=noise, code=code, strength=torch.ones(1)))
        feeds["denoise"] += _states(model, image, base, code, noise, levels, times)
    return feeds


def _centre(pixels: NDArray[np.uint8] | NDArray[np.uint16], multiple: int) -> NDArray[np.float32]:
    y, x = (max(0, (side - CROP) // 2) for side in pixels.shape[:2])
    square = pixels[y : y + CROP, x : x + CROP].astype(np.float32) / np.float32(np.iinfo(pixels.dtype).max)
    height, width = (side // multiple * multiple for side in square.shape[:2])
    return square[:height, :width]


def _states(
    model: Dtpm,
    image: torch.Tensor,
    base: torch.Tensor,
    code: torch.Tensor,
    noise: torch.Tensor,
    levels: Sequence[float],
    times: Sequence[float],
) -> list[Feed]:
    guides = {"image": image, "base": base} if model.config.structure_slot == "y_d" else {"base": base}
    seen: list[Feed] = []

    def denoise(x: torch.Tensor, step: int) -> torch.Tensor:
        t = torch.full((1,), times[step])
        seen.append(_numpy(x=x, code=code, t=t, **guides))
        return model.denoise(x, image, base, code, t)

    ddim(denoise, noise, levels, model.config.prediction)
    return seen


def _numpy(**tensors: torch.Tensor) -> Feed:
    return {name: tensor.numpy() for name, tensor in tensors.items()}
