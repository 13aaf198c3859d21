from __future__ import annotations

import pytest

from pocketprior.core.metrics import gmsd


@pytest.mark.parametrize("size", [(240, 336), (239, 336), (240, 335), (51, 37), (4, 5)])
def test_equals_piq(photo, damage, piq, size):
    a, b = photo[: size[0], : size[1]], damage.noisy(photo, 12)[: size[0], : size[1]]
    assert gmsd(a, b) == pytest.approx(piq.gmsd(a, b), abs=1e-12)


def test_identity_symmetry_and_order(photo, damage):
    weak, strong = damage.noisy(photo, 5), damage.noisy(photo, 25)
    assert gmsd(photo, photo) == 0
    assert gmsd(photo, weak) == pytest.approx(gmsd(weak, photo), abs=1e-12)
    assert 0 < gmsd(photo, weak) < gmsd(photo, strong)
    assert gmsd(photo, damage.blurred(photo, 1)) < gmsd(photo, damage.blurred(photo, 4))
