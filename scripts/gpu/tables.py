"""The tables of docs/kernels.md, which stand there between marks: what is known of the ops without a GPU.

Kernels are compiled ahead of time, without a device: registers, spills and shared memory of what each op launches on
example inputs. Needs Triton, and not in its interpreter.
"""

from __future__ import annotations

import inspect
import math
import re
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor
from triton.backends import nvidia
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from pocketprior.core.errors import UsageError
from pocketprior.core.files import write_text
from pocketprior.core.markdown import table
from pocketprior.kernels import OPS
from pocketprior.kernels.primitives_triton import OPTIONS, Launch
from pocketprior.kernels.select import DTYPES, Shape

from .bench import launches, saved_by_reference, traffic
from .verify import module_of

PAGE = Path("docs") / "kernels.md"  # in the clone
WIDTHS = (32, 64, 128)
DTYPE = torch.bfloat16
MOVED: Shape = (1, 64, 256, 256)  # what counts are taken at
SMALL: Shape = (1, 64, 64, 64)  # at which PyTorch's own reference is run; in S it is the same
SIDE = 64  # of the images that kernels are compiled for
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


def write_tables(root: Path) -> None:
    """Look up, count and compile, and write what was found into the page; takes minutes."""
    write(root, {"ops": _ops(), "counted": _traffic(), "ahead": _resources()})


def write(root: Path, texts: Mapping[str, str]) -> None:
    """Replace what stands between the marks of each name in docs/kernels.md.

    Raises:
        UsageError: if the page lacks the marks of a name.
    """
    page = (root / PAGE).read_text(encoding="utf-8")
    for name, text in texts.items():
        before, start, rest = page.partition(f"<!-- {name} -->\n")
        _, end, after = rest.partition(f"<!-- /{name} -->")
        if not end:
            raise UsageError(
                f"{PAGE} has no <!-- {name} --> ... <!-- /{name} -->; put them back where the table belongs"
            )
        page = f"{before}{start}\n{text}\n\n{end}{after}"
    write_text(root / PAGE, page)


def blocks(page: str) -> dict[str, str]:
    """Return what stands between the marks of a page, by name."""
    return {name: text.strip() for name, text in re.findall(r"<!-- (\w+) -->\n(.*?)<!-- /\1 -->", page, re.DOTALL)}


def _ops() -> str:
    """Each op by the docstrings of its two modules."""
    modules = ((op, module_of(op), module_of(f"{op}_triton")) for op in OPS)
    return "\n\n".join(f"### `{op}`\n\n{inspect.getdoc(a)}\n\n{inspect.getdoc(b)}" for op, a, b in modules)


def _traffic() -> str:
    lines: list[tuple[str, ...]] = [("op", "forward", "backward", "saved", "saved by PyTorch")]
    for op in OPS:
        counts = [count / _bytes(MOVED) for count in traffic(op, MOVED, DTYPE)]
        counts.append(saved_by_reference(op, SMALL, DTYPE) / _bytes(SMALL))
        lines.append((f"`{op}`", *(f"{count:.1f} S" for count in counts)))
    return table(lines, 1)


def _bytes(shape: Shape) -> int:
    return math.prod(shape) * DTYPE.itemsize


def _resources() -> str:
    head = ("op", "kernel", "C", *TARGETS, "spills")
    return table([head, *(line for op in OPS for width in WIDTHS for line in _lines(op, width))], 2)


def _lines(op: str, width: int) -> Iterator[tuple[str, ...]]:
    """One line per kernel of the op: what it takes in DTYPE, and what it spills in any dtype."""
    found = {dtype: _taken(op, width, dtype) for dtype in DTYPES}
    for kernel, taken in found[DTYPE].items():
        cells = (f"{r.registers}, {r.shared / 1024:.1f} KiB" for r in taken.values())
        every = [each[kernel] for each in found.values() if kernel in each]
        most = {target: max(each[target].spilled for each in every) for target in taken}
        spilled = ", ".join(f"{target}: {count}" for target, count in most.items() if count)
        yield f"`{op}`", f"`{kernel}`", str(width), *cells, spilled or "0"


def _taken(op: str, width: int, dtype: torch.dtype) -> dict[str, dict[str, Resources]]:
    """Kernel -> target -> the most that any of its starts takes."""
    found: dict[str, dict[str, Resources]] = {}
    for launch in started(op, (1, width, SIDE, SIDE), dtype):
        taken = found.setdefault(launch.kernel.fn.__name__, {})
        for target in TARGETS:
            new = compiled(launch, target)
            taken[target] = Resources(*map(max, zip(new, taken.get(target, new), strict=True)))
    return found


def started(op: str, shape: Shape, dtype: torch.dtype) -> list[Launch]:
    """Return what `op` starts at this size, forward and backward."""
    forward, backward, _ = launches(op, shape, dtype)
    return forward + backward


def compiled(launch: Launch, target: str) -> Resources:
    """Compile the kernel of a launch for a target of `TARGETS`, with the hints that the launch itself would give."""
    names = [p.name for p in launch.kernel.params if not p.is_constexpr]
    given = dict(zip(names, launch.arguments, strict=True))
    signature = {name: _type(argument) for name, argument in given.items()}
    signature |= {p.name: "constexpr" for p in launch.kernel.params if p.is_constexpr}
    places = {p.name: (p.num,) for p in launch.kernel.params}
    hints = {places[name]: ALIGNMENT for name, argument in given.items() if _aligned(argument)}
    source = ASTSource(launch.kernel, signature, {places[n]: v for n, v in launch.constants.items()}, hints)
    options = {"num_warps": launch.warps, "num_stages": launch.stages, **OPTIONS}
    return _resources_of(triton.compile(source, target=TARGETS[target], options=options))


def _type(argument: Any) -> str:
    if isinstance(argument, Tensor):
        return f"*{TYPES[argument.dtype]}"
    return "fp32" if isinstance(argument, float) else "i32"


def _aligned(argument: Any) -> bool:
    """Tensors start at multiples of 16 bytes; numbers as they are."""
    return isinstance(argument, Tensor) or (isinstance(argument, int) and argument % 16 == 0)


def _resources_of(kernel: Any) -> Resources:
    if "amdgcn" in kernel.asm:
        text, patterns = kernel.asm["amdgcn"], (r"\.vgpr_count:\s*(\d+)", r"\.vgpr_spill_count:\s*(\d+)")
    else:
        with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
            file.write(kernel.asm["cubin"])
            file.flush()
            command = [CUOBJDUMP, "--dump-resource-usage", file.name]
            text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        # Spilled registers live in local memory; Triton makes no other use of it.
        patterns = (r"REG:(\d+)", r"(?:LOCAL|STACK):(\d+)")
    registers, spilled = (max(map(int, re.findall(pattern, text))) for pattern in patterns)
    return Resources(registers, spilled, kernel.metadata.shared)
