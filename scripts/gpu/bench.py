"""How fast the ops are compared with what PyTorch makes of their references, and how near to what memory allows.

Every op at `verify.LARGE` in bfloat16, forward and forward with backward, in one interleaved run, each way as a CUDA
graph. An op that `verify` finds wrong at a size is not timed there.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor

from pocketprior.kernels.primitives_triton import Launch, recorded
from pocketprior.kernels.select import Shape, mode, tensors_in

from .command import Row, Setup
from .verify import LARGE, arguments, label, module_of, verify

WAYS = ("fused", "eager", "channels_last", "compiled")  # reference: eager in both layouts, torch.compile max-autotune
ROUNDS = 50
WARM_UP = 3  # calls of each before any counts: compilation, autotuning, the allocator
FLUSHED = 2**28  # bytes that are written before each timed call: more than any cache holds
COPIED = 2**30  # bytes of the array whose copy shows the bandwidth that can be reached
TRIAL: Shape = (1, 16, 4, 4)  # of a dry run

Call: TypeAlias = Callable[[], object]
Function: TypeAlias = Callable[..., Tensor]


class Traffic(NamedTuple):
    """What the kernels of one call move at least, in bytes: every array that a kernel takes or writes, once."""

    forward: int
    backward: int
    saved: int  # kept from forward to backward, in addition to arguments and result


def launches(op: str, shape: Shape, dtype: torch.dtype) -> tuple[list[Launch], list[Launch], int]:
    """Return what `op` would start forward and backward, and the bytes that it keeps in between. Nothing runs."""
    args = arguments(op, shape, dtype, "channels_last", "cpu")
    with recorded() as forward:
        y, saved = _result_and_saved(module_of(op).fused, args)
    with recorded() as backward:
        torch.autograd.grad(y, tensors_in(args), y.detach())
    return forward, backward, saved


def traffic(op: str, shape: Shape, dtype: torch.dtype) -> Traffic:
    """Count what an op would move, from the kernels that it would start."""
    forward, backward, saved = launches(op, shape, dtype)
    return Traffic(sum(map(_moved, forward)), sum(map(_moved, backward)), saved)


def saved_by_reference(op: str, shape: Shape, dtype: torch.dtype) -> int:
    """Return the bytes that plain PyTorch keeps from forward to backward, in addition to arguments and result."""
    return _result_and_saved(module_of(op).reference, arguments(op, shape, dtype, "channels_last", "cpu"))[1]


def _moved(launch: Launch) -> int:
    arrays = {a.data_ptr(): a.numel() * a.element_size() for a in launch.arguments if isinstance(a, Tensor)}
    return sum(arrays.values())


def _result_and_saved(function: Function, args: Sequence[Any]) -> tuple[Tensor, int]:
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
    """Measure an op at one size: a row for the forward pass, and one for both passes.

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
    both = counted.forward + counted.backward
    for passes, call_of, moved in (("forward", _forward, counted.forward), ("both", _both, both)):
        calls = {name: call_of(*way) for name, way in ways.items()}
        memory = {name: _memory(*way) for name, way in ways.items()} if on_gpu and passes == "both" else {}
        times = interleaved({n: graphed(c) for n, c in calls.items()} if on_gpu else calls, device, rounds)
        median, low, high = times["fused"]
        yield {
            "op": op,
            "size": f"{label(shape)} {label(dtype)}",
            "pass": passes,
            **{f"{name} ms": found[0] for name, found in times.items()},
            "low": low,
            "high": high,
            "of copy": moved / (1e-3 * median) / bandwidth,
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
    ways = ((fused, last), (module.reference, planar), (module.reference, last), (compiled, last))
    return dict(zip(WAYS, ways, strict=True))


def _forward(function: Function, args: Sequence[Any]) -> Call:
    return torch.no_grad()(partial(function, *args))


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


def interleaved(calls: Mapping[str, Call], device: str, rounds: int) -> dict[str, list[float]]:
    """Time each of the calls once a round, so that all of them meet the same state of the machine.

    Each round starts with another of them. On a GPU, which is timed by its own events, the cache is filled with
    something else before each call.

    Returns:
        Milliseconds of each call: the median over the rounds, and the 10th and 90th percentile.
    """
    for call in calls.values():
        for _ in range(WARM_UP if device == "cuda" else 1):
            call()
    cache = torch.empty(FLUSHED if device == "cuda" else 0, dtype=torch.int8, device=device)
    names = list(calls)
    found: dict[str, list[float]] = {name: [] for name in names}
    for i in range(rounds):
        first = i % len(names)
        for name in names[first:] + names[:first]:
            found[name].append(_milliseconds(calls[name], cache))
    shares = torch.tensor([0.5, 0.1, 0.9], dtype=torch.float64)
    return {name: torch.tensor(each, dtype=torch.float64).quantile(shares).tolist() for name, each in found.items()}


def _milliseconds(call: Call, cache: Tensor) -> float:
    if not cache.is_cuda:
        begin = time.perf_counter()
        call()
        return 1e3 * (time.perf_counter() - begin)
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    cache.zero_()  # takes longer than Python needs to start the call: the GPU does not wait in between
    start.record()
    call()
    end.record()
    end.synchronize()
    return start.elapsed_time(end)


def graphed(call: Call) -> Call:
    """Return the same work as a CUDA graph: what is timed is then the device, not how fast Python starts kernels.

    Raises:
        RuntimeError: for work that cannot be captured.
    """
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(WARM_UP):
            call()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        kept = call()

    def replay() -> object:
        graph.replay()
        return kept

    return replay


def items(setup: Setup) -> Iterator[tuple[str, Iterator[Row]]]:
    """List every op at every size; a dry run takes one tiny size."""
    shapes, dtype, rounds, copied = LARGE, torch.bfloat16, ROUNDS, COPIED
    if setup.dry_run:
        shapes, dtype, rounds, copied = (TRIAL,), torch.float32, 1, 2**16
    source = torch.randint(0, 100, (copied,), dtype=torch.uint8, device=setup.device)
    copy = partial(torch.empty_like(source).copy_, source)
    bandwidth = 2 * copied / (1e-3 * interleaved({"copy": copy}, setup.device, ROUNDS)["copy"][0])
    for shape in shapes:
        for op in setup.ops:
            yield f"{op} at {label(shape)}", bench(op, shape, dtype, bandwidth, setup.device, rounds)
