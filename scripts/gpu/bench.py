"""How fast the ops are compared with what PyTorch makes of their references, and how near to what memory allows.

Every op at `verify.LARGE` in bfloat16, forward and forward with backward, in one interleaved run (`timing`), each way
as a CUDA graph. An op that `verify` finds wrong at a size is not timed there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor

from pocketprior.kernels.primitives_triton import Launch, recorded
from pocketprior.kernels.select import Shape, mode, tensors_in

from .results import Item, Row, Setup
from .timing import Call, graphed, interleaved
from .verify import LARGE, arguments, label, module_of, verify

__all__ = ["WAYS", "Traffic", "bench", "items", "saved_by_reference", "traffic"]

WAYS = ("fused", "eager", "channels_last", "compiled")  # reference: eager in both layouts, torch.compile max-autotune
PASSES = ("forward", "both")
ROUNDS = 50
COPIED = 2**30  # bytes of the array whose copy shows the bandwidth that can be reached
TRIAL: Shape = (1, 16, 4, 4)  # of a dry run

Function: TypeAlias = Callable[..., Tensor]


class Traffic(NamedTuple):
    """What the kernels of one call move at least, in bytes: every array that a kernel takes or writes, once."""

    forward: int
    backward: int
    saved: int  # kept from forward to backward, in addition to arguments and result


def traffic(op: str, shape: Shape, dtype: torch.dtype, device: str = "cpu") -> Traffic:
    """Count what an op would move, from the kernels that it would start; nothing runs."""
    args = arguments(op, shape, dtype, "channels_last", device)
    with recorded() as forward:
        y, saved = _forward_and_saved(module_of(op).fused, args)
    with recorded() as backward:
        torch.autograd.grad(y, tensors_in(args), y.detach())
    return Traffic(sum(map(_moved, forward)), sum(map(_moved, backward)), saved)


def saved_by_reference(op: str, shape: Shape, dtype: torch.dtype) -> int:
    """Return the bytes that plain PyTorch keeps from forward to backward, in addition to arguments and result."""
    return _forward_and_saved(module_of(op).reference, arguments(op, shape, dtype, "channels_last", "cpu"))[1]


def _moved(launch: Launch) -> int:
    arrays = {a.data_ptr(): a.numel() * a.element_size() for a in launch.arguments if isinstance(a, Tensor)}
    return sum(arrays.values())


def _forward_and_saved(function: Function, args: Sequence[Any]) -> tuple[Tensor, int]:
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        y = function(*args)
    given = {t.untyped_storage().data_ptr() for t in (y, *tensors_in(args))}
    return y, sum(size for place, size in kept.items() if place not in given)


def bench(
    op: str, shape: Shape, dtype: torch.dtype, bandwidth: float, device: str = "cuda", rounds: int = ROUNDS
) -> Iterator[Row]:
    """Measure an op at one size: a row for each of `PASSES`.

    A row holds the milliseconds of each way, the 10th and 90th percentile of the fused one, and the share of
    `bandwidth`, the bytes a second that a copy reads and writes, which it reaches with the bytes of `Traffic`; for both
    passes, and each way, also the bytes kept for the backward pass and the peak, in addition to the arguments. On
    another device than "cuda" this is a rehearsal: it times the reference in place of the kernel, traces instead of
    compiling, and does not look at memory.

    Raises:
        AssertionError: if the kernel is wrong at this size, so that its speed would say nothing.
    """
    on_gpu = device == "cuda"
    wrong = [found for found in verify(op, shape, dtype, "channels_last") if not found.holds] if on_gpu else []
    if wrong:
        raise AssertionError(f"{op} at {label(shape)} in {label(dtype)} is wrong, so it is not timed: {wrong[0]}")
    counted = traffic(op, shape, dtype)
    torch.compiler.reset()  # torch.compile gives up after eight sizes
    ways = _ways(op, shape, dtype, device)
    for passes, call_of, moved in zip(
        PASSES, (_forward, _both), (counted.forward, counted.forward + counted.backward), strict=True
    ):
        calls = {name: call_of(function, args) for name, (function, args) in ways.items()}
        memory = {name: _memory(*way) for name, way in ways.items()} if on_gpu and passes == "both" else {}
        times = interleaved({n: graphed(c) for n, c in calls.items()} if on_gpu else calls, device, rounds)
        ours = times["fused"]
        yield {
            "op": op,
            "size": f"{label(shape)} {label(dtype)}",
            "pass": passes,
            **{f"{name} ms": time.median for name, time in times.items()},
            "low": ours.low,
            "high": ours.high,
            "of copy": moved / (1e-3 * ours.median) / bandwidth,
            **{f"{name} {what}": count for name, found in memory.items() for what, count in found.items()},
        }


def _ways(op: str, shape: Shape, dtype: torch.dtype, device: str) -> dict[str, tuple[Function, Sequence[Any]]]:
    """A function and its arguments for each of WAYS."""
    module = module_of(op)
    planar, last = (arguments(op, shape, dtype, layout, device) for layout in ("contiguous", "channels_last"))

    def fused(*args: Any) -> Tensor:
        with mode("fused" if device == "cuda" else "auto"):
            return getattr(module, op)(*args)

    # The graph that max-autotune would capture is captured here, as for the other ways.
    how: dict[str, Any] = {"mode": "max-autotune-no-cudagraphs"} if device == "cuda" else {"backend": "eager"}
    compiled = torch.compile(module.reference, dynamic=False, fullgraph=True, **how)
    functions = (fused, module.reference, module.reference, compiled)
    return dict(zip(WAYS, zip(functions, (last, planar, last, last), strict=True), strict=True))


def _forward(function: Function, args: Sequence[Any]) -> Call:
    def call() -> Tensor:
        with torch.no_grad():
            return function(*args)

    return call


def _both(function: Function, args: Sequence[Any]) -> Call:
    cotangent = torch.randn_like(_forward(function, args)())  # type: ignore[call-overload]
    return lambda: torch.autograd.grad(function(*args), tensors_in(args), cotangent)


def _memory(function: Function, args: Sequence[Any]) -> dict[str, int]:
    _both(function, args)()  # compilation and autotuning need memory of their own
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    y = function(*args)
    saved = torch.cuda.memory_allocated() - before - y.untyped_storage().nbytes()
    torch.autograd.grad(y, tensors_in(args), torch.ones_like(y))
    return {"saved": saved, "peak": torch.cuda.max_memory_allocated() - before}


def items(setup: Setup) -> Iterator[Item]:
    """List every op at every size; a dry run takes one tiny size."""
    dtype, rounds = (torch.float32, 1) if setup.dry_run else (torch.bfloat16, ROUNDS)
    bandwidth = _copy_bandwidth(setup.device, 2**16 if setup.dry_run else COPIED)
    for shape in (TRIAL,) if setup.dry_run else LARGE:
        for op in setup.ops:
            yield Item(f"{op} at {label(shape)}", partial(bench, op, shape, dtype, bandwidth, setup.device, rounds))


def _copy_bandwidth(device: str, size: int) -> float:
    """Bytes a second that the device reads and writes while it copies an array of `size` bytes."""
    source = torch.randint(0, 100, (size,), dtype=torch.uint8, device=device)
    copy = partial(torch.empty_like(source).copy_, source)
    return 2 * size / (1e-3 * interleaved({"copy": copy}, device, ROUNDS)["copy"].median)
