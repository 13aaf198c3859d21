"""What the stages of DiffIR draw and are judged on: an image, as the configuration wants it, and its ground truth.

How the estimators of a normed prior start: every layer with outputs of mean 0 and variance 1 on the training data.

Krähenbühl et al., "Data-dependent Initializations of Convolutional Neural Networks" (ICLR 2016), in one forward pass.
Without it the average over the pixels of random features is nearly the same vector for every photo: of the energy of a
prior at size `mobile`, 0.01 to 0.03 % differs between crops of damaged photos under PyTorch's initialisation, 98 %
under this one. The transformer learns to do without a vector that tells photos apart only later.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor, nn

from ...arrays import FloatImage
from ...degradations import SHRINKS, TASKS, Thickness, brush_mask
from ...errors import TrainingError, UnknownNameError
from ...models.diffir import CONFIGS, DiffirConfig, composed
from ..data.photos import Pool, planar, val_pairs
from ..loop.recipe import Recipe
from ..loop.stage import Arrays, Validation

__all__ = ["DiffirRecipe", "draw_pair", "held_back", "psnr", "standardise", "starting_pairs", "strip", "validation"]

THICKNESSES: tuple[Thickness, ...] = ("thin", "medium", "thick")
VAL_SIDE = 256  # of the crops that figures are measured on, pixels


@dataclass(frozen=True)
class DiffirRecipe(Recipe):
    """A recipe of any stage of DiffIR.

    Raises UsageError for a task, mask or crop that does not suit the model.
    """

    task: str = "motionblur"  # of TASKS; for super-resolution of SHRINKS
    mask: str = "medium"  # what is missing when the model is for inpainting (and then instead of the task)
    model: DiffirConfig = field(default_factory=lambda: CONFIGS["mobile"])

    def __post_init__(self) -> None:
        super().__post_init__()
        scale = self.model.scale
        tasks = TASKS if scale == 1 else [name for name in SHRINKS if name.endswith(str(scale))]
        if self.task not in tasks:
            raise UnknownNameError(f"task for a model of scale {scale}", self.task, tasks)
        if self.mask not in THICKNESSES:
            raise UnknownNameError("mask", self.mask, THICKNESSES)
        self.check_crop(scale * self.model.multiple_of)


def draw_pair(pool: Pool, crop: int, recipe: DiffirRecipe, rng: Generator) -> Arrays:
    """ "image" (inputs, crop / scale, crop / scale) and "clean" (3, crop, crop), float32.

    Raises TrainingError for pairs, whose two photos have one size, when the model enlarges.
    """
    if recipe.model.inputs == 4:
        clean = pool.crop(crop, rng).clean
        return {"image": _masked(clean, cast(Thickness, recipe.mask), rng), "clean": planar(clean)}
    if recipe.model.scale > 1 and pool.damaged:
        raise TrainingError(
            f"a model that enlarges {recipe.model.scale} times cannot learn from pairs of one size; give clean photos"
        )
    square = pool.crop(crop, rng, recipe.task, SHRINKS if recipe.model.scale > 1 else TASKS)
    return {"image": planar(square.damaged), "clean": planar(square.clean)}


def _masked(clean: FloatImage, thickness: Thickness, rng: Generator) -> NDArray[np.float32]:
    """(4, H, W): the picture, zero where it is missing, and the mask, 1 there."""
    height, width = clean.shape[:2]
    mask = brush_mask(height, width, thickness, rng).astype(np.float32)[:, :, np.newaxis]
    return planar(np.concatenate([clean * (1 - mask), mask], axis=2))


def held_back(pool: Pool, recipe: DiffirRecipe) -> list[tuple[Tensor, Tensor]]:
    """(image, clean) of each held-back photo, with a batch axis of one; always the same ones.

    Centre crops with the damage that every system is judged on; for a model that is not for pictures of one size,
    random crops, one a photo.
    """
    if recipe.model.inputs == 3 and recipe.model.scale == 1:
        return list(zip(*(side.split(1) for side in val_pairs(pool, recipe.task, VAL_SIDE)), strict=True))
    samples = [draw_pair(pool, VAL_SIDE, recipe, np.random.default_rng(i)) for i in range(len(pool.photos))]
    return [(torch.from_numpy(s["image"])[None], torch.from_numpy(s["clean"])[None]) for s in samples]


def psnr(image: Tensor, restored: Tensor, clean: Tensor) -> float:
    """PSNR in dB of one restored picture (1, 3, H, W) as a user gets it."""
    error = F.mse_loss(composed(image, restored.float()), clean)
    return -10 * float(torch.log10(error.clamp_min(1e-10)))


def strip(image: Tensor, restored: Tensor, clean: Tensor) -> Tensor:
    """Input, restored and ground truth of one picture side by side, (3, H, 3 W)."""
    size = clean.shape[2:]
    return torch.cat([F.interpolate(image[:, :3], size), composed(image, restored.float()), clean], dim=3)[0].cpu()


def validation(
    pairs: Sequence[tuple[Tensor, Tensor]], priors: Sequence[Tensor], restore: Callable[[Tensor, Tensor], Tensor]
) -> Validation:
    """What the priors of held-back photos are worth, PSNR in dB: each photo's own, the next photo's, the mean of all.

    pairs: (image, clean), priors: (1, ipr), one of each per photo. restore: (image, prior) -> restored image. A
    strip of the first photo comes with the figures.
    """
    mean = torch.cat(list(priors)).mean(dim=0, keepdim=True)
    given = {"val_psnr": priors, "val_psnr_other": [*priors[1:], priors[0]], "val_psnr_mean": [mean] * len(priors)}
    figures = {
        name: fmean(psnr(image, restore(image, z), clean) for (image, clean), z in zip(pairs, chosen, strict=True))
        for name, chosen in given.items()
    }
    image, clean = pairs[0]
    return Validation(figures, {"restored": strip(image, restore(image, priors[0]), clean)})


COUNT = 128  # crops
LEAST = 1e-5  # smaller standard deviations, as of what flat crops give, count as this


def starting_pairs(pool: Pool, recipe: DiffirRecipe) -> tuple[Tensor, Tensor]:
    """`COUNT` images (N, inputs, crop / scale, crop / scale) with their ground truths, always the same ones."""
    generators = (np.random.Generator(np.random.Philox(key=[2**35, i])) for i in range(COUNT))
    samples = [draw_pair(pool, recipe.crop, recipe, rng) for rng in generators]
    image, clean = (torch.from_numpy(np.stack([s[name] for s in samples])) for name in ("image", "clean"))
    return image, clean


@torch.no_grad()
def standardise(network: nn.Module, *inputs: Tensor) -> None:
    """Rescale each convolution and linear layer with a bias so that its outputs for `inputs` have mean 0, variance 1.

    Per channel, over samples and pixels; in the order in which the layers run.
    """

    def rescale(layer: nn.Module, _inputs: object, output: Tensor) -> Tensor:
        assert isinstance(layer, nn.Conv2d | nn.Linear)
        assert layer.bias is not None
        over = (0, *range(2, output.dim()))
        mean, deviation = output.mean(over, keepdim=True), output.std(over, keepdim=True).clamp_min(LEAST)
        layer.weight.div_(deviation.reshape(-1, *[1] * (layer.weight.dim() - 1)))
        layer.bias.copy_((layer.bias - mean.flatten()) / deviation.flatten())
        return (output - mean) / deviation

    layers = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    hooks = [layer.register_forward_hook(rescale) for layer in layers]
    network(*inputs)
    for hook in hooks:
        hook.remove()
