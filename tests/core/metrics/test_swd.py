from __future__ import annotations

import numpy as np
import pytest

from pocketprior.core.metrics import swd
from pocketprior.core.metrics.swd import _PATCHES, _places, _pyramid


def test_identity_and_determinism(photo, damage):
    other = damage.noisy(photo, 10)
    assert swd(photo, photo) == 0
    assert swd(other, photo) == swd(other.copy(), photo.copy()) > 0


def test_rises_with_noise_and_with_blur(photo, damage):
    noise = [swd(damage.noisy(photo, sigma), photo) for sigma in (2, 5, 15, 40)]
    blur = [swd(damage.blurred(photo, times), photo) for times in (1, 3, 8)]
    assert noise == sorted(noise)
    assert blur == sorted(blur)


def test_blur_is_worse_than_slight_noise(photo, damage):
    assert swd(damage.blurred(photo, 2), photo) > 2 * swd(damage.noisy(photo, 5), photo)


def test_texture_of_the_right_kind_in_other_places_beats_none(damage):
    """What PSNR cannot see: new grain of the true strength is nearer to a grainy photo than no grain."""
    smooth = damage.blurred(damage.dead_leaves(160, 160, 3), 4)
    true, regrown = damage.noisy(smooth, 12, seed=1), damage.noisy(smooth, 12, seed=2)
    assert swd(regrown, true) < 0.2 * swd(smooth, true)


def test_loss_of_contrast_is_seen(photo):
    """Each photo scaled by its own deviations would make these equal."""
    faded = (photo // 2 + 64).astype(np.uint8)
    assert swd(faded, photo) > 0.1


def test_brightness_is_left_to_other_metrics(photo):
    dark = np.minimum(photo, 215)
    assert swd(dark + np.uint8(40), dark) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("size", [(16, 16), (16, 300), (17, 33), (31, 64), (63, 65), (105, 120)])
def test_any_size(photo, damage, size):
    a, b = photo[: size[0], : size[1]], damage.noisy(photo, 10)[: size[0], : size[1]]
    assert 0 < swd(b, a) < 1


@pytest.mark.parametrize(("size", "levels"), [((16, 99), 1), ((31, 31), 2), ((64, 64), 3), ((500, 400), 4)])
def test_pyramid_has_a_level_per_octave(size, levels):
    assert len(_pyramid(np.zeros((3, *size)))) == levels


def test_pyramid_of_a_smooth_image_is_empty():
    ramp = np.broadcast_to(np.arange(64.0), (3, 64, 64))
    assert _pyramid(ramp)[0][:, :, 4:-4] == pytest.approx(0)


def test_places_are_all_or_evenly_spread():
    assert len(set(zip(*_places(9, 30), strict=True))) == 270
    y, x = _places(400, 500)
    assert len(y) == _PATCHES
    assert (y.min(), x.min()) >= (0, 0)
    assert y.max() < 400
    assert x.max() < 500
    counts, _, _ = np.histogram2d(y, x, bins=8)
    assert counts.min() > 0.9 * _PATCHES / 64
