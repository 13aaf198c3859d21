"""The generative album: images that the base model samples around one damaged photo.

Sampling starts from the noised photo at level K and is drawn towards it by skip guidance,

    x_t' = x_t - scale grad_{x_t} || y_0 - x0^(x_t) ||_2,

at some of the steps, the gradient going through the U-Net. The paper writes the squared norm and calls it L1, its code
takes the norm itself; so do we. Guidance is used only when an album is made, never in a restoration.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from ...errors import PhotoWriteError, UsageError
from ...files import atomic_output, failure_reason
from ...models.gen2res import SHIPPED_BASE, Denoiser, build, load_base, predictions
from ...photo.io import read, write
from ...photo.photo import Photo
from ...photo.resize import shrink
from ...sampling.noise import normal
from ...sampling.samplers import ancestral, clipped, from_noise, noised
from ...sampling.schedule import ddpm, strided
from ..data.photos import planar, to_8_bits
from ..data.sources import file_hash

__all__ = ["Album", "album_images", "draw", "draw_album", "guided_steps", "is_generated", "nudge"]

ALPHA_BARS = ddpm()
ALBUM_NAME = "album.json"  # in the folder: what its images were made from


@dataclass(frozen=True)
class Album:
    """How an album is made. Raises UsageError for numbers out of range."""

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
    """Return x - scale * the gradient by x of the distance between the photo and the estimate of x0.

    x: (N, 3, H, W) state; photo: (1, 3, H, W) in [-1, 1]. The distance is the L2 norm over each image.
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

    def noise_of(numbers: list[int], step: int) -> Tensor:
        return torch.from_numpy(np.concatenate([normal(album.seed + n, step, rows, cols) for n in numbers]))

    for first in range(0, len(wanted), batch):
        numbers = wanted[first : first + batch]
        made = draw(denoiser, photo, album, partial(noise_of, numbers)).permute(0, 2, 3, 1).numpy()
        for number, image in zip(numbers, made, strict=True):
            yield number, np.round(image * 255).astype(np.uint8)


def draw_album(photo: Path, folder: Path, album: Album, *, base: Path | None = None, side: int, batch: int) -> None:
    """Draw the images of an album that are missing in `folder`: 00.png, 01.png, ... and album.json.

    photo: the damaged one. folder: new or empty, or an unfinished album of the same photo and settings. base:
    checkpoint of the base model, None for the included one. side: longer side that the photo is scaled to, pixels.
    batch: images drawn at a time. Raises UsageError for a batch below 1, a photo that is too small, or a folder with
    other content; PhotoReadError and PhotoWriteError.
    """
    if batch < 1:
        raise UsageError(f"expected a batch of at least 1, got {batch}")
    denoiser = build(load_base(base))
    scaled = _scaled(read(photo), side, denoiser.multiple_of)
    source = {"photo": file_hash(photo), "base": file_hash(base or SHIPPED_BASE), "side": side}
    _claim(folder, {**source, **asdict(album)})
    wanted = [i for i in range(album.count) if not _path(folder, i).exists()]
    with tqdm(total=album.count, initial=album.count - len(wanted), unit="image", disable=None) as progress:
        for number, image in album_images(denoiser, scaled, album, wanted, batch):
            write(Photo(image), _path(folder, number))
            progress.update()


def is_generated(folder: Path) -> bool:
    """Whether the album in `folder` was drawn by `draw_album`, rather than photographed."""
    return (folder / ALBUM_NAME).exists()


def _path(folder: Path, number: int) -> Path:
    return folder / f"{number:02d}.png"


def _scaled(photo: Photo, side: int, multiple: int) -> Tensor:
    """The photo, its longer side at most `side`, its centre cut to multiples: (1, 3, H, W) in [0, 1]."""
    height, width = photo.size
    factor = min(1.0, side / max(height, width))
    pixels = to_8_bits(photo.pixels, halve=False)
    small = np.empty((max(1, round(height * factor)), max(1, round(width * factor)), 3), np.uint8)
    shrink(pixels, small)
    rows, cols = (length - length % multiple for length in small.shape[:2])
    if min(rows, cols) == 0:
        raise UsageError(
            f"the photo of {width} x {height} pixels is {small.shape[1]} x {small.shape[0]} with a longer side of "
            f"{side}; both sides need at least {multiple} pixels: give a larger photo or --side"
        )
    y, x = (small.shape[0] - rows) // 2, (small.shape[1] - cols) // 2
    image = small[y : y + rows, x : x + cols].astype(np.float32) / np.float32(255)
    return torch.from_numpy(planar(image))[None]


def _claim(folder: Path, facts: dict[str, Any]) -> None:
    """Write into the folder what the album is made from, or check that it is the same."""
    path = folder / ALBUM_NAME
    text = json.dumps(facts, indent=2) + "\n"
    if path.exists():
        noted = json.loads(path.read_text(encoding="utf-8"))
        changed = sorted(name for name in {*noted, *facts} - {"count"} if noted.get(name) != facts.get(name))
        if changed:
            raise UsageError(
                f"the album in {folder} was made with another {', '.join(changed)}; use that, or another folder"
            )
    elif folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise UsageError(f"{folder} is a file or holds other files; give an empty or a new folder for the album")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_output(path, overwrite=True) as temporary:
            temporary.write_text(text, encoding="utf-8")
    except OSError as error:
        raise PhotoWriteError(f"cannot write {path}: {failure_reason(error)}") from error
