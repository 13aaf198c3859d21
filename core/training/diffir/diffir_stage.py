"""What the stages of DiffIR share: recipe, samples, validation, the start of the estimators, the model of stage 2.

With `prior_norm` the estimators start so that every layer has outputs of mean 0 and variance 1 on the training data, in
one forward pass (Krähenbühl et al., "Data-dependent Initializations of Convolutional Neural Networks", ICLR 2016).
Without it the average over the pixels of random features is nearly the same vector for every photo: at size `mobile`,
0.01 to 0.03 % of a prior's energy differs between crops of damaged photos under PyTorch's initialisation, 98 % under
this one, and the transformer learns to ignore a vector that tells photos apart only later.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.random import Generator
from torch import Tensor, nn

from ...arrays import FloatImage, Floats
from ...degradations import SHRINKS, TASKS, brush_mask
from ...degradations.masks import Thickness
from ...errors import TrainingError, UnknownNameError, UsageError
from ...models.checkpoints import Checkpoint, from_dict
from ...models.diffir import CONFIGS, CpenS1, Diffir, DiffirConfig, composed
from ..data.photos import Pool, TrainingData, planar, val_pairs
from ..evaluation.score import device_of
from ..loop.recipe import Recipe
from ..loop.stage import Arrays, TrainingStage, Validation, stacked
from ..losses import mix

__all__ = [
    "DiffirRecipe",
    "DiffirStage",
    "Student",
    "draw_pair",
    "held_back",
    "restored_psnr",
    "standardise",
    "starting_pairs",
    "strip",
    "validation",
]

THICKNESSES: tuple[Thickness, ...] = ("thin", "medium", "thick")
VAL_SIDE = 256  # of the crops that validation restores, pixels
COUNT = 128  # crops of `starting_pairs`
LEAST = 1e-5  # smallest standard deviation that `standardise` divides by: flat crops have none


@dataclass(frozen=True)
class DiffirRecipe(Recipe):
    """A recipe of any stage of DiffIR. Raises UsageError for a task, mask or crop that does not suit the model."""

    task: str = "motionblur"  # of TASKS; for super-resolution of SHRINKS
    mask: str = "medium"  # what is missing, for a model for inpainting (which has no task)
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
    """Draw "image" (inputs, crop / scale, crop / scale) and "clean" (3, crop, crop), float32.

    Raises TrainingError if the model enlarges and the photos are pairs, which have equal sizes.
    """
    if recipe.model.inputs == 4:
        clean = pool.crop(crop, rng).clean
        return {"image": _masked(clean, cast(Thickness, recipe.mask), rng), "clean": planar(clean)}
    if recipe.model.scale > 1 and pool.damaged:
        raise TrainingError(
            f"a model that enlarges {recipe.model.scale} times cannot learn from pairs of equal size; give clean photos"
        )
    square = pool.crop(crop, rng, recipe.task, SHRINKS if recipe.model.scale > 1 else TASKS)
    return {"image": planar(square.damaged), "clean": planar(square.clean)}


def _masked(clean: FloatImage, thickness: Thickness, rng: Generator) -> Floats:
    """(4, H, W): the image, zero where it is masked, and the mask, 1 there."""
    height, width = clean.shape[:2]
    mask = brush_mask(height, width, thickness, rng).astype(np.float32)[:, :, np.newaxis]
    return planar(np.concatenate([clean * (1 - mask), mask], axis=2))


def held_back(pool: Pool, recipe: DiffirRecipe) -> list[tuple[Tensor, Tensor]]:
    """(image, clean) of each held-back photo, with a batch axis of one; always the same ones.

    Centre crops with the damage that every system is judged on; for inpainting and super-resolution one random crop
    of each photo.
    """
    if recipe.model.inputs == 3 and recipe.model.scale == 1:
        return list(zip(*(side.split(1) for side in val_pairs(pool, recipe.task, VAL_SIDE)), strict=True))
    samples = [draw_pair(pool, VAL_SIDE, recipe, np.random.default_rng(i)) for i in range(len(pool.photos))]
    return [(torch.from_numpy(s["image"])[None], torch.from_numpy(s["clean"])[None]) for s in samples]


def restored_psnr(image: Tensor, restored: Tensor, clean: Tensor) -> float:
    """PSNR in dB of one restored image (1, 3, H, W) as a user gets it."""
    error = F.mse_loss(composed(image, restored.float()), clean)
    return -10 * float(torch.log10(error.clamp_min(1e-10)))


def strip(image: Tensor, restored: Tensor, clean: Tensor) -> Tensor:
    """Input, restored image and ground truth side by side, (3, H, 3 W)."""
    size = clean.shape[2:]
    return torch.cat([F.interpolate(image[:, :3], size), composed(image, restored.float()), clean], dim=3)[0].cpu()


def validation(
    pairs: Sequence[tuple[Tensor, Tensor]], priors: Sequence[Tensor], restore: Callable[[Tensor, Tensor], Tensor]
) -> Validation:
    """PSNR in dB of held-back photos under three priors: each photo's own, the next photo's, the mean of all.

    pairs: (image, clean) of each photo. priors: of each photo, (1, ipr). restore: (image, prior) -> restored image.
    Shows a strip of the first photo.
    """
    mean = torch.cat(list(priors)).mean(dim=0, keepdim=True)
    given = {"val_psnr": priors, "val_psnr_other": [*priors[1:], priors[0]], "val_psnr_mean": [mean] * len(priors)}
    figures = {
        name: fmean(restored_psnr(i, restore(i, z), clean) for (i, clean), z in zip(pairs, chosen, strict=True))
        for name, chosen in given.items()
    }
    image, clean = pairs[0]
    return Validation(figures, {"restored": strip(image, restore(image, priors[0]), clean)})


def starting_pairs(pool: Pool, recipe: DiffirRecipe) -> tuple[Tensor, Tensor]:
    """`COUNT` images (N, inputs, crop / scale, crop / scale) with their ground truths, always the same ones."""
    generators = (np.random.Generator(np.random.Philox(key=[2**35, i])) for i in range(COUNT))
    drawn = stacked([draw_pair(pool, recipe.crop, recipe, rng) for rng in generators])
    return drawn["image"], drawn["clean"]


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


class DiffirStage(TrainingStage):
    """A stage of DiffIR on pairs."""

    def __init__(self, recipe: DiffirRecipe, model: nn.Module, data: TrainingData, *frozen: nn.Module) -> None:
        super().__init__(recipe.model, model, *frozen, task=recipe.task)
        self.recipe = recipe
        self.pairs = held_back(data.val, recipe)

    def draw(self, pool: Pool, crop: int, rng: np.random.Generator) -> Arrays:
        """Draw "image" and "clean"; see `draw_pair`."""
        return draw_pair(pool, crop, self.recipe, rng)

    def pairs_for(self, model: nn.Module) -> list[tuple[Tensor, Tensor]]:
        """The held-back pairs, on the device of `model`."""
        device = device_of(model)
        return [(image.to(device), clean.to(device)) for image, clean in self.pairs]


class Student(DiffirStage):
    """Stage 2: a `Diffir` that learns the priors of a frozen CPEN_S1; a phase adds the trained parts and the loss.

    Raises UsageError if an earlier stage trained another model.
    """

    def __init__(self, recipe: DiffirRecipe, earlier: Mapping[str, Checkpoint], data: TrainingData) -> None:
        for checkpoint in earlier.values():
            _check_config(recipe, checkpoint)
        self.diffir = Diffir(recipe.model)
        self.target = earlier["diffir-pretrain"].fill(CpenS1(recipe.model), "cpen")
        super().__init__(recipe, self.diffir, data, self.target.eval().requires_grad_(False))

    def draw(self, pool: Pool, crop: int, rng: np.random.Generator) -> Arrays:
        """Draw "image", "clean", and the "noise" (ipr,) for the target's prior."""
        noise = rng.standard_normal(self.recipe.model.ipr, dtype=np.float32)
        return {**super().draw(pool, crop, rng), "noise": noise}

    def priors(self, image: Tensor, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Prior vectors, (N, ipr): Z of the frozen CPEN_S1, and Z^ by all T steps from Z at the last level.

        Only the end of the chain is supervised.
        """
        with torch.no_grad():
            target = self.target(image, batch["clean"]).float()
        alpha_bar = target.new_full((len(target),), self.diffir.levels[0])
        start = mix(target, batch["noise"], alpha_bar)
        return target, self.diffir.prior(self.diffir.condition(image), start).float()

    def validate(self, model: nn.Module) -> Validation:
        """PSNR in dB as deployed, under another photo's prior and the mean; error of the prior, and of a constant."""
        assert isinstance(model, Diffir)
        pairs = self.pairs_for(model)
        random = torch.Generator().manual_seed(0)
        noises = [torch.randn(1, model.config.ipr, generator=random).to(image.device) for image, _ in pairs]
        priors = [model.prior(model.condition(image), z) for (image, _), z in zip(pairs, noises, strict=True)]
        targets = torch.cat([self.target(*pair) for pair in pairs])
        found = validation(pairs, priors, model.restore)
        errors = {
            "val_prior": F.l1_loss(torch.cat(priors), targets),
            "val_prior_mean": F.l1_loss(targets.mean(dim=0).expand_as(targets), targets),
        }
        return Validation(found.figures | {name: float(value) for name, value in errors.items()}, found.images)


def _check_config(recipe: DiffirRecipe, checkpoint: Checkpoint) -> None:
    """Raise UsageError for the checkpoint of another model; the number of diffusion steps is not part of stage 1."""
    given = from_dict(DiffirConfig, checkpoint.config)
    wanted = recipe.model
    if checkpoint.kind == "diffir-pretrain":
        given, wanted = (replace(config, steps=0) for config in (given, wanted))
    if given != wanted:
        raise UsageError(
            f"the '{checkpoint.kind}' checkpoint holds {given}, the recipe says {wanted}; "
            "give both the same --size and --set model..."
        )
