from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pocketprior.kernels import UnsupportedError, mode, select


def plain(x: Tensor, factor: Tensor | None = None) -> Tensor:
    return x * 2 if factor is None else x * factor


def twin(x: Tensor, factor: Tensor | None = None) -> Tensor:
    del factor
    return torch.full_like(x, 7)


def takes_all(*_: Tensor | None) -> None:
    return None


def choose(x: Tensor, factor: Tensor | None = None) -> float:
    return select.choose(plain, twin, takes_all, x, factor).flatten()[0].item()


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in Triton's interpreter, where kernels take tensors of the CPU."""
    monkeypatch.setattr(select, "_INTERPRETED", True)


def test_unknown_mode_names_the_modes() -> None:
    with pytest.raises(ValueError, match="'fast'; choose one of: auto, fused, reference"), mode("fast"):
        pass


def test_a_cpu_tensor_runs_the_reference() -> None:
    assert choose(torch.ones(1)) == 2


def test_fused_on_a_cpu_says_why_not() -> None:
    with mode("fused"), pytest.raises(UnsupportedError, match="plain cannot run fused: the input is on 'cpu'"):
        choose(torch.ones(1))


@pytest.mark.usefixtures("here")
def test_modes_nest_and_end_with_their_block() -> None:
    with mode("fused"):
        assert choose(torch.ones(1)) == 7
        with mode("reference"):
            assert choose(torch.ones(1)) == 2
        assert choose(torch.ones(1)) == 7
        with pytest.raises(RuntimeError, match="stop"), mode("reference"):
            raise RuntimeError("stop")
        assert choose(torch.ones(1)) == 7
    assert choose(torch.ones(1)) == 2


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("x", "factor", "reason"),
    [
        (torch.ones(1, dtype=torch.float64), None, "float64; kernels take float32, float16, bfloat16"),
        (torch.ones(1), torch.ones(1, dtype=torch.float16), "an argument is torch.float16 on cpu"),
        (torch.ones(0), None, r"shape \(0,\) is empty"),
    ],
)
def test_input_that_no_kernel_takes(x: Tensor, factor: Tensor | None, reason: str) -> None:
    with mode("fused"), pytest.raises(UnsupportedError, match=reason):
        choose(x, factor)


@pytest.mark.usefixtures("here")
def test_an_op_has_its_own_reasons() -> None:
    with mode("fused"), pytest.raises(UnsupportedError, match="plain cannot run fused: too wide"):
        select.choose(plain, twin, lambda *_: "too wide", torch.ones(1))


@pytest.mark.usefixtures("here")
def test_without_triton_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(select, "_TRITON", False)
    with mode("fused"), pytest.raises(UnsupportedError, match="'triton' is not installed"):
        choose(torch.ones(1))


@pytest.mark.usefixtures("here")
def test_an_exception_of_a_kernel_is_not_caught() -> None:
    def broken(*_: Tensor | None) -> Tensor:
        raise ZeroDivisionError

    with mode("fused"), pytest.raises(ZeroDivisionError):
        select.choose(plain, broken, takes_all, torch.ones(1))


@pytest.mark.usefixtures("here")
def test_autocast_brings_all_tensors_to_its_dtype() -> None:
    seen = []

    def fused(x: Tensor, factor: Tensor) -> Tensor:
        seen.extend([x.dtype, factor.dtype])
        return x

    with mode("fused"), torch.autocast("cpu", torch.bfloat16):
        select.choose(plain, fused, takes_all, torch.ones(1), torch.ones(1))
    assert seen == [torch.bfloat16, torch.bfloat16]


@pytest.mark.usefixtures("here")
def test_an_export_traces_the_reference() -> None:
    class Model(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return select.choose(plain, twin, takes_all, x)

    with mode("fused"):
        program = torch.export.export(Model(), (torch.ones(3),))
    assert program.module()(torch.ones(3)).tolist() == [2, 2, 2]
