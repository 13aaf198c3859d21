from __future__ import annotations

import math

import pytest
import torch
from gpu import verify
from torch import Tensor

from pocketprior.kernels import select

CASE = (2, 16, 5, 7)


def findings(monkeypatch: pytest.MonkeyPatch, kernel: object) -> list[verify.Finding]:
    """The findings with `kernel` in the place of the real one."""
    monkeypatch.setattr(select, "_INTERPRETED", True)
    monkeypatch.setattr(verify.module_of("modulated_norm"), "fused", kernel)
    return verify.verify("modulated_norm", CASE, torch.float32, device="cpu")


def test_the_reference_itself_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    found = findings(monkeypatch, verify.module_of("modulated_norm").reference)
    assert [f.what for f in found] == ["output", *(f"gradient {i}" for i in range(5))]
    assert all(f.holds for f in found)


def test_a_small_error_of_one_pixel_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def kernel(*args: Tensor) -> Tensor:
        y = verify.module_of("modulated_norm").reference(*args)
        return y + torch.zeros_like(y).index_fill(3, torch.tensor([6]), 1e-5)

    assert [f.what for f in findings(monkeypatch, kernel) if not f.holds] == ["output"]


def test_a_missing_share_of_a_gradient_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def kernel(x: Tensor, weight: Tensor, *rest: Tensor) -> Tensor:
        return verify.module_of("modulated_norm").reference(x, weight.detach() + 0 * weight, *rest)

    assert [f.what for f in findings(monkeypatch, kernel) if not f.holds] == ["gradient 1"]


def test_memory_that_is_left_unwritten_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def kernel(*args: Tensor) -> Tensor:
        y = verify.module_of("modulated_norm").reference(*args)
        room = torch.empty_like(y)
        room[:, :, 1:] = 0
        return y + room.detach()

    assert not findings(monkeypatch, kernel)[0].holds


@pytest.mark.parametrize("layout", verify.LAYOUTS)
def test_layouts_hold_the_same_numbers(layout: str) -> None:
    x = verify.arguments("modulated_norm", CASE, torch.float32, layout, "cpu")[0]
    plain = verify.arguments("modulated_norm", CASE, torch.float32, "contiguous", "cpu")[0]
    assert torch.equal(x, plain)
    assert x.is_contiguous() == (layout == "contiguous")
    assert x.is_contiguous(memory_format=torch.channels_last) == (layout == "channels_last")


def test_nan_does_not_hold() -> None:
    assert not verify.Finding("output", math.nan, 1.0).holds
