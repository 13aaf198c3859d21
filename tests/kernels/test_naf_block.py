from __future__ import annotations

import pytest
import torch
from checks import check_ahead, run_interpreted

from pocketprior.kernels.naf_block import DEEPEST, WIDEST, example, unsupported

OP = "naf_block"


def test_interpreted() -> None:
    run_interpreted(OP)


@pytest.mark.slow
@pytest.mark.parametrize("target", ["sm_80", "sm_90"])
def test_compiles_without_spills(target: str) -> None:
    check_ahead(OP, target)


@pytest.mark.parametrize(("channels", "reason"), [(WIDEST, None), (WIDEST + 1, f"{WIDEST + 1} channels")])
def test_what_the_kernels_cannot_take_is_named(channels: int, reason: str | None) -> None:
    found = unsupported(*example((1, channels, 1, 1), torch.Generator()))
    assert found is None if reason is None else reason in str(found)


def test_too_many_hidden_channels_are_named() -> None:
    x, film, parameters = example((1, 16, 1, 1), torch.Generator())
    deep = parameters._replace(attention_bias=torch.zeros(DEEPEST + 1))
    assert f"{DEEPEST + 1} hidden channels" in str(unsupported(x, film, deep))
