"""One rule for all ops: a kernel may err at most twice as much as plain PyTorch in the same dtype.

    err(fused) <= 2 err(reference in the dtype) + eps(dtype) * max |truth|

for the output and the gradient of every argument, both compared with the reference in float64. On few pixels the error
of the reference is a matter of luck: there it is the largest of `DRAWS` draws of the arguments, in units of max
|truth|. Memory that an op allocates and does not write is NaN.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from itertools import product
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from pocketprior.kernels.select import DTYPES, Shape, map_tensors, mode, tensors_in

from .command import Row, Setup

LAYOUTS = ("contiguous", "channels_last", "sliced")
# Sizes of training (batch 8) and of restoring (batch 1), which every op takes in addition to its own CASES.
LARGE: tuple[Shape, ...] = tuple((n, channels, 256, 256) for n in (8, 1) for channels in (32, 64, 128))
DRAWS = 4
FEW = 1000  # pixels


class Finding(NamedTuple):
    """What was compared and how large the error may be."""

    what: str  # "output" or "gradient I"
    error: float
    bound: float

    @property
    def holds(self) -> bool:
        """Whether the kernel is close enough; a NaN is not."""
        return self.error <= self.bound

    @property
    def share(self) -> float:
        """The share of the bound that is used up; what is not a number is worst."""
        if not math.isfinite(self.error):
            return math.inf
        return self.error / self.bound if self.bound else math.inf if self.error else 0.0


def module_of(op: str) -> Any:
    """Return the module of an op of `kernels.OPS`."""
    return import_module(f"pocketprior.kernels.{op}")


def label(value: Shape | torch.dtype) -> str:
    """Return a shape as "8x32x256x256", and a dtype as "float32"."""
    return str(value).removeprefix("torch.") if isinstance(value, torch.dtype) else "x".join(map(str, value))


def arguments(op: str, shape: Shape, dtype: torch.dtype, layout: str, device: str, draw: int = 0) -> tuple[Any, ...]:
    """Return the arguments of one call; every image among them has the `layout`. Tensors require gradients."""

    def leaf(a: Tensor) -> Tensor:
        a = a.to(device, dtype)
        if a.ndim == 4 and layout == "channels_last":
            a = a.contiguous(memory_format=torch.channels_last)
        elif a.ndim == 4 and layout == "sliced":  # the inner part of something larger, with odd strides
            room = torch.full([size + 3 for size in a.shape], float("nan"), dtype=dtype, device=device)
            inner = room[tuple(slice(1, 1 + size) for size in a.shape)]
            a = inner.copy_(a)
        return a.detach().requires_grad_()

    return map_tensors(leaf, module_of(op).example(shape, torch.Generator().manual_seed(draw)))


def verify(
    op: str, shape: Shape, dtype: torch.dtype, layout: str = "contiguous", device: str = "cuda"
) -> list[Finding]:
    """Run an op fused and compare its output and gradients with the reference in float64.

    Raises:
        UnsupportedError: if the kernel cannot take these arguments.
    """
    module = module_of(op)
    args = arguments(op, shape, dtype, layout, device)
    truth, plain = _truth_and_plain(module, args)
    with mode("fused"), Poison():
        fused = _results(getattr(module, op), args)
    n, _, height, width = shape
    draws = range(1, DRAWS) if n * height * width < FEW else ()
    others = [_truth_and_plain(module, arguments(op, shape, dtype, layout, device, draw)) for draw in draws]
    found = []
    for i, (exact, ours) in enumerate(zip(truth, fused, strict=True)):
        what = f"gradient {i - 1}" if i else "output"
        if ours.shape != exact.shape or ours.dtype != dtype:
            raise AssertionError(f"{what}: {ours.dtype} {tuple(ours.shape)}, expected {dtype} {tuple(exact.shape)}")
        scale = _size(exact)
        luckier = [scale * _size(rough[i] - true[i]) / (_size(true[i]) or math.inf) for true, rough in others]
        yardstick = max(_size(plain[i] - exact), *luckier, 0.0)
        found.append(Finding(what, _size(ours - exact), 2 * yardstick + torch.finfo(dtype).eps * scale))
    return found


def _truth_and_plain(module: Any, args: tuple[Any, ...]) -> tuple[list[Tensor], list[Tensor]]:
    exact = map_tensors(lambda a: a.detach().double().requires_grad_(), args)
    return _results(module.reference, exact), _results(module.reference, args)


def _results(op: Callable[..., Tensor], args: Sequence[Any]) -> list[Tensor]:
    """The output and the gradients of all tensors, for a cotangent that depends only on the shape."""
    y = op(*args)
    cotangent = torch.randn(y.shape, generator=torch.Generator().manual_seed(1)).to(y.device, y.dtype)
    return [y.detach(), *torch.autograd.grad(y, tensors_in(args), cotangent)]


def _size(values: Tensor) -> float:
    return values.double().abs().max().item()


class Poison(TorchFunctionMode):
    """Fill float memory that is allocated uninitialised within the block with NaN."""

    ALLOCATORS = frozenset({torch.empty, torch.empty_like, torch.empty_strided, Tensor.new_empty})

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func in self.ALLOCATORS and result.is_floating_point():
            result.fill_(float("nan"))
        return result


def items(setup: Setup) -> Iterator[tuple[str, Iterator[Row]]]:
    """List every op in every dtype: its own cases in every layout, then LARGE; and `torch.library.opcheck`.

    A dry run only takes the first case of each op, in float32, and one opcheck.
    """
    first = 1 if setup.dry_run else None
    for dtype, op in product(DTYPES[:first], setup.ops):
        name = f"{op} in {label(dtype)}"
        yield name, _compare(op, dtype, module_of(op).CASES[:first], LAYOUTS[:first], setup.device)
        for shape in () if setup.dry_run else LARGE:
            yield f"{name} at {label(shape)}", _compare(op, dtype, [shape], ["channels_last"], setup.device)
    for op in setup.ops[:first]:
        yield f"{op}, opcheck", _opcheck(op, setup.device)


def _compare(
    op: str, dtype: torch.dtype, shapes: Sequence[Shape], layouts: Sequence[str], device: str
) -> Iterator[Row]:
    """One row: the comparison that uses up the largest share of its bound."""
    found = {
        f"{one.what} at {label(shape)}, {layout}": one
        for shape, layout in product(shapes, layouts)
        for one in verify(op, shape, dtype, layout, device)
    }
    worst = max(found, key=lambda name: found[name].share)
    error, bound = (value if math.isfinite(value) else str(value) for value in found[worst][1:])  # JSON has no NaN
    yield {"op": op, "dtype": label(dtype), "comparisons": len(found), "worst": worst, "error": error, "bound": bound}
    wrong = [f"{name}: {one.error:.3g} > {one.bound:.3g}" for name, one in found.items() if not one.holds]
    if wrong:
        raise AssertionError(f"{len(wrong)} errors exceed their bound: {'; '.join(wrong)}")


def _opcheck(op: str, device: str) -> Iterator[Row]:
    args = arguments(op, module_of(op).CASES[0], torch.float32, "contiguous", device)
    torch.library.opcheck(module_of(op).fused, args)  # raises what it finds
    yield {"op": op, "dtype": "float32", "worst": "passes torch.library.opcheck"}
