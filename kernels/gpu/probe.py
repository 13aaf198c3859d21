"""What the card can do at best: copies, matrix products, and the depthwise convolution that PyTorch has."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F

from ..bench import copy_bandwidth
from ..timing import Time, interleaved
from .stage import Item, Setup

__all__ = ["COPY", "KEY", "LEAST_S", "ROW", "Probe", "items"]

LEAST_S = 5.0
COPY = "copy"
COPIED = (2**30, 2**26)  # bytes: memory, and what a cache may hold in part
SIDE = 8192  # of the matrices
PRODUCTS = {"float32": torch.float32, "tf32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
WIDTHS = (32, 64, 128)  # channels of the depthwise convolution, of 8 pictures
PICTURE = 256  # side of them


@dataclass(frozen=True)
class Probe:
    """How fast one thing goes; bytes count read and written."""

    what: str
    size: str
    time: Time
    rate: float
    unit: str  # "GB/s" or "TFLOP/s"


ROW = Probe
KEY = ("what", "size")


def items(setup: Setup) -> Iterator[Item]:
    """Copies first: all that follows is measured by them."""
    small = setup.dry_run
    for size in COPIED[-1:] if small else COPIED:
        yield Item(f"copy of {size} bytes", partial(_copy, 2**16 if small else size, setup.device))
    for name in PRODUCTS:
        yield Item(f"product in {name}", partial(_product, name, 64 if small else SIDE, setup.device))
    for channels in WIDTHS:
        side = 8 if small else PICTURE
        yield Item(f"depthwise at {channels}", partial(_depthwise, channels, side, setup.device))


def _copy(size: int, device: str) -> Iterator[Probe]:
    time = copy_bandwidth(device, size)
    yield Probe(COPY, f"{size} bytes", time, 2e-6 * size / time.median, "GB/s")


def _product(name: str, side: int, device: str) -> Iterator[Probe]:
    a, b = (torch.randn(side, side, device=device, dtype=PRODUCTS[name]) for _ in range(2))
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = name == "tf32"
    try:
        time = interleaved({name: partial(torch.mm, a, b)}, device, 10)[name]
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before
    yield Probe(f"matrix product, {name}", f"{side} x {side}", time, 2e-9 * side**3 / time.median, "TFLOP/s")


def _depthwise(channels: int, side: int, device: str) -> Iterator[Probe]:
    x = torch.randn(8, channels, side, side, device=device, dtype=torch.bfloat16)
    x = x.contiguous(memory_format=torch.channels_last)
    weight = torch.randn(channels, 1, 3, 3, device=device, dtype=torch.bfloat16)
    call = partial(F.conv2d, x, weight, padding=1, groups=channels)
    time = interleaved({"depthwise": call}, device, 20)["depthwise"]
    rate = 2e-6 * x.numel() * x.element_size() / time.median
    yield Probe("depthwise 3x3, bfloat16, channels_last", f"8x{channels}x{side}x{side}", time, rate, "GB/s")
