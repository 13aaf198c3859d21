from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pocketprior.core import texture
from pocketprior.core.photo.io import read

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_flat_photo_is_all_structure() -> None:
    flat = np.full((17, 23, 3), 0.6, np.float32)
    np.testing.assert_allclose(texture.structure(flat), flat, atol=1e-5)


def test_texture_goes_and_edges_stay() -> None:
    rng = np.random.default_rng(0)
    step = np.zeros((64, 64, 3), np.float32)
    step[:, 32:] = 1
    grained = np.clip(step + 0.02 * rng.standard_normal(step.shape, dtype=np.float32), 0, 1)
    smooth = texture.structure(grained)
    assert smooth[:, :28].std() < 0.3 * grained[:, :28].std()
    assert (smooth[:, 36:].mean() - smooth[:, :28].mean()) > 0.95


def test_lines_are_solved_exactly() -> None:
    """The tridiagonal sweep equals a dense solution of (1 + weight A) u = signal."""
    rng = np.random.default_rng(1)
    signal = rng.random((9, 2, 3), dtype=np.float32)
    coupling = rng.random((8, 2), dtype=np.float32)
    solved = texture._solve_rows(signal, coupling, 7.0)
    for line in range(2):
        laplacian = np.zeros((9, 9))
        for i, c in enumerate(coupling[:, line]):
            laplacian[i : i + 2, i : i + 2] += c * np.array([[1, -1], [-1, 1]])
        expected = np.linalg.solve(np.eye(9) + 7.0 * laplacian, signal[:, line].astype(float))
        np.testing.assert_allclose(solved[:, line], expected, atol=1e-5)


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (7, 1), (2, 2)])
def test_smallest_photos(shape: tuple[int, int]) -> None:
    image = np.random.default_rng(2).random((*shape, 3), dtype=np.float32)
    smooth = texture.structure(image)
    assert smooth.shape == image.shape
    assert np.isfinite(smooth).all()


def test_blend_runs_from_structure_to_photo() -> None:
    image, smooth = np.full((2, 2, 3), 0.8, np.float32), np.full((2, 2, 3), 0.4, np.float32)
    np.testing.assert_allclose(texture.blend(image, smooth, 0), smooth)
    np.testing.assert_allclose(texture.blend(image, smooth, 1), image)
    np.testing.assert_allclose(texture.blend(image, smooth, 0.25), np.float32(0.5))


def test_real_photo_keeps_most_of_itself() -> None:
    photo = read(EXAMPLES / "dog.jpg").pixels[::2, ::2].astype(np.float32) / 255
    error = np.square(texture.structure(photo) - photo).mean()
    assert 24 < -10 * np.log10(error) < 34
