"""Whole models: one step of training and one restoration, by the kernels, by plain PyTorch and by torch.compile."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...core.models import diffir, dtpm, gen2res
from ...core.models.dirformer import DirformerConfig
from ...core.models.semantic import SemanticConfig
from ...core.sampling.schedule import cosine, trailing
from ..select import mode
from ..timing import Time, interleaved
from .stage import Item, LeftOutError, Setup

__all__ = ["KEY", "LEAST_S", "ROW", "WAYS", "ModelTime", "items"]

LEAST_S = 30.0
WAYS = ("fused", "reference", "compiled", "compiled_fused")  # compiled: torch.compile of the reference
EAGER = WAYS[:2]  # need no compilation: measured for every model before any is compiled
SIZES = (
    ("dtpm", "base"), ("dtpm", "paper"), ("diffir", "mobile"), ("diffir", "deblur"), ("gen2res", "base"),
    ("gen2res", "paper"),
)  # fmt: skip
TRAINED, RESTORED = (8, 256), (1, 512)  # pictures and their side, pixels
ROUNDS = 10
DRY = {
    "dtpm": dtpm.DtpmConfig(
        dtpm.PredictorConfig("naf", (8, 8), (1, 1)),
        dtpm.DenoiserConfig("naf", (8, 8), (1, 1), (1,), 1.0, embedding=16, adapter_minimum=4),
        SemanticConfig(size=16, code=6, widths=(8, 8)),
    ),
    "diffir": diffir.DiffirConfig(
        ipr=6,
        cpen=diffir.CpenConfig(4, 1),
        dirformer=DirformerConfig(width=8, blocks=(1, 1), heads=(1, 2), refinement=0),
    ),
    "gen2res": gen2res.Gen2ResConfig(widths=(8, 8), blocks=1, attention=(), embedding=16, groups=4, dropout=0.0),
}


@dataclass(frozen=True)
class ModelTime:
    """One model, training or restoring, under bfloat16 autocast, channels_last."""

    system: str
    size: str
    work: str  # "training": forward, backward and AdamW; "restoring": forward of the whole system
    pictures: str
    times: Mapping[str, Time]  # by way
    peak: Mapping[str, int]  # bytes allocated at most, the model's own included, by way; empty without a GPU


ROW = ModelTime
KEY = ("system", "size", "work")


class _Work(NamedTuple):
    """A model with its two functions; both take no arguments."""

    model: nn.Module
    loss: Callable[[], Tensor]
    restore: Callable[[], Tensor]


def items(setup: Setup) -> Iterator[Item]:
    """Every model without compilation, then every model with."""
    sizes = [(system, "dry") for system in DRY] if setup.dry_run else SIZES
    for ways in (EAGER,) if setup.dry_run else (EAGER, WAYS):
        for system, size in sizes:
            for work in ("training", "restoring"):
                name = f"{work} {system}:{size}, {'compiled' if ways == WAYS else 'eager'}"
                yield Item(name, partial(_measured, system, size, work, ways, setup.device))


def _measured(system: str, size: str, work: str, ways: tuple[str, ...], device: str) -> Iterator[ModelTime]:
    count, side = (1, 16) if size == "dry" else TRAINED if work == "training" else RESTORED
    torch.compiler.reset()
    try:
        made = _made(system, size, count, side, device)
        call_of = partial(_training, made) if work == "training" else partial(_restoring, made)
        calls = {way: partial(_in_mode, way, call) for way, call in zip(ways, call_of(ways, device), strict=True)}
        peak = {way: _peak(call) for way, call in calls.items()} if device == "cuda" else {}
        times = interleaved(calls, device, 2 if size == "dry" else ROUNDS)
    except torch.OutOfMemoryError as error:
        raise LeftOutError(f"it does not fit this device: {error}") from None
    yield ModelTime(system, size, work, f"{count} of {side} x {side}", times, peak)


def _in_mode(way: str, call: Callable[[], object]) -> None:
    with mode("auto" if way in ("fused", "compiled_fused") else "reference"):
        call()


def _training(made: _Work, ways: Sequence[str], device: str) -> Iterator[Callable[[], object]]:
    """One step for each way; they share the optimiser, whose state is a part of the memory."""
    optimizer = torch.optim.AdamW(made.model.parameters(), lr=1e-6, fused=True)

    def step(loss: Callable[[], Tensor]) -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device, torch.bfloat16):
            value = loss()
        value.backward()
        optimizer.step()

    return (partial(step, _compiled(way, made.loss)) for way in ways)


def _restoring(made: _Work, ways: Sequence[str], device: str) -> Iterator[Callable[[], object]]:
    def restore(forward: Callable[[], Tensor]) -> None:
        with torch.no_grad(), torch.autocast(device, torch.bfloat16):
            forward()

    return (partial(restore, _compiled(way, made.restore)) for way in ways)


def _compiled(way: str, function: Callable[[], Tensor]) -> Callable[[], Tensor]:
    """The kernels must not break the graph; what plain PyTorch does is its own affair."""
    if not way.startswith("compiled"):
        return function
    return torch.compile(function, dynamic=False, fullgraph=way == "compiled_fused")


def _peak(call: Callable[[], object]) -> int:
    call()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    call()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated()


def _made(system: str, size: str, count: int, side: int, device: str) -> _Work:
    """The model with random weights, none of which is zero, and its work on random pictures."""
    torch.manual_seed(0)
    work = {"dtpm": _dtpm, "diffir": _diffir, "gen2res": _gen2res}[system](size, count, side, device)
    work.model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    with torch.no_grad():
        for parameter in work.model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return work


def _pictures(count: int, side: int, device: str) -> Tensor:
    return torch.rand(count, 3, side, side, device=device).contiguous(memory_format=torch.channels_last)


def _dtpm(size: str, count: int, side: int, device: str) -> _Work:
    model = dtpm.Dtpm(DRY["dtpm"] if size == "dry" else dtpm.CONFIGS[size])
    image, clean, x = (_pictures(count, side, device) for _ in range(3))
    code, t = torch.randn(count, model.config.semantic.code, device=device), torch.rand(count, device=device)
    levels, times = trailing(4, cosine())
    strength = torch.ones(count, device=device)

    def loss() -> Tensor:
        base = model.predictor(image).float()
        predicted = model.denoise(x, image, base.detach(), code, t)
        return F.mse_loss(predicted.float(), clean - base.detach()) + F.l1_loss(base, clean)

    return _Work(model, loss, lambda: model(image, code, x, strength, levels, times))


def _diffir(size: str, count: int, side: int, device: str) -> _Work:
    model = diffir.Diffir(DRY["diffir"] if size == "dry" else diffir.CONFIGS[size])
    image, clean = (_pictures(count, side, device) for _ in range(2))
    noise = torch.randn(count, model.config.ipr, device=device)

    def loss() -> Tensor:
        prior = model.prior(model.condition(image), noise)
        return F.l1_loss(model.restore(image, prior).float(), clean)

    return _Work(model, loss, lambda: model(image, noise))


def _gen2res(size: str, count: int, side: int, device: str) -> _Work:
    """Restoring: one step of it."""
    model = gen2res.Denoiser(DRY["gen2res"] if size == "dry" else gen2res.CONFIGS[size])
    x, noise = (_pictures(count, side, device) for _ in range(2))
    t = torch.rand(count, device=device)

    def loss() -> Tensor:
        return F.mse_loss(model(x, t).chunk(2, dim=1)[0].float(), noise)

    return _Work(model, loss, lambda: model(x, t))
