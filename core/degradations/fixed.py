"""Damage of fixed strength: what benchmarks compare methods on, the same for every method and on every run."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.random import Generator

from ..arrays import FloatImage, Image
from ..errors import UnknownNameError
from .cleanup import mixed_v1
from .filters import gaussian_blur, jpeg, quantize
from .grain import gaussian_noise

__all__ = ["CLEAN", "DAMAGES", "FixedDamage", "damages_named", "image_digest"]

CLEAN = "clean"


@dataclass(frozen=True)
class FixedDamage:
    """A way to damage a photo, drawn from a generator."""

    name: str  # in tables; the draw depends on it
    apply: Callable[..., FloatImage]  # from (H, W, 3) float32 in [0, 1] and `rng` to the same, not yet rounded
    sigma: float | None = None  # standard deviation of white Gaussian noise in grey levels, None for other damage

    def __call__(self, pixels: Image) -> Image:
        """The damaged photo, (H, W, 3) uint8 in and out; the draw depends only on the photo and the name."""
        seed = int.from_bytes(hashlib.sha256(f"{self.name} {image_digest(pixels)}".encode()).digest()[:8], "big")
        photo = pixels.astype(np.float32) / np.float32(255)
        damaged = self.apply(photo, rng=np.random.default_rng(seed))
        return np.round(quantize(damaged) * 255).astype(np.uint8)


def image_digest(pixels: Image) -> str:
    """SHA-256 of an image: its shape, dtype and values."""
    head = f"{pixels.shape} {pixels.dtype} ".encode()
    return hashlib.sha256(head + np.ascontiguousarray(pixels).tobytes()).hexdigest()


def damages_named(names: Iterable[str]) -> list[FixedDamage]:
    """The damages of these names, in the order of `DAMAGES`. Raises UnknownNameError."""
    wanted, known = list(names), [damage.name for damage in DAMAGES]
    for name in wanted:
        if name not in known:
            raise UnknownNameError("damage", name, known)
    return [damage for damage in DAMAGES if damage.name in wanted]


def _correlated(photo: FloatImage, sigma: float, rng: Generator) -> FloatImage:
    """Gaussian noise whose pixels are correlated: blurred by 0.7 pixels, then brought back to `sigma`."""
    noise = gaussian_blur(rng.standard_normal(photo.shape, dtype=np.float32), 0.7)
    return np.add(photo, noise * np.float32(sigma / 255 / noise.std()), dtype=np.float32)


def _jpeg(photo: FloatImage, quality: int, rng: Generator) -> FloatImage:  # noqa: ARG001
    return jpeg(photo, quality)


def _untouched(photo: FloatImage, rng: Generator) -> FloatImage:  # noqa: ARG001
    return photo


DAMAGES = (
    *(FixedDamage(f"noise {sigma}", partial(gaussian_noise, sigma=sigma), sigma) for sigma in (15, 25, 50)),
    FixedDamage("correlated 15", partial(_correlated, sigma=15)),
    *(FixedDamage(f"JPEG {quality}", partial(_jpeg, quality=quality)) for quality in (10, 20, 40)),
    FixedDamage("mixed", mixed_v1),
    FixedDamage(CLEAN, _untouched),
)
