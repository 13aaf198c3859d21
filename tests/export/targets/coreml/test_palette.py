"""Palettes are near, deterministic, and exact where weights have few values."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pocketprior.export.targets.coreml.quantized import PALETTES, palette


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("bits", PALETTES.values())
def test_is_better_than_steps_of_one_size(bits: int) -> None:
    weights = normal(64, 32, 3, 3)
    made = palette(weights, bits)
    assert (made.indices.shape, made.table.shape) == (weights.shape, (2**bits,))
    assert (np.diff(made.table) >= 0).all()
    low, high = weights.min(), weights.max()
    even = np.round((weights - low) / (high - low) * (2**bits - 1)) / (2**bits - 1) * (high - low) + low
    assert np.square(made.table[made.indices] - weights).mean() < 0.7 * np.square(even - weights).mean()


def test_known_optimum() -> None:
    """Max, "Quantizing for minimum distortion" (1960): 16 levels of a normal distribution leave 0.009497."""
    weights = normal(400_000)
    made = palette(weights, 4)
    assert np.square(made.table[made.indices] - weights).mean() == pytest.approx(0.009497, rel=0.03)


@given(st.lists(st.floats(-5, 5, width=32), min_size=1, max_size=16), st.integers(1, 50))
def test_few_values_are_kept(values: list[float], repeats: int) -> None:
    weights = np.tile(np.array(values, np.float32), repeats)
    made = palette(weights, 4)
    np.testing.assert_array_equal(made.table[made.indices], weights)


def test_every_weight_has_the_nearest_value() -> None:
    weights = normal(500)
    made = palette(weights, 4)
    nearest = np.abs(weights[:, None] - made.table).min(axis=1)
    np.testing.assert_allclose(np.abs(weights - made.table[made.indices]), nearest, rtol=1e-6)


def test_is_always_the_same() -> None:
    first, second = palette(normal(999), 6), palette(normal(999), 6)
    assert first.indices.tobytes() + first.table.tobytes() == second.indices.tobytes() + second.table.tobytes()
