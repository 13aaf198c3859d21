from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
import torch
from torch import Tensor

from pocketprior.kernels import UnsupportedError, mode, select


def plain(x: Tensor, factor: Tensor | None = None) -> Tensor:
    return x * 2 if factor is None else x * factor


def kernel(x: Tensor, factor: Tensor | None = None) -> Tensor:
    del factor
    return torch.full_like(x, 7)


def takes_all(*_: Tensor | None) -> None:
    return None


def choose(x: Tensor, factor: Tensor | None = None) -> float:
    return select.choose(plain, kernel, takes_all, x, factor).flatten()[0].item()


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
    with mode("fused"), pytest.raises(UnsupportedError, match="test_select cannot run fused: the input is on 'cpu'"):
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
def test_a_mode_holds_in_threads_without_their_own() -> None:
    """Autograd runs backward passes in such threads."""
    with mode("fused"), ThreadPoolExecutor(1) as other:
        assert other.submit(choose, torch.ones(1)).result() == 7
    with ThreadPoolExecutor(1) as other:
        assert other.submit(choose, torch.ones(1)).result() == 2


@pytest.mark.usefixtures("here")
def test_threads_do_not_disturb_each_other() -> None:
    """Two blocks that overlap without being nested; afterwards no mode is left over."""

    def other() -> tuple[float, float]:
        with mode("reference"):
            begun.wait()
            inside = choose(torch.ones(1))
            ended.wait()
        return inside, choose(torch.ones(1))

    begun, ended = Barrier(2), Barrier(2)
    with ThreadPoolExecutor(1) as pool:
        with mode("fused"):
            found = pool.submit(other)
            begun.wait()
            assert choose(torch.ones(1)) == 7
        ended.wait()
        assert found.result() == (2, 2)
    assert choose(torch.ones(1)) == 2


@pytest.mark.usefixtures("here")
def test_a_change_of_mode_is_seen_by_compiled_code() -> None:
    compiled = torch.compile(lambda x: select.choose(plain, kernel, takes_all, x), backend="eager", fullgraph=True)
    assert compiled(torch.ones(1)).item() == 2
    with mode("fused"):
        assert compiled(torch.ones(1)).item() == 7
    assert compiled(torch.ones(1)).item() == 2


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
    with mode("fused"), pytest.raises(UnsupportedError, match="test_select cannot run fused: too wide"):
        select.choose(plain, kernel, lambda *_: "too wide", torch.ones(1))


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
            return select.choose(plain, kernel, takes_all, x)

    with mode("fused"):
        program = torch.export.export(Model(), (torch.ones(3),))
    assert program.module()(torch.ones(3)).tolist() == [2, 2, 2]
