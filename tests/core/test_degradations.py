from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pocketprior.core import degradations as d


def photo(height: int = 64, width: int = 48) -> d.Picture:
    y, x = np.mgrid[:height, :width].astype(np.float32)
    waves = [0.5 + 0.4 * np.sin(y / 5 + x / 7 + phase) for phase in (0, 1, 2)]
    return np.stack(waves, axis=2).astype(np.float32)


def test_gaussian_noise_has_the_given_sigma() -> None:
    flat = np.full((200, 200, 3), 0.5, np.float32)
    noisy = d.gaussian_noise(flat, 25, np.random.default_rng(0))
    assert (noisy - flat).std() * 255 == pytest.approx(25, rel=0.01)


def test_poisson_noise_has_the_variance_of_counted_photons() -> None:
    flat = np.full((200, 200, 3), 0.4, np.float32)
    noisy = d.poisson_noise(flat, 100, np.random.default_rng(0))
    assert noisy.mean() == pytest.approx(0.4, rel=0.01)
    assert noisy.var() == pytest.approx(0.4 / 100, rel=0.02)


def test_blur_keeps_the_mean_and_the_constant() -> None:
    flat = np.full((9, 7, 3), 0.3, np.float32)
    np.testing.assert_allclose(d.gaussian_blur(flat, 1.2), flat, atol=1e-6)
    assert d.gaussian_blur(photo(), 1.0).std() < photo().std()
    assert d.gaussian_blur(photo(), 0.0) is not None


def test_blur_agrees_with_scipy() -> None:
    from scipy.ndimage import gaussian_filter

    expected = gaussian_filter(photo(), (1.1, 1.1, 0), mode="nearest", radius=(4, 4, 0))
    np.testing.assert_allclose(d.gaussian_blur(photo(), 1.1), expected, atol=1e-6)


def test_jpeg_loses_more_at_lower_quality() -> None:
    errors = [np.square(d.jpeg(photo(), q) - photo()).mean() for q in (95, 50, 10)]
    assert errors == sorted(errors)
    assert errors[0] < errors[2]


def test_quantize_gives_the_levels_of_a_file() -> None:
    levels = d.quantize(photo()) * 255
    np.testing.assert_allclose(levels, np.round(levels), atol=1e-4)


@pytest.mark.parametrize("task", d.TASKS)
@given(seed=st.integers(0, 2**32), height=st.integers(1, 40), width=st.integers(1, 40))
@settings(max_examples=40, deadline=None)
def test_task_is_seeded_and_keeps_range_and_size(task: str, seed: int, height: int, width: int) -> None:
    clean = photo(height, width)
    first, second = (d.TASKS[task](clean, np.random.default_rng(seed)) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert first.shape == clean.shape
    assert first.dtype == np.float32
    assert first.min() >= 0
    assert first.max() <= 1


def test_cleanup_differs_between_seeds() -> None:
    results = [d.cleanup(photo(), np.random.default_rng(seed)) for seed in range(8)]
    assert len({r.tobytes() for r in results}) == 8
