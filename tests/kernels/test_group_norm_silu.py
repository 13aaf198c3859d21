from __future__ import annotations

import pytest
import torch
from checks import check_ahead, run_interpreted

from pocketprior.kernels.group_norm_silu import WIDEST, unsupported

OP = "group_norm_silu"


def test_interpreted() -> None:
    run_interpreted(OP)


@pytest.mark.slow
@pytest.mark.parametrize("target", ["sm_80", "sm_90"])
def test_compiles_without_spills(target: str) -> None:
    check_ahead(OP, target)


@pytest.mark.parametrize(
    ("channels", "groups", "reason"),
    [(WIDEST + 8, 8, f"{WIDEST + 8} channels"), (24, 5, "do not divide into 5 groups"), (WIDEST, 8, None)],
)
def test_what_the_kernels_cannot_take_is_named(channels: int, groups: int, reason: str | None) -> None:
    x = torch.zeros(1, channels, 1, 1)
    found = unsupported(x, groups, x[0, :, 0, 0], x[0, :, 0, 0], None)
    assert found is None if reason is None else reason in str(found)
