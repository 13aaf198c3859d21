from __future__ import annotations

import numpy as np
import pytest

from pocketprior.core.metrics import haarpsi


@pytest.mark.parametrize("size", [(240, 336), (239, 336), (240, 335), (51, 37), (16, 16), (17, 19)])
def test_equals_piq(photo, damage, piq, size):
    a, b = photo[: size[0], : size[1]], damage.noisy(photo, 12)[: size[0], : size[1]]
    assert haarpsi(a, b) == pytest.approx(piq.haarpsi(a, b), abs=1e-12)


def test_equals_piq_for_blur_and_sixteen_bits(photo, damage, piq):
    wide = [image.astype(np.uint16) * 257 for image in (photo, damage.blurred(photo, 3))]
    assert haarpsi(*wide) == pytest.approx(piq.haarpsi(*wide), abs=1e-12)


def test_identity_symmetry_and_order(photo, damage):
    weak, strong = damage.noisy(photo, 5), damage.noisy(photo, 25)
    assert haarpsi(photo, photo) == pytest.approx(1, abs=1e-12)
    assert haarpsi(photo, weak) == pytest.approx(haarpsi(weak, photo), abs=1e-12)
    assert 1 > haarpsi(photo, weak) > haarpsi(photo, strong) > 0
    assert haarpsi(photo, damage.blurred(photo, 1)) > haarpsi(photo, damage.blurred(photo, 4))
