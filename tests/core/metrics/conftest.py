"""Images with the statistics of photos, and the torch metrics of piq to compare with."""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest


def dead_leaves(height: int, width: int, seed: int, leaves: int = 6000) -> np.ndarray:
    """Grainy discs of all sizes that hide one another: (H, W, 3) uint8. Lee, Mumford and Huang (IJCV 2001)."""
    rng = np.random.default_rng(seed)
    canvas = np.full((2 * height, 2 * width, 3), 128.0)
    radii = np.minimum(3 / np.sqrt(rng.uniform(0, 1, leaves)), 150)
    for radius in radii:
        y, x = rng.uniform(0, 2 * height), rng.uniform(0, 2 * width)
        top, left = max(0, int(y - radius)), max(0, int(x - radius))
        box = canvas[top : int(y + radius) + 2, left : int(x + radius) + 2]
        rows, columns = np.ogrid[top : top + box.shape[0], left : left + box.shape[1]]
        inside = (rows - y) ** 2 + (columns - x) ** 2 <= radius**2
        grain = rng.uniform(0, 6) * rng.standard_normal((int(inside.sum()), 1))
        box[inside] = rng.normal(120, 40) + rng.normal(0, 15, 3) + grain
    image = canvas.reshape(height, 2, width, 2, 3).mean(axis=(1, 3))
    return np.clip(image + 0.5, 0, 255).astype(np.uint8)


def noisy(image: np.ndarray, sigma: float, seed: int = 1) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(0, sigma, image.shape)
    return np.clip(image + noise + 0.5, 0, 255).astype(np.uint8)


def blurred(image: np.ndarray, times: int) -> np.ndarray:
    """3 x 3 binomial blur, repeated; borders replicated."""
    x = image.astype(np.float64)
    for _ in range(times):
        for axis in (0, 1):
            pad = [(1, 1) if i == axis else (0, 0) for i in range(3)]
            padded = np.moveaxis(np.pad(x, pad, mode="edge"), axis, 0)
            x = np.moveaxis((padded[:-2] + 2 * padded[1:-1] + padded[2:]) / 4, 0, axis)
    return np.floor(x + 0.5).astype(np.uint8)


@pytest.fixture(scope="session")
def photo() -> np.ndarray:
    """(240, 336, 3) uint8."""
    return dead_leaves(240, 336, 0)


@pytest.fixture(scope="session")
def damage() -> SimpleNamespace:
    """The functions `blurred` and `noisy`, and `dead_leaves` for images of other sizes."""
    return SimpleNamespace(blurred=blurred, noisy=noisy, dead_leaves=dead_leaves)


@pytest.fixture
def piq(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """piq's functions on a pair of images, in float64.

    Its modules are loaded without its __init__, which loads torchvision for metrics that are not compared here;
    torchvision does not load beside every build of torch.
    """
    spec = find_spec("piq")
    assert spec is not None, "install the extra 'dev'"
    assert spec.submodule_search_locations is not None
    package = ModuleType("piq")
    package.__path__ = list(spec.submodule_search_locations)
    monkeypatch.setitem(sys.modules, "piq", package)
    torch = import_module("torch")

    def on_images(module: str, function: str):
        metric = getattr(import_module(f"piq.{module}"), function)

        def tensor(image: np.ndarray):
            scaled = image.astype(np.float64) / np.iinfo(image.dtype).max
            return torch.from_numpy(scaled.transpose(2, 0, 1).copy())[None]

        return lambda a, b, **options: float(metric(tensor(a), tensor(b), **options))

    return SimpleNamespace(
        haarpsi=on_images("haarpsi", "haarpsi"),
        ssim=on_images("ssim", "ssim"),
    )
