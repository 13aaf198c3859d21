from __future__ import annotations

import math

import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio

from pocketprior.core.metrics import psnr


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_equals_scikit_image(dtype):
    peak = np.iinfo(dtype).max
    a, b = np.random.default_rng(0).integers(0, peak, (2, 33, 47, 3), dtype, endpoint=True)
    assert psnr(a, b) == pytest.approx(peak_signal_noise_ratio(a, b, data_range=peak), rel=1e-12)


def test_known_value():
    black = np.zeros((4, 4, 3), np.uint8)
    assert psnr(black, black + np.uint8(255)) == 0
    assert psnr(black, black + np.uint8(1)) == pytest.approx(20 * math.log10(255))


def test_identity_symmetry_and_order(photo, damage):
    weak, strong = damage.noisy(photo, 5), damage.noisy(photo, 20)
    assert psnr(photo, photo) == math.inf
    assert psnr(photo, weak) == psnr(weak, photo) > psnr(photo, strong)
