from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import special

from pocketprior.core.degradations import blur

ALL = {
    "disc": blur.disc(3.7),
    "gaussian": blur.gaussian(21, (0.2, 3.0), 0.7),
    "generalized": blur.generalized(21, (1.0, 2.0), 0.7, 0.5),
    "plateau": blur.plateau(21, (1.0, 2.0), 0.7, 2.0),
    "sinc": blur.sinc(21, 2.0),
}


@pytest.mark.parametrize("kernel", ALL.values(), ids=ALL)
def test_kernel_adds_up_to_one_and_is_symmetric_about_its_middle(kernel) -> None:
    assert kernel.dtype == np.float32
    assert kernel.shape[0] == kernel.shape[1]
    assert kernel.shape[0] % 2 == 1
    assert kernel.sum() == pytest.approx(1, abs=1e-5)
    np.testing.assert_allclose(kernel, kernel[::-1, ::-1], atol=1e-7)


def test_gaussian_has_the_given_deviations_along_its_axes() -> None:
    kernel = blur.gaussian(41, (1.5, 3.0), 0.0).astype(float)
    offsets = np.arange(41) - 20
    assert math.sqrt((kernel.sum(axis=0) * offsets**2).sum()) == pytest.approx(1.5, rel=1e-3)
    assert math.sqrt((kernel.sum(axis=1) * offsets**2).sum()) == pytest.approx(3.0, rel=1e-3)
    np.testing.assert_allclose(blur.gaussian(41, (1.5, 3.0), math.pi / 2), kernel.T, atol=1e-7)


def test_shape_bends_the_profile() -> None:
    """A generalised kernel is a Gaussian at shape 1; flat-topped ones have more weight near the middle's edge."""
    middle = {shape: blur.generalized(21, (2.0, 2.0), 0.0, shape)[10, 8:11] for shape in (0.5, 1.0, 4.0)}
    flatness = [profile[1] / profile[2] for profile in middle.values()]
    assert flatness == sorted(flatness)
    assert blur.plateau(21, (2.0, 2.0), 0.0, 1.0)[10, 0] > blur.gaussian(21, (2.0, 2.0), 0.0)[10, 0] * 100


def test_disc_has_its_radius() -> None:
    disc = blur.disc(5.0)
    assert disc.shape == (11, 11)
    assert 1 / disc.max() == pytest.approx(math.pi * 25, rel=0.03)


def test_bessel_function_agrees_with_scipy() -> None:
    x = np.linspace(0, 45, 300)
    np.testing.assert_allclose(blur._bessel_j1(x), special.j1(x), atol=1e-14)


def test_sinc_passes_what_is_below_its_cutoff_only() -> None:
    response = np.abs(np.fft.fft2(blur.sinc(61, 1.5), (256, 256)))[0]  # along one axis
    frequency = np.arange(256) * 2 * np.pi / 256
    assert response[frequency < 1.1].min() > 0.85
    assert response[(frequency > 1.9) & (frequency < np.pi)].max() < 0.15
