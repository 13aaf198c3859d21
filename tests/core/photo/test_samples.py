"""Depths and bands."""

from __future__ import annotations

import numpy as np
import pytest

from pocketprior.core.photo.samples import bands, levels, rescaled


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 5_000_000), (5000, 1), (3000, 4000)])
def test_bands_cover_all_rows_once(height: int, width: int) -> None:
    parts = list(bands(height, width))
    rows = np.concatenate([np.arange(height)[part] for part in parts])
    assert np.array_equal(rows, np.arange(height))
    assert len({part.stop - part.start for part in parts[:-1]}) <= 1


@pytest.mark.parametrize(
    ("source", "target"), [(1023, 65535), (4095, 65535), (65535, 1023), (65535, 255), (255, 65535)]
)
def test_rescaling_rounds_half_up(source: int, target: int) -> None:
    values = np.arange(source + 1, dtype=np.uint16)
    expected = np.floor(values.astype(np.float64) * target / source + 0.5)
    assert np.array_equal(rescaled(values, source, target), expected)


def test_more_bits_and_back_is_exact() -> None:
    values = np.arange(1024, dtype=np.uint16)
    assert np.array_equal(rescaled(rescaled(values, 1023, 65535), 65535, 1023), values)


def test_levels() -> None:
    bytes_ = np.arange(256, dtype=np.uint8)
    assert levels(bytes_, np.uint8) is bytes_
    assert np.array_equal(levels(bytes_, np.uint16), bytes_.astype(np.uint16) * 257)
    assert np.array_equal(levels(levels(bytes_, np.uint16), np.uint8), bytes_)
