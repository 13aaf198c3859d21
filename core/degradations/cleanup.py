"""The task `cleanup`: what cameras, phones, editors and messengers do to a photo, from nothing to ruin.

Nearly half of the photos have the damage of the usual benchmarks (white noise, one JPEG), a quarter none or hardly any:
a model must learn to leave good photos as they are. The rest is what real files have: noise that is correlated over
pixels and colours because it was demosaicked, resized, denoised or blurred, compressed once or twice.

`mixed_v1` is what the task was until its mixture was widened. It is frozen, bit for bit: figures of earlier models were
measured with it, and comparisons with them use it.
"""

from __future__ import annotations

import math

from numpy.random import Generator

from ..arrays import FloatImage
from . import grain
from .filters import Kernel, Subsampling, gaussian_blur, jpeg, quantize, resize, shifted_jpeg
from .grain import gaussian_noise, poisson_noise, sensed
from .window import Damage, Window, softened

__all__ = ["MIXTURE", "cleanup", "mixed_v1", "usual_subsampling"]

_MOSAICKED = 0.85  # share of the sensors whose noise is demosaicked
_KERNELS: tuple[Kernel, ...] = ("area", "bilinear", "bicubic")


def cleanup(window: Window, rng: Generator) -> FloatImage:
    """A window of a photo with random damage, (height, width, 3), of 8-bit levels; see `MIXTURE`."""
    chosen = rng.random()
    for share, damage in MIXTURE:
        if chosen < share:
            return damage(window, rng)
        chosen -= share
    return _combined(window, rng)


def mixed_v1(image: FloatImage, rng: Generator) -> FloatImage:
    """Mild blur, noise and JPEG, each present or not; the result has 8-bit levels.

    Blur of sigma up to 1.2 pixels; Gaussian noise up to sigma 55, or shot noise of 30 to 1000 photons; quality 8 to 95.
    """
    kind = rng.random()
    if kind < 0.35:
        return quantize(_noise_v1(image, rng))
    if kind < 0.55:
        return _compression_v1(image, rng)
    if rng.random() < 0.5:
        image = gaussian_blur(image, rng.uniform(0.2, 1.2))
    if rng.random() < 0.75:
        image = _noise_v1(image, rng)
    return _compression_v1(image, rng) if rng.random() < 0.75 else quantize(image)


def usual_subsampling(rng: Generator) -> Subsampling:
    """4:2:0 in three of four files, 4:4:4 in the rest."""
    return "4:2:0" if rng.random() < 0.75 else "4:4:4"


def _white(window: Window, rng: Generator) -> FloatImage:
    """White Gaussian noise, sigma 0 to 55."""
    return quantize(gaussian_noise(window.pixels(), rng.uniform(0, 55), rng))


def _compressed(window: Window, rng: Generator, lowest: int = 5) -> FloatImage:
    """One JPEG, quality `lowest` to 98."""
    wide = window.blocks()
    return wide.cut(jpeg(wide.pixels(), int(rng.integers(lowest, 99)), _subsampling(rng)), window)


def _untouched(window: Window, _: Generator) -> FloatImage:
    return quantize(window.pixels())  # an 8-bit photo stays unchanged


def _slight(window: Window, rng: Generator) -> FloatImage:
    """Nearly nothing: noise below sigma 3, white or not, JPEG above quality 90, or blur below 0.4 pixel."""
    kind = rng.random()
    if kind < 0.5:
        image = window.pixels()
        return quantize(image + grain.with_deviation(_field(image, rng), rng.uniform(0, 3)))
    return _compressed(window, rng, 91) if kind < 0.85 else quantize(softened(window, rng.uniform(0.3, 0.4)))


def _combined(window: Window, rng: Generator) -> FloatImage:
    """Mild blur, noise of any kind and JPEG once or twice, in this order, each present or not."""
    times = int(rng.choice(3, p=(0.4, 0.35, 0.25)))
    wide = window.blocks() if times else window
    image = softened(wide, rng.uniform(0.2, 1.2)) if rng.random() < 0.3 else wide.pixels()
    if times == 0 or rng.random() < 0.85:
        image = _noisy(image, rng)
    if times == 2:
        image = _compressed_before(image, rng)
    image = jpeg(image, int(rng.integers(5, 99)), _subsampling(rng)) if times else quantize(image)
    return wide.cut(image, window)


def _noisy(image: FloatImage, rng: Generator) -> FloatImage:
    """Sensor noise, Poisson noise or a field of Gaussian noise, mostly weak; not clipped."""
    kind = rng.random()
    if kind < 0.2:
        return sensed(image, _MOSAICKED, rng)
    if kind < 0.28:
        return poisson_noise(image, math.exp(rng.uniform(math.log(30), math.log(1000))), rng)
    return image + grain.with_deviation(_field(image, rng), 1 + 49 * rng.random() ** 1.5)


def _field(image: FloatImage, rng: Generator) -> FloatImage:
    """Noise for an image: white, blurred, resized or half denoised; of all colours, chroma only or grey."""
    height, width = image.shape[:2]
    kind = rng.random()
    if kind < 0.15:
        noise = grain.white(height, width, rng)
    elif kind < 0.5:
        noise = grain.blurred(height, width, rng.uniform(0.2, 1.5), rng)
    elif kind < 0.8:
        factor = rng.uniform(0.4, 2)
        noise = grain.rescaled(height, width, factor, _KERNELS[rng.integers(len(_KERNELS))], rng)
    else:
        noise = grain.blotchy(height, width, rng.uniform(0.4, 0.9), rng.uniform(0.6, 2), rng)
    colours = rng.random()
    if colours < 0.2:
        noise = grain.chroma_only(noise)
    elif colours < 0.4:
        noise = grain.grey_only(noise)
    return grain.toned(noise, image, rng.uniform(-0.9, 0.9)) if rng.random() < 0.4 else noise


def _compressed_before(image: FloatImage, rng: Generator) -> FloatImage:
    """A JPEG before the last one: its blocks lie elsewhere, or it was made at another size of the photo."""
    quality, subsampling = int(rng.integers(10, 99)), _subsampling(rng)
    if rng.random() < 0.5:
        return shifted_jpeg(image, rng.integers(0, 8, 2), quality, subsampling)
    height, width = image.shape[:2]
    factor = math.exp(rng.uniform(math.log(0.5), math.log(2)))
    rows, columns = (max(1, round(side * factor)) for side in (height, width))
    other = quantize(resize(image, rows, columns, "bicubic", antialias=True))
    error = jpeg(other, quality, subsampling) - other
    return quantize(quantize(image) + resize(error, height, width, "bicubic", antialias=True))


def _subsampling(rng: Generator) -> Subsampling:
    chosen = rng.random()
    return "4:2:0" if chosen < 0.75 else "4:4:4" if chosen < 0.9 else "4:2:2"


def _noise_v1(image: FloatImage, rng: Generator) -> FloatImage:
    if rng.random() < 0.75:
        return gaussian_noise(image, rng.uniform(1, 55), rng)
    photons = math.exp(rng.uniform(math.log(30), math.log(1000)))
    return gaussian_noise(poisson_noise(image, photons, rng), rng.uniform(0, 10), rng)


def _compression_v1(image: FloatImage, rng: Generator) -> FloatImage:
    subsampling = usual_subsampling(rng)
    return jpeg(image, int(rng.integers(8, 96)), subsampling)


MIXTURE: tuple[tuple[float, Damage], ...] = (
    (0.28, _white),
    (0.18, _compressed),
    (0.10, _untouched),
    (0.15, _slight),
    (0.29, _combined),
)
