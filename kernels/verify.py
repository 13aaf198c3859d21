"""One rule for all ops: the twin may err at most twice as much as plain PyTorch in the same dtype.

    err(fused) <= 2 err(reference in the dtype) + eps(dtype) * max |truth|

for the output and the gradient of every argument, both against the reference in float64. On few pixels the error of the
reference is a matter of luck: there it is the largest of `DRAWS` draws of the arguments, in units of max |truth|.
Memory that an op allocates and does not write is NaN.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from .cases import Case
from .select import mode

__all__ = ["LAYOUTS", "Finding", "arguments", "module_of", "poisoned", "verify"]

LAYOUTS = ("contiguous", "channels_last", "sliced")
DRAWS = 4
FEW = 1000  # pixels


class Finding(NamedTuple):
    """What was compared and how large the error may be."""

    what: str  # "output" or "gradient I"
    error: float
    bound: float

    @property
    def holds(self) -> bool:
        """Whether the twin is close enough; a NaN is not."""
        return self.error <= self.bound


def module_of(op: str) -> Any:
    """The module of an op of `OPS`."""
    return import_module(f".{op}", __package__)


def arguments(op: str, case: Case, dtype: torch.dtype, layout: str, device: str, draw: int = 0) -> list[Any]:
    """The arguments of one call; every picture among them has the `layout`. Tensors require gradients."""
    found = module_of(op).example(case, torch.Generator().manual_seed(draw))
    return [_leaf(a, dtype, layout, device) if isinstance(a, Tensor) else a for a in found]


def _leaf(a: Tensor, dtype: torch.dtype, layout: str, device: str) -> Tensor:
    a = a.to(device, dtype)
    if a.ndim == 4 and layout == "channels_last":
        a = a.contiguous(memory_format=torch.channels_last)
    elif a.ndim == 4 and layout == "sliced":  # the inner part of something larger, with odd strides
        room = torch.full([size + 3 for size in a.shape], float("nan"), dtype=dtype, device=device)
        room[tuple(slice(1, 1 + size) for size in a.shape)] = a
        a = room[tuple(slice(1, 1 + size) for size in a.shape)]
    return a.detach().requires_grad_()


def verify(op: str, case: Case, dtype: torch.dtype, layout: str = "contiguous", device: str = "cuda") -> list[Finding]:
    """Run the op fused and compare output and gradients. Raises UnsupportedError where the kernel refuses."""
    module = module_of(op)
    args = arguments(op, case, dtype, layout, device)
    truth, plain = _truth_and_plain(module, args)
    with mode("fused"), poisoned():
        fused = _results(getattr(module, op), args)
    names = ["output", *(f"gradient {i}" for i, a in enumerate(args) if isinstance(a, Tensor))]
    scales = [t.abs().max().item() for t in truth]
    yardsticks = list(map(_error, plain, truth))
    if case.n * case.height * case.width < FEW:
        for draw in range(1, DRAWS):
            exact, rough = _truth_and_plain(module, arguments(op, case, dtype, layout, device, draw))
            for i, scale in enumerate(scales):
                yardsticks[i] = max(yardsticks[i], scale * _relative(rough[i], exact[i]))
    return [_finding(*row, dtype) for row in zip(names, truth, fused, scales, yardsticks, strict=True)]


def _truth_and_plain(module: Any, args: Sequence[Any]) -> tuple[list[Tensor], list[Tensor]]:
    exact = [a.detach().double() if isinstance(a, Tensor) else a for a in args]
    return _results(module.reference, exact), _results(module.reference, args)


def _error(found: Tensor, truth: Tensor) -> float:
    return (found.double() - truth).abs().max().item()


def _relative(found: Tensor, truth: Tensor) -> float:
    """The error in units of the largest true value; 0 where that is 0."""
    scale = truth.abs().max().item()
    return _error(found, truth) / scale if scale else 0.0


def _finding(what: str, truth: Tensor, fused: Tensor, scale: float, yardstick: float, dtype: torch.dtype) -> Finding:
    if fused.shape != truth.shape or fused.dtype != dtype:
        raise AssertionError(f"{what}: {fused.dtype} {tuple(fused.shape)}, expected {dtype} {tuple(truth.shape)}")
    return Finding(what, _error(fused, truth), 2 * yardstick + torch.finfo(dtype).eps * scale)


def _results(op: Callable[..., Tensor], args: Sequence[Any]) -> list[Tensor]:
    """The output and the gradients of all tensors, for a cotangent that depends on the shape alone."""
    tensors = [a.requires_grad_() for a in args if isinstance(a, Tensor)]
    y = op(*args)
    cotangent = torch.randn(y.shape, generator=torch.Generator().manual_seed(1)).to(y.device, y.dtype)
    return [y.detach(), *torch.autograd.grad(y, tensors, cotangent)]


class _Poison(TorchFunctionMode):
    ALLOCATORS = frozenset({torch.empty, torch.empty_like, torch.empty_strided, Tensor.new_empty})

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func in self.ALLOCATORS and result.is_floating_point():
            result.fill_(float("nan"))
        return result


@contextmanager
def poisoned() -> Iterator[None]:
    """Within the block, float memory that is allocated uninitialised is full of NaN."""
    with _Poison():
        yield
