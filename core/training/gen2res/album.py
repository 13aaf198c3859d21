"""The generative album: images that the base model samples around one damaged photo.

Sampling starts from the noised photo at level K and is drawn towards it by skip guidance,

    x_t' = x_t - scale grad_{x_t} || y_0 - x0^(x_t) ||_2,

at some of the steps, the gradient going through the U-Net. The paper writes the squared norm and calls it L1, its code
takes the norm itself; so do we. Guidance is used only when an album is made, never in a restoration.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...errors import UsageError
from ...models.gen2res import Denoiser, predictions
from ...sampling.noise import normal
from ...sampling.samplers import ancestral, clipped, from_noise, noised
from ...sampling.schedule import ddpm, strided

__all__ = ["Album", "album_images", "draw", "guided_steps", "nudge"]

ALPHA_BARS = ddpm()


@dataclass(frozen=True)
class Album:
    """How an album is made.

    Raises UsageError for numbers out of range.
    """

    count: int = 16  # images
    start: int = 300  # level K of 1000 at which the noised photo is entered; 0 for pure noise and all 1000 levels
    steps: int = 0  # of sampling; 0 for every level from the start down
    skip: int = 10  # distance in steps between guidances; 0 for none
    last: int = 200  # number of the first, noisiest steps that all have guidance
    scale: float = 0.3  # of a guidance step, in units of the whole image's L2 norm
    seed: int = 0  # image i is made from seed + i alone

    def __post_init__(self) -> None:
        levels = self.start or len(ALPHA_BARS)
        if not 0 <= self.start <= len(ALPHA_BARS):
            raise UsageError(f"start must be in 1..{len(ALPHA_BARS)}, or 0 for pure noise, got {self.start}")
        if not 0 <= self.steps <= levels:
            raise UsageError(f"steps must be in 1..{levels}, or 0 for all {levels}, got {self.steps}")
        if self.count < 1 or min(self.skip, self.last, self.scale) < 0:
            raise UsageError("count must be at least 1, skip, last and scale at least 0")
        if not 0 <= self.seed < 2**64 - self.count:
            raise UsageError(f"seed must be a whole number from 0 to 2^64 - 1 - count, got {self.seed}")

    def schedule(self) -> tuple[list[float], list[float]]:
        """Levels and times of the sampling."""
        start = self.start or len(ALPHA_BARS)
        return strided(self.steps or start, ALPHA_BARS, start)


def guided_steps(album: Album) -> set[int]:
    """The step indices, 0 the noisiest, at which there is guidance.

    Every `skip`-th, and all of the first `last`. Published code counts the latter in the 1000 levels, where a start
    below level 800 would leave none (our reading: the noisiest of the steps that are made).
    """
    count = len(album.schedule()[1])
    return {i for i in range(count) if i < album.last or (album.skip and i % album.skip == 0)}


def nudge(denoiser: Denoiser, x: Tensor, photo: Tensor, level: float, time: float, scale: float) -> Tensor:
    """x - scale * the gradient by x of the distance between the photo and the estimate of x0.

    x: (N, 3, H, W) state; photo: (1, 3, H, W) in [-1, 1]. The distance is the L2 norm of all values of a image,
    each image on its own.
    """
    with torch.enable_grad():
        x = x.detach().requires_grad_(True)
        eps, _ = predictions(denoiser, [time])(x, 0)
        clean, _ = from_noise(x, eps, level)
        distance = (photo - clean).flatten(1).norm(dim=1)
        (gradient,) = torch.autograd.grad(distance.sum(), x)
    return (x - scale * gradient).detach()


@torch.no_grad()
def draw(denoiser: Denoiser, photo: Tensor, album: Album, noise: Callable[[int], Tensor]) -> Tensor:
    """Sample images around photo (1, 3, H, W) in [0, 1], ancestral with the learned variance.

    noise: number -> standard normal values (N, 3, H, W); 0 is the start's, i + 1 that of step i. Returns N images
    (N, 3, H, W) in [0, 1].
    """
    levels, times = album.schedule()
    target = photo * 2 - 1
    chosen = guided_steps(album)

    def guide(x: Tensor, step: int) -> Tensor:
        return nudge(denoiser, x, target, levels[step], times[step], album.scale) if step in chosen else x

    def later(step: int) -> Tensor:
        return noise(step + 1)

    x = noised(target, noise(0), levels[0]) if album.start else noise(0)
    x = ancestral(predictions(denoiser, times), x, levels, later, variance="learned", clip=clipped, guide=guide)
    return (x / 2 + 0.5).clamp(0, 1)


def album_images(
    denoiser: Denoiser, photo: Tensor, album: Album, wanted: list[int], batch: int
) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """(number, (H, W, 3) uint8) of the `wanted` images of an album, `batch` at a time.

    An image depends only on its own number and the album's seed, not (except for rounding) on the rest of the batch.
    """
    rows, cols = (0, photo.shape[2]), (0, photo.shape[3])
    for first in range(0, len(wanted), batch):
        numbers = wanted[first : first + batch]

        def noise(step: int, numbers: list[int] = numbers) -> Tensor:
            fields = [normal(album.seed + number, step, rows, cols) for number in numbers]
            return torch.from_numpy(np.concatenate(fields))

        made = draw(denoiser, photo, album, noise).permute(0, 2, 3, 1).numpy()
        for number, image in zip(numbers, made, strict=True):
            yield number, np.round(image * 255).astype(np.uint8)
