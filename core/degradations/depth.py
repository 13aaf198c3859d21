"""A made-up distance for every pixel: one photo does not tell, but haze and focus need something plausible."""

from __future__ import annotations

import math

import numpy as np
from numpy.random import Generator

from .fields import smooth_field
from .light import Picture, Plane
from .resizing import resize

__all__ = ["depth_map"]

CUE_CELL = 8  # pixels over which brightness is averaged


def depth_map(picture: Picture, rng: Generator) -> Plane:
    """(H, W) in [0, 1], 0 nearest, 1 farthest.

    A ground that recedes upwards, hills of smooth noise, brightness (skies and far air are bright), and for two
    pictures of three something dark in front.
    """
    height, width = picture.shape[:2]
    hills = smooth_field(height, width, max(height, width) / rng.uniform(1.5, 4), rng)
    shares, bright = rng.dirichlet((2, 1, 1)).astype(np.float32), _brightness(picture)
    depth = shares[0] * _ground(height, width, rng) + shares[1] * hills + shares[2] * bright
    if rng.random() < 2 / 3:
        depth = depth * (1 - np.float32(rng.uniform(0.3, 0.8)) * _object(bright, rng))
    low, high = float(depth.min()), float(depth.max())
    return ((depth - low) / max(high - low, 1e-6)).astype(np.float32)


def _ground(height: int, width: int, rng: Generator) -> Plane:
    """Rises towards the top, tilted by up to 30 degrees either way, and faster the farther it is."""
    tilt = rng.uniform(-math.pi / 6, math.pi / 6)
    up = np.linspace(1, 0, height, dtype=np.float32)[:, np.newaxis]
    across = np.linspace(-0.5, 0.5, width, dtype=np.float32)
    ramp = np.clip(up * np.float32(math.cos(tilt)) + across * np.float32(math.sin(tilt)), 0, 1)
    return (ramp ** rng.uniform(0.7, 2.5)).astype(np.float32)


def _object(bright: Plane, rng: Generator) -> Plane:
    """(H, W) in [0, 1]: 1 inside a shape whose outline leans on the picture's own."""
    height, width = bright.shape
    place = smooth_field(height, width, max(height, width) / rng.uniform(1.5, 5), rng) - bright / 2
    level = float(np.quantile(place, rng.uniform(0.6, 0.9)))
    return np.clip((place - level) * 20 + 0.5, 0, 1).astype(np.float32)


def _brightness(picture: Picture) -> Plane:
    height, width = picture.shape[:2]
    mean = picture.mean(axis=2, keepdims=True, dtype=np.float32)
    coarse = resize(mean, -(-height // CUE_CELL), -(-width // CUE_CELL), "area", antialias=True)
    return resize(coarse, height, width, "bilinear", antialias=False)[..., 0]
