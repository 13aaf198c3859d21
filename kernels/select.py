"""The one place that decides whether an op runs as its PyTorch reference or as its Triton twin.

The decision looks at the mode and at the inputs, never at what happened before: an exception of a kernel is an error,
and under `mode("fused")` so is an input that a kernel cannot take.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

__all__ = ["DTYPES", "MODES", "UnsupportedError", "choose", "mode"]

MODES = ("auto", "fused", "reference")
DTYPES = (torch.float32, torch.float16, torch.bfloat16)

_TRITON = find_spec("triton") is not None
_INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"  # Triton's own variable, which it reads when imported too
_mode = "auto"


class UnsupportedError(RuntimeError):
    """`mode("fused")` was asked for, and the kernel cannot take the input; the message says why."""


@contextmanager
def mode(name: str) -> Iterator[None]:
    """How ops run within the block, in all threads: autograd and checkpointing run theirs in others.

    "auto": fused on CUDA where the kernel takes the input, else the reference. "fused": fused, or UnsupportedError.
    "reference": plain PyTorch. An export always traces the reference. Raises ValueError for another name.
    """
    global _mode
    if name not in MODES:
        raise ValueError(f"unknown mode '{name}'; choose one of: {', '.join(MODES)}")
    before, _mode = _mode, name
    try:
        yield
    finally:
        _mode = before


def choose(
    reference: Callable[..., Tensor],
    fused: Callable[..., Tensor],
    unsupported: Callable[..., str | None],
    *args: Any,
) -> Tensor:
    """Call `reference` or `fused`. `unsupported(*args)` says why the kernel cannot take the call, or None.

    Under autocast the twin gets all tensors in autocast's dtype, as a convolution does.
    """
    if _mode == "reference" or torch.compiler.is_exporting():
        return reference(*args)
    reason = _elsewhere(args[0])
    if reason is None:
        cast = _autocast(args)
        reason = _against(cast) or unsupported(*cast)
        if reason is None:
            return fused(*cast)
    if _mode == "fused":
        raise UnsupportedError(f"{reference.__name__} cannot run fused: {reason}")
    return reference(*args)


def _elsewhere(x: Tensor) -> str | None:
    """Why no kernel can run here at all."""
    if not _TRITON:
        return "the package 'triton' is not installed"
    if x.device.type != "cuda" and not (_mode == "fused" and _INTERPRETED):
        return f"the input is on '{x.device.type}'; kernels run on 'cuda'"
    return None


def _autocast(args: tuple[Any, ...]) -> tuple[Any, ...]:
    device = args[0].device.type
    if not torch.is_autocast_enabled(device):
        return args
    dtype = torch.get_autocast_dtype(device)
    return tuple(a.to(dtype) if isinstance(a, Tensor) and a.is_floating_point() else a for a in args)


def _against(args: tuple[Any, ...]) -> str | None:
    """What speaks against every kernel: the first argument is the one that moves the bytes."""
    x = args[0]
    if x.dtype not in DTYPES:
        return f"the input is {x.dtype}; kernels take {', '.join(str(d).removeprefix('torch.') for d in DTYPES)}"
    for a in args:
        if isinstance(a, Tensor) and (a.dtype, a.device) != (x.dtype, x.device):
            return f"an argument is {a.dtype} on {a.device}, the input {x.dtype} on {x.device}"
    if x.numel() == 0:
        return f"the input of shape {tuple(x.shape)} is empty"
    return None
