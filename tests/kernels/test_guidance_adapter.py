from __future__ import annotations

import pytest
from checks import check_ahead, run_interpreted

OP = "guidance_adapter"


def test_interpreted() -> None:
    run_interpreted(OP)


@pytest.mark.slow
@pytest.mark.parametrize("target", ["sm_80", "sm_90"])
def test_compiles_without_spills(target: str) -> None:
    check_ahead(OP, target)
