from __future__ import annotations

import numpy as np

from pocketprior.core.degradations.compression import jpeg, shifted_jpeg


def test_jpeg_loses_more_at_lower_quality(waves) -> None:
    errors = [np.square(jpeg(waves, quality) - waves).mean() for quality in (95, 50, 10)]
    assert errors == sorted(errors)
    assert errors[0] < errors[2]


def seam(image: np.ndarray) -> int:
    """Column (0 to 7) of the 8x8 grid at which neighbours differ most: the block border."""
    steps = np.abs(np.diff(image.mean(axis=2), axis=1)).sum(axis=0)
    return int(np.argmax([steps[(column - 1) % 8 :: 8].mean() for column in range(8)]))


def test_blocks_begin_at_the_corner_or_where_they_are_shifted_to(rng) -> None:
    busy = np.clip(0.5 + 0.2 * rng.standard_normal((128, 128, 3)), 0, 1).astype(np.float32)
    assert seam(jpeg(busy, 5, "4:4:4")) == 0
    assert seam(shifted_jpeg(busy, 5, 0, 3, "4:4:4")) == 5
    assert seam(np.rot90(shifted_jpeg(busy, 5, 2, 0, "4:4:4"), 3)[:, ::-1]) == 6
    assert shifted_jpeg(busy, 5, 7, 7).shape == busy.shape


def test_colour_is_kept_at_half_resolution_only_when_subsampled() -> None:
    colour = np.zeros((32, 32, 3), np.float32)
    colour[:, ::2, 0] = 1
    error = {kind: np.abs(jpeg(colour, 95, kind) - colour).mean() for kind in ("4:4:4", "4:2:0")}
    assert error["4:2:0"] > 5 * error["4:4:4"]
