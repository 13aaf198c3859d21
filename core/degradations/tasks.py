"""The tasks: what a model learns to undo, and how strong the damage may be.

A task turns (image, rng) into an image of the same size and range, or a window of it; it draws its strength from the
generator and rounds to the grey levels of an 8-bit file. The damage itself, with its strength as an argument, is in
the other modules.
"""

from __future__ import annotations

import math
from functools import partial

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from ..arrays import FloatImage, Plane
from . import blur, weather
from .cleanup import cleanup, mixed_v1, usual_subsampling
from .filters import blend, enlarge, jpeg, linear_to_srgb, quantize, shifted_jpeg, shrink, srgb_to_linear, tinted
from .grain import film_grain, gaussian_noise, poisson_noise, sensed
from .masks import scratches
from .realworld import degrade_and_downsample
from .weather import depth_map, scattered, smooth_field
from .window import ShrinkTask, Task, Window, local, softened

__all__ = ["SHRINKS", "TASKS"]

_BOKEH = 15  # pixels, the radius of the largest disc; its soft rim takes one more
_ENLARGED = 32  # pixels around one that super-resolution reads


def _noise(image: FloatImage, rng: Generator) -> FloatImage:
    """White Gaussian noise of sigma 1 to 55."""
    return quantize(gaussian_noise(image, rng.uniform(1, 55), rng))


def _realnoise(image: FloatImage, rng: Generator) -> FloatImage:
    """Noise of a sensor, added to the raw image, demosaiced three times of four, and developed."""
    return quantize(sensed(image, 0.75, rng))


def _jpeg(window: Window, rng: Generator) -> FloatImage:
    """Quality 5 to 95; every third image is compressed twice, the first time on another grid of blocks."""
    twice = rng.random() < 1 / 3
    wide = window.blocks(2 if twice else 1)
    image = wide.pixels()
    if twice:
        image = shifted_jpeg(image, rng.integers(0, 8, 2), int(rng.integers(10, 96)), usual_subsampling(rng))
    return wide.cut(jpeg(image, int(rng.integers(5, 96)), usual_subsampling(rng)), window)


def _bicubic(image: FloatImage, factor: int, _: Generator) -> FloatImage:
    return shrink(image, factor)


def _enlarged(image: FloatImage, rng: Generator, *, small: ShrinkTask) -> FloatImage:
    height, width = image.shape[:2]
    return quantize(enlarge(small(image, rng), small.factor)[:height, :width])


def _motionblur(window: Window, rng: Generator) -> FloatImage:
    """A shaking camera, kernels of 15 to 61 pixels; in every second one or two regions also move on their own."""
    size = 2 * int(math.exp(rng.uniform(math.log(7), math.log(31)))) + 1
    size = max(1, min(size, (min(window.photo.shape[:2]) - 1) // 2 * 2 + 1))
    wide = window.widened(size // 2)
    path = blur.shake(size * rng.uniform(0.4, 1.2), rng.uniform(0, 2.5), rng)
    regions = [(share, path) for share in _regions(wide, int(rng.choice((1, 2, 3), p=(0.5, 0.35, 0.15))), rng)]
    regions[1:] = [(share, path + blur.drift(size * rng.uniform(0.2, 0.8), rng)) for share, _ in regions[1:]]
    kernels = [(share, blur.path_kernel(steps, size)) for share, steps in regions]
    moved = blur.moved(srgb_to_linear(wide.pixels()), kernels)
    return quantize(linear_to_srgb(wide.cut(moved, window)))


def _regions(window: Window, count: int, rng: Generator) -> list[Plane]:
    """Soft-edged shares of a photo that add up to 1, in a window of it."""
    height, width = window.photo.shape[:2]
    shares = [np.ones((window.height, window.width), np.float32)]
    for _ in range(count - 1):
        field = smooth_field(height, width, max(height, width) / rng.uniform(1, 3), rng)
        inside = np.clip((field(window) - rng.uniform(0.4, 0.7)) * 10 + 0.5, 0, 1).astype(np.float32)
        shares.append(shares[0] * inside)
        shares[0] = shares[0] - shares[-1]
    return shares


def _defocus(window: Window, rng: Generator) -> FloatImage:
    """Discs of up to 2 to 15 pixels, by the distance from a plane of focus somewhere in the scene, and faint noise."""
    shortest = min(window.photo.shape[:2])
    wide = window.widened(_BOKEH + 1)
    depth, focus = depth_map(wide, rng), rng.uniform(0, 1)
    widest = min(rng.uniform(2, _BOKEH), shortest / 2)
    layers = max(2, min(shortest // 32, 6))
    off = np.abs((np.arange(layers) + 0.5) / layers - focus)
    blurred = blur.defocused(srgb_to_linear(wide.pixels()), depth, (off * (widest / off.max())).tolist())
    return quantize(gaussian_noise(wide.cut(linear_to_srgb(blurred), window), rng.uniform(0, 3), rng))


def _streaks(height: int, width: int, count: int, rng: Generator) -> list[tuple[Plane, float]]:
    """Layers of rain, nearest first: fewer, longer and wider streaks the nearer. Opacity is that over black."""
    wind, layers = rng.uniform(-math.pi / 6, math.pi / 6), list[tuple[Plane, float]]()
    for far in np.sort(rng.random(count)):
        length = float(np.clip(60 - 40 * far + rng.normal(0, 4), 20, 60))
        shape = weather.streak(length, rng.uniform(2.5, 3) - 1.5 * float(far), wind + rng.normal(0, 0.05))
        mask = scattered(height, width, shape, rng.uniform(0.03, 0.15), rng)
        layers.append((mask, float(srgb_to_linear(np.array(rng.uniform(0.4, 0.9), np.float32)))))
    return layers


def _rain(image: FloatImage, rng: Generator) -> FloatImage:
    """One to four layers of streaks, 20 to 60 pixels long, 1 to 3 wide, within 30 degrees of the vertical."""
    height, width = image.shape[:2]
    layers = _streaks(height, width, int(rng.integers(1, 5)), rng)
    return quantize(linear_to_srgb(weather.screened(srgb_to_linear(image), layers)))


def _rainhaze(window: Window, rng: Generator) -> FloatImage:
    """Heavy rain (Li et al., CVPR 2019): I = t * (J + sum of streaks) + (1 - t) * A; far streaks only far away."""
    depth = depth_map(window, rng)
    near, *far = _streaks(window.height, window.width, int(rng.integers(2, 5)), rng)
    layers = [near, *((mask * depth, brightness) for mask, brightness in far)]
    rain = weather.lit(srgb_to_linear(window.pixels()), layers)
    transmission = np.exp(np.float32(-rng.uniform(0.4, 1.6)) * depth)
    return quantize(linear_to_srgb(weather.hazed(rain, transmission, _air(0.5, 0.9, rng))))


def _air(lowest: float, highest: float, rng: Generator) -> NDArray[np.float32]:
    """Light of hazy air, nearly grey; the bounds are sRGB values."""
    return srgb_to_linear(np.clip(rng.uniform(lowest, highest) + rng.normal(0, 0.015, 3), 0, 1).astype(np.float32))


def _snow(image: FloatImage, rng: Generator) -> FloatImage:
    """Flakes of up to three sizes (radius about 1, 2.5 and 6 pixels), drawn out as they fall; a tint near white."""
    height, width = image.shape[:2]
    wind, seen = rng.uniform(-math.pi / 4, math.pi / 4), srgb_to_linear(image)
    sizes = (((0.6, 1.4), 0.08), ((1.5, 3.5), 0.12), ((4.0, 8.0), 0.2))  # radius, highest coverage
    for (low, high), coverage in sizes[: int(rng.integers(1, 4))]:
        radius = rng.uniform(low, high)
        shape = weather.flake(radius, radius * rng.uniform(0, 3), wind + rng.normal(0, 0.1))
        mask = scattered(height, width, shape, rng.uniform(0.02, coverage), rng)
        seen = blend(seen, _air(0.85, 1.0, rng), mask[..., np.newaxis] * np.float32(rng.uniform(0.6, 1)))
    return quantize(linear_to_srgb(seen))


def _haze(window: Window, rng: Generator) -> FloatImage:
    """Indoors beta 0.6 to 1.8 and air 0.7 to 1.0, outdoors 0.04 to 0.2 over a ten times larger depth and 0.8 to 1.0."""
    indoors = rng.random() < 0.5
    strength = rng.uniform(0.6, 1.8) if indoors else 10 * rng.uniform(0.04, 0.2)
    transmission = np.exp(np.float32(-strength) * depth_map(window, rng))
    air = _air(0.7 if indoors else 0.8, 1.0, rng)
    return quantize(linear_to_srgb(weather.hazed(srgb_to_linear(window.pixels()), transmission, air)))


def _raindrop(window: Window, rng: Generator) -> FloatImage:
    """Drops of radius 8 to 40 pixels (no larger than a quarter of the image), about one per 100 x 100 pixels."""
    height, width = window.photo.shape[:2]
    largest = min(40.0, min(height, width) / 4)
    count = 1 + int(rng.poisson(float(height * width) / 10_000 * rng.uniform(0.3, 1.5)))
    found = [weather.draw_drop(height, width, (min(8.0, largest), largest), rng) for _ in range(count)]
    return quantize(linear_to_srgb(weather.refracted(window, found)))


def _lowlight(image: FloatImage, rng: Generator) -> FloatImage:
    """2 to 30 % of the light, counted in photons (500 to 20 000 would be white), read noise, sRGB."""
    photons = math.exp(rng.uniform(math.log(500), math.log(20_000)))
    dim = srgb_to_linear(image) * np.float32(math.exp(rng.uniform(math.log(0.02), math.log(0.3))))
    noisy = gaussian_noise(poisson_noise(dim, photons, rng), 255 * rng.uniform(0.5, 4) / photons, rng)
    return quantize(linear_to_srgb(noisy))


def _oldphoto(window: Window, rng: Generator) -> FloatImage:
    """Soft, grainy, faded unevenly, brown or with a cast; three times of four scratched, dusty, with hairs."""
    height, width = window.photo.shape[:2]
    paper = np.cumprod([rng.uniform(0.8, 0.98), rng.uniform(0.85, 0.97), rng.uniform(0.65, 0.9)]).astype(np.float32)
    image = softened(window, rng.uniform(0.2, 1.2))
    image = film_grain(image, rng.uniform(0.01, 0.08), rng.uniform(0.3, 0.9), rng)
    image = tinted(image, paper / paper[0], 1.0 if rng.random() < 0.5 else rng.uniform(0, 0.4))
    uneven = 0.5 + smooth_field(height, width, max(height, width), rng)(window)[..., np.newaxis]
    dyes = np.sort(rng.uniform(0.75, 1.25, 3))[::-1].astype(np.float32)  # cyan goes first, which leaves a red cast
    image = blend(image, paper, uneven * rng.uniform(0.1, 0.35) * dyes)
    return quantize(_worn(image, window, rng) if rng.random() < 0.75 else image)


def _worn(image: FloatImage, window: Window, rng: Generator) -> FloatImage:
    """Scratches, hairs and dust on the `image` of a window of a photo, as many as suit the size of the whole."""
    height, width = window.photo.shape[:2]
    many = 1 + float(height * width) / 20_000
    bright, dark = (np.full(3, rng.uniform(*span), np.float32) for span in ((0.85, 1.0), (0.0, 0.25)))
    upright = scratches(window, int(rng.poisson(1.5 * math.sqrt(many))), float(height), 0.03, rng)
    hairs = scratches(window, int(rng.poisson(0.5 * many)), 40.0, 0.6, rng)
    specks = scattered(window.height, window.width, weather.flake(rng.uniform(0.6, 2.5), 0.0, 0.0), 0.004, rng)
    for mask, colour in ((upright, bright), (hairs, dark), (specks, bright if rng.random() < 0.5 else dark)):
        image = blend(image, colour, mask[..., np.newaxis])
    return image


# Super-resolution: (H, W, 3) -> (ceil(H / n), ceil(W / n), 3) for the n at the end of the name.
SHRINKS: dict[str, ShrinkTask] = {
    f"{name}{factor}": ShrinkTask(small, factor, margin=_ENLARGED)
    for name, small in (("sr", _bicubic), ("realsr", degrade_and_downsample))
    for factor in (2, 4)
}

TASKS: dict[str, Task] = {
    "cleanup": Task(cleanup),
    "mixed-v1": local(mixed_v1, margin=4, grid=16),
    "noise": local(_noise),
    "realnoise": local(_realnoise, margin=2),
    "jpeg": Task(_jpeg),
    **{name: local(partial(_enlarged, small=small), small.margin, small.factor) for name, small in SHRINKS.items()},
    "motionblur": Task(_motionblur),
    "defocus": Task(_defocus),
    "rain": local(_rain),
    "rainhaze": Task(_rainhaze),
    "raindrop": Task(_raindrop),
    "snow": local(_snow),
    "haze": Task(_haze),
    "lowlight": local(_lowlight),
    "oldphoto": Task(_oldphoto),
}
