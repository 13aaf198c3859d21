from __future__ import annotations

import pytest
import torch
from checks import check_ahead, run_interpreted
from gpu import tables

from pocketprior.kernels.channel_attention import WIDEST, unsupported

OP = "channel_attention"


def test_interpreted() -> None:
    run_interpreted(OP)


@pytest.mark.slow
@pytest.mark.parametrize("target", ["sm_80", "sm_90"])
def test_compiles_without_spills(target: str) -> None:
    check_ahead(OP, target)


@pytest.mark.parametrize("target", ["sm_80", "sm_90"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
def test_wide_head_compiles_without_spills(target: str, dtype: torch.dtype) -> None:
    """One head over 96 channels, as in DiffIR's refinement."""
    launches = tables.started(OP, (1, 96, 64, 64), dtype)
    assert any(launch.constants.get("BLOCK") == WIDEST for launch in launches)
    spilled = {launch.kernel.fn.__name__: tables.compiled(launch, target).spilled for launch in launches}
    assert not any(spilled.values()), spilled


def test_too_wide_heads_are_named() -> None:
    assert unsupported(torch.zeros(1, 2 * WIDEST, 1, 1), 2) is None
    assert f"{WIDEST + 1} channels per head" in str(unsupported(torch.zeros(1, WIDEST + 1, 1, 1), 1))
