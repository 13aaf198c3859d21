from __future__ import annotations

import numpy as np
import pytest

from pocketprior.core.degradations.encoding import blend, jpeg, linear_to_srgb, quantize, shifted_jpeg, srgb_to_linear


def test_quantize_gives_the_levels_of_a_file(waves) -> None:
    levels = quantize(waves) * 255
    np.testing.assert_allclose(levels, np.round(levels), atol=1e-4)
    assert np.abs(quantize(waves) - waves).max() <= 0.5 / 255 + 1e-6
    assert quantize(np.array([-1, 2], np.float32)).tolist() == [0, 1]


@pytest.mark.parametrize(("value", "linear"), [(0, 0), (0.04045, 0.0031308), (0.5, 0.21404), (1, 1)])
def test_light_is_the_srgb_curve(value: float, linear: float) -> None:
    assert srgb_to_linear(np.array(value, np.float32)) == pytest.approx(linear, abs=1e-5)
    assert linear_to_srgb(np.array(linear, np.float32)) == pytest.approx(value, abs=1e-4)


def test_encoding_undoes_light_at_every_level() -> None:
    levels = (np.arange(256) / 255).astype(np.float32)
    np.testing.assert_allclose(linear_to_srgb(srgb_to_linear(levels)), levels, atol=1e-6)
    assert srgb_to_linear(levels).dtype == np.float32


def test_blend_goes_from_one_to_the_other(waves) -> None:
    white = np.ones(3, np.float32)
    assert blend(waves, white, np.float32(0)).tobytes() == waves.tobytes()
    np.testing.assert_allclose(blend(waves, white, np.float32(1)), 1, atol=1e-6)
    np.testing.assert_allclose(blend(waves, white, np.float32(0.25)), 0.75 * waves + 0.25, atol=1e-6)


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
