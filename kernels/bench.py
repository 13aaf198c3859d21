"""How fast the ops are, beside what PyTorch makes of their references, and how near to what memory allows.

    python -m pocketprior.kernels.bench [OP ...]        on a machine with a GPU

Every op of `OPS` at `cases.LARGE`, forward and forward with backward, in one interleaved run (`timing`), each way as a
CUDA graph. An op that `verify` finds wrong at a size gets no number there.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from . import OPS
from .cases import LARGE, Case
from .launch_triton import Launch, recorded
from .select import mode
from .timing import Call, Time, graphed, interleaved
from .verify import arguments, module_of, verify

__all__ = [
    "WAYS",
    "Measured",
    "Memory",
    "Traffic",
    "UnverifiedError",
    "bench",
    "copy_bandwidth",
    "main",
    "saved_by_reference",
    "traffic",
]

WAYS = ("fused", "eager", "channels_last", "compiled")  # reference: eager in both layouts, torch.compile max-autotune
PASSES = ("forward", "both")
ROUNDS = 50
COPIED = 2**30  # bytes of the array whose copy says what bandwidth can be had
PROFILED = 10  # calls that times of single kernels are means of

Function = Callable[..., Any]  # a tensor, or several of which the first is the result


class UnverifiedError(RuntimeError):
    """The twin is wrong at this size, so how fast it is says nothing; the message says by how much."""


@dataclass(frozen=True)
class Traffic:
    """What the kernels of one call move at least, by count: every array that a kernel is given, once. In bytes."""

    forward: int
    backward: int
    saved: int  # kept from forward to backward, beside arguments and result
    kernels: Mapping[str, int]  # one start of each, the mean over those of this name


@dataclass(frozen=True)
class Memory:
    """Bytes, beyond the arguments: kept from forward to backward without the result, and the most at any time."""

    saved: int
    peak: int


@dataclass(frozen=True)
class Measured:
    """One op at one size, forward or both passes."""

    op: str
    case: str
    dtype: str
    passes: str  # of PASSES
    timed: str  # "graph": as CUDA graphs; else why the calls were timed as they are
    times: Mapping[str, Time]  # by way
    bytes: int  # by count, as in `Traffic`
    share: float | None  # of the copy bandwidth, that the twin reaches with these bytes
    memory: Mapping[str, Memory]  # by way; empty for the forward pass
    kernels: Mapping[str, float]  # share of the copy bandwidth of each kernel of the twin; empty for the forward pass


def copy_bandwidth(device: str = "cuda", size: int = COPIED, rounds: int = ROUNDS) -> Time:
    """How long the device copies an array of `size` bytes; it then moves twice as many."""
    source = torch.randint(0, 100, (size,), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return interleaved({"copy": partial(target.copy_, source)}, device, rounds)["copy"]


def traffic(op: str, case: Case, dtype: torch.dtype, device: str = "cpu") -> Traffic:
    """Counted from what the op would start; nothing runs."""
    args = arguments(op, case, dtype, "channels_last", device)
    with recorded() as forward:
        y, saved = _forward_and_saved(module_of(op).fused, args)
    with recorded() as backward:
        torch.autograd.grad(y, _tensors(args), y.detach())
    starts: dict[str, list[int]] = {}
    for launch in (*forward, *backward):
        starts.setdefault(launch.kernel.fn.__name__, []).append(_moved(launch))
    kernels = {name: sum(each) // len(each) for name, each in starts.items()}
    return Traffic(sum(map(_moved, forward)), sum(map(_moved, backward)), saved, kernels)


def saved_by_reference(op: str, case: Case, dtype: torch.dtype) -> int:
    """Bytes that plain PyTorch keeps from forward to backward, beside arguments and result."""
    return _forward_and_saved(module_of(op).reference, arguments(op, case, dtype, "channels_last", "cpu"))[1]


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
        found = function(*args)
    y = found if isinstance(found, Tensor) else found[0]  # what follows is kept for the backward pass
    given = {t.untyped_storage().data_ptr() for t in (y, *_tensors(args))}
    return y, sum(size for place, size in kept.items() if place not in given)


def bench(
    op: str, case: Case, dtype: torch.dtype, bandwidth: float | None, device: str = "cuda", rounds: int = ROUNDS
) -> list[Measured]:
    """Both `PASSES` at one size. bandwidth: bytes a second that a copy moves, read and written, None for not known.

    Raises UnverifiedError. On another device than "cuda" this is a rehearsal: the twin is the reference, which needs no
    proof, nothing is compiled but traced, and memory is not looked at.
    """
    if device == "cuda":
        _prove(op, case, dtype)
    counted = traffic(op, case, dtype)
    torch.compiler.reset()  # or the eighth size would be too many
    ways = _ways(op, case, dtype, device)
    found = []
    for passes, call_of, moved in zip(
        PASSES, (_forward, _both), (counted.forward, counted.forward + counted.backward), strict=True
    ):
        calls = {name: call_of(function, args) for name, (function, args) in ways.items()}
        both = passes == "both" and device == "cuda"
        memory = {name: _memory(*way) for name, way in ways.items()} if both else {}
        kernels = _kernel_shares(calls["fused"], counted.kernels, bandwidth) if both else {}
        timed, calls = _graphs(calls) if device == "cuda" else ("on a CPU", calls)
        times = interleaved(calls, device, rounds)
        share = moved / (1e-3 * times["fused"].median) / bandwidth if bandwidth else None
        found.append(Measured(op, str(case), _name(dtype), passes, timed, times, moved, share, memory, kernels))
    return found


def _prove(op: str, case: Case, dtype: torch.dtype) -> None:
    wrong = [found for found in verify(op, case, dtype, "channels_last") if not found.holds]
    if wrong:
        raise UnverifiedError(f"{op} at {case} in {_name(dtype)} is wrong, so it is not timed: {wrong[0]}")


def _ways(op: str, case: Case, dtype: torch.dtype, device: str) -> dict[str, tuple[Function, list[Any]]]:
    """A function and its arguments for each of WAYS."""
    module = module_of(op)
    planar, last = (arguments(op, case, dtype, layout, device) for layout in ("contiguous", "channels_last"))

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
    return lambda: torch.autograd.grad(function(*args), _tensors(args), cotangent)


def _graphs(calls: Mapping[str, Call]) -> tuple[str, dict[str, Call]]:
    """All of the calls as graphs or, with the reason, none: they are to be compared."""
    try:
        return "graph", {name: graphed(call) for name, call in calls.items()}
    except RuntimeError as error:
        return f"as calls, for they cannot be captured: {error}", dict(calls)


def _memory(function: Function, args: Sequence[Any]) -> Memory:
    _both(function, args)()  # compilation and autotuning need memory of their own
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    y = function(*args)
    saved = torch.cuda.memory_allocated() - before - y.untyped_storage().nbytes()
    torch.autograd.grad(y, _tensors(args), torch.ones_like(y))
    return Memory(saved, torch.cuda.max_memory_allocated() - before)


def _kernel_shares(call: Call, moved: Mapping[str, int], bandwidth: float | None) -> dict[str, float]:
    """How near each kernel comes to the copy bandwidth, from the profiler's times."""
    if not bandwidth:
        return {}
    with profile(activities=[ProfilerActivity.CUDA]) as profiled:
        for _ in range(PROFILED):
            call()
        torch.cuda.synchronize()
    microseconds = {event.key: event.device_time_total / event.count for event in profiled.key_averages()}
    times = {name: 1e-6 * microseconds[name] for name in moved if microseconds.get(name, 0) > 0}
    return {name: moved[name] / seconds / bandwidth for name, seconds in times.items()}


def _tensors(args: Sequence[Any]) -> list[Tensor]:
    return [a for a in args if isinstance(a, Tensor)]


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def main(argv: Sequence[str] | None = None) -> int:
    """The command; prints one JSON object per line and returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m pocketprior.kernels.bench", description=__doc__)
    parser.add_argument("ops", nargs="*", metavar="OP", help=f"of: {', '.join(OPS)} (default: all)")
    chosen = parser.parse_args(argv).ops or list(OPS)
    if not torch.cuda.is_available():
        parser.error("there is no CUDA device here; times of anything else would say nothing")
    unknown = sorted(set(chosen) - set(OPS))
    if unknown:
        parser.error(f"unknown op '{unknown[0]}'; choose from: {', '.join(OPS)}")
    bandwidth = 2 * COPIED / (1e-3 * copy_bandwidth().median)
    wrong = 0
    for op in chosen:
        for case in LARGE:
            try:
                for row in bench(op, case, torch.bfloat16, bandwidth):
                    print(json.dumps(asdict(row)), flush=True)
            except UnverifiedError as error:
                print(f"error: {error}", file=sys.stderr)
                wrong += 1
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
