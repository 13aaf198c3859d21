"""Compiling kernels ahead of time, without a device: registers, spills and shared memory of what would be launched.

The launches are those that each op makes on example inputs. Needs Triton, and not in its interpreter.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor
from triton.backends import nvidia
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from pocketprior.kernels.primitives_triton import OPTIONS, Launch, recorded
from pocketprior.kernels.select import Shape, tensors_in

from .verify import arguments, module_of

__all__ = ["TARGETS", "Resources", "compiled", "launches"]

TARGETS = {
    "sm_80": GPUTarget("cuda", 80, 32),
    "sm_90": GPUTarget("cuda", 90, 32),
    "gfx942": GPUTarget("hip", "gfx942", 64),
}
CUOBJDUMP = Path(nvidia.__file__).parent / "bin" / "cuobjdump"
TYPES = {torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16"}
ALIGNMENT = [["tt.divisibility", 16]]


class Resources(NamedTuple):
    """What one kernel takes on one target."""

    registers: int  # per thread
    spilled: int  # bytes or, on AMD, registers per thread
    shared: int  # bytes per program


def launches(op: str, shape: Shape, dtype: torch.dtype) -> list[Launch]:
    """Return what `op` starts at this size, forward and backward. Nothing runs."""
    args = arguments(op, shape, dtype, "channels_last", "cpu")
    with recorded() as found:
        y = module_of(op).fused(*args)
        torch.autograd.grad(y, tensors_in(args), y.detach())
    return found


def compiled(launch: Launch, target: str) -> Resources:
    """Compile the kernel of a launch for a target of `TARGETS`, with the hints that the launch itself would give."""
    names = [p.name for p in launch.kernel.params if not p.is_constexpr]
    signature = dict(zip(names, map(_type, launch.arguments), strict=True))
    signature |= {p.name: "constexpr" for p in launch.kernel.params if p.is_constexpr}
    places = {p.name: (p.num,) for p in launch.kernel.params}
    hints = {places[n]: ALIGNMENT for n, a in zip(names, launch.arguments, strict=True) if _aligned(a)}
    source = ASTSource(launch.kernel, signature, {places[n]: v for n, v in launch.constants.items()}, hints)
    options = {"num_warps": launch.warps, "num_stages": launch.stages, **OPTIONS}
    return _resources(triton.compile(source, target=TARGETS[target], options=options))


def _type(argument: Any) -> str:
    if isinstance(argument, Tensor):
        return f"*{TYPES[argument.dtype]}"
    return "fp32" if isinstance(argument, float) else "i32"


def _aligned(argument: Any) -> bool:
    """Tensors start at multiples of 16 bytes; numbers as they are."""
    return isinstance(argument, Tensor) or (isinstance(argument, int) and argument % 16 == 0)


def _resources(kernel: Any) -> Resources:
    shared = kernel.metadata.shared
    if "amdgcn" in kernel.asm:
        registers, spilled = (
            _number(rf"\.{key}:\s*(\d+)", kernel.asm["amdgcn"]) for key in ("vgpr_count", "vgpr_spill_count")
        )
        return Resources(registers, spilled, shared)
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(kernel.asm["cubin"])
        file.flush()
        text = subprocess.run(
            [CUOBJDUMP, "--dump-resource-usage", file.name], capture_output=True, text=True, check=True
        )
    # Spilled registers live in local memory; Triton makes no other use of it.
    return Resources(_number(r"REG:(\d+)", text.stdout), _number(r"LOCAL:(\d+)|STACK:(\d+)", text.stdout), shared)


def _number(pattern: str, text: str) -> int:
    return max(int(next(filter(None, found.groups()))) for found in re.finditer(pattern, text))
