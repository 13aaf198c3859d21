from __future__ import annotations

import pytest
import torch
from checks import check_ahead, run_interpreted

from pocketprior.kernels.modulated_norm import WIDEST, reference, unsupported

OP = "modulated_norm"


def test_interpreted() -> None:
    run_interpreted(OP)


@pytest.mark.slow
@pytest.mark.parametrize("target", ["sm_80", "sm_90"])
def test_compiles_without_spills(target: str) -> None:
    check_ahead(OP, target)


def test_too_many_channels_are_named() -> None:
    x = torch.zeros(1, WIDEST + 1, 1, 1)
    assert f"{WIDEST + 1} channels" in str(unsupported(x, x[0, :, 0, 0], None, x[:, :, 0, 0], x[:, :, 0, 0]))


def test_norm_with_bias_is_layer_norm_over_channels() -> None:
    x, weight, bias = torch.randn(2, 6, 3, 5), torch.randn(6), torch.randn(6)
    mean, variance = x.mean(1, keepdim=True), x.var(1, keepdim=True, correction=0)
    plain = (x - mean) / (variance + 1e-5).sqrt() * weight[:, None, None] + bias[:, None, None]
    torch.testing.assert_close(reference(x, weight, bias, torch.ones(2, 6), torch.zeros(2, 6)), plain)


def test_norm_without_bias_keeps_the_mean() -> None:
    x, weight = torch.randn(2, 6, 3, 5) + 2, torch.randn(6)
    plain = x / (x.var(1, keepdim=True, correction=0) + 1e-5).sqrt() * weight[:, None, None]
    torch.testing.assert_close(reference(x, weight, None, torch.ones(2, 6), torch.zeros(2, 6)), plain)
