from __future__ import annotations

import numpy as np
import pytest

from pocketprior.core.degradations.srgb import blend, linear_to_srgb, quantize, srgb_to_linear


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
