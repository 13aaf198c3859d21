"""The estimate of a photo's noise: right on white noise of any strength, hardly raised by texture."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image as Pillow

from pocketprior.core.photo.io import read
from pocketprior.core.restore import noise_sigma as module
from pocketprior.core.restore.noise_sigma import noise_sigma, white_sigma

EXAMPLES = sorted((Path(__file__).parents[3] / "examples").glob("*.jpg"))
Bytes = NDArray[np.uint8]


def scene(side: int = 256, seed: int = 0) -> NDArray[np.float64]:
    """Shading, edges and grey texture whose energy falls with frequency as in photos, in grey levels."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side][..., np.newaxis] / side
    shading = 120 + 50 * np.sin(3 * x + np.arange(3)) * np.cos(2 * y)
    edges = 40.0 * ((13 * x).astype(int) % 2 == (9 * y).astype(int) % 2)
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(side), np.fft.fftfreq(side))) + 1 / side
    texture = np.fft.ifft2(np.fft.fft2(rng.standard_normal((side, side))) / frequency**1.5).real
    return shading + edges + 20 * (texture / texture.std())[..., np.newaxis]


def rounded(values: NDArray[np.float64]) -> Bytes:
    return np.clip(np.round(values), 0, 255).astype(np.uint8)


def noisy(clean: NDArray[np.float64] | Bytes, sigma: float, seed: int = 1) -> Bytes:
    return rounded(clean + sigma * np.random.default_rng(seed).standard_normal(clean.shape))


def as_jpeg(image: Bytes, quality: int, subsampling: int) -> Bytes:
    file = io.BytesIO()
    Pillow.fromarray(image).save(file, "JPEG", quality=quality, subsampling=subsampling)
    return np.asarray(Pillow.open(file).convert("RGB"))


def halved(path: Path) -> NDArray[np.float64]:
    """A real photo, averaged over 2 x 2 pixels, by which traces of its JPEG go."""
    pixels = read(path).pixels[:512, :512].astype(np.float64)
    return (pixels[::2, ::2] + pixels[1::2, ::2] + pixels[::2, 1::2] + pixels[1::2, 1::2]) / 4


@pytest.mark.parametrize("sigma", [5, 15, 25, 50])
def test_white_noise(sigma: float) -> None:
    """Within 3 % and a third of a grey level, on a made scene and on photos."""
    for clean in (scene(), *map(halved, EXAMPLES)):
        assert noise_sigma(noisy(clean, sigma)) == pytest.approx(sigma, rel=0.03, abs=0.33)


def test_clean_images_have_next_to_none() -> None:
    for clean in (rounded(scene()), *(read(path).pixels for path in EXAMPLES)):
        assert noise_sigma(clean) < 1
    assert noise_sigma(np.full((64, 64, 3), 7, np.uint8)) == 0


def test_texture_raises_it_less_than_the_median_of_the_whole_band() -> None:
    image = rounded(scene())
    grey = image.mean(axis=2)
    band = (grey[::2, ::2] - grey[1::2, ::2] - grey[::2, 1::2] + grey[1::2, 1::2]) / 2
    assert noise_sigma(image) < 0.5 * np.median(np.abs(band)) / 0.6745


def test_clipped_noise_is_not_taken_for_weak() -> None:
    """A quarter of the image at black, where half of the noise is cut off."""
    clean = scene()
    clean[:128, :128] = 0
    assert noise_sigma(noisy(clean, 50)) == pytest.approx(50, rel=0.05)
    assert noise_sigma(noisy(np.full((64, 64, 3), 250.0), 25)) == pytest.approx(25, rel=0.15)


def test_grey_photos_are_measured_along_grey() -> None:
    grey = np.repeat(noisy(scene()[..., :1], 20), 3, axis=2)
    assert noise_sigma(grey) == pytest.approx(3**0.5 * 20, rel=0.06)
    assert white_sigma(grey, 20) == pytest.approx(3**0.5 * 20)
    assert white_sigma(noisy(scene(), 20), 20) == 20


def test_colour_at_half_the_resolution_does_not_hide_noise() -> None:
    assert 10 < noise_sigma(as_jpeg(noisy(scene(), 15), 90, subsampling=2)) < 26


def test_both_depths_measure_the_same() -> None:
    image = noisy(scene(), 12)
    assert noise_sigma(image.astype(np.uint16) * 257) == pytest.approx(noise_sigma(image), rel=1e-5)


@pytest.mark.parametrize("shape", [(1, 1), (15, 200), (200, 15)])
def test_nothing_is_measured_on_less_than_a_block(shape: tuple[int, int]) -> None:
    assert noise_sigma(np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)) == 0


def test_it_does_not_depend_on_the_strips(monkeypatch: pytest.MonkeyPatch) -> None:
    image = noisy(scene(), 9)[:250, :90]
    whole = noise_sigma(image)
    monkeypatch.setattr(module, "_STRIP", 2 * module._BLOCK)
    assert noise_sigma(image) == pytest.approx(whole, rel=1e-6)
    assert white_sigma(image, 9) == 9
