"""Images and metadata to put into files."""

from __future__ import annotations

import struct
import subprocess
import sys
from collections.abc import Callable
from typing import Literal

import numpy as np
import pytest
from numpy.typing import NDArray

MAKER_NOTE = b"MAKER\0\x12\x34\x56\x78 offsets inside"
THUMBNAIL = b"\xff\xd8thumbnail\xff\xd9"


def _exif(orientation: int, order: Literal["<", ">"], size: tuple[int, int]) -> bytes:
    """EXIF as cameras write it: make, orientation, Exif directory with size and maker note, a thumbnail behind."""

    def directory(at: int, entries: list[tuple[int, int, int, bytes]], following: int) -> bytes:
        table, values, start = struct.pack(order + "H", len(entries)), b"", at + 2 + 12 * len(entries) + 4
        for tag, kind, count, value in entries:
            table += struct.pack(order + "HHI", tag, kind, count)
            if len(value) > 4:
                table += struct.pack(order + "I", start + len(values))
                values += value + bytes(len(value) % 2)
            else:
                table += value.ljust(4, b"\0")
        return table + struct.pack(order + "I", following) + values

    def short(value: int) -> bytes:
        return struct.pack(order + "H", value)

    def long(value: int) -> bytes:
        return struct.pack(order + "I", value)

    def blocks(inner_at: int, thumbnail_at: int) -> tuple[bytes, bytes, bytes]:
        first = directory(
            8,
            [(271, 2, 7, b"Camera\0"), (274, 3, 1, short(orientation)), (34665, 4, 1, long(inner_at))],
            thumbnail_at,
        )
        inner = directory(
            inner_at,
            [
                (0x927C, 7, len(MAKER_NOTE), MAKER_NOTE),
                (0xA002, 4, 1, long(size[1])),
                (0xA003, 3, 1, short(size[0])),
            ],
            0,
        )
        after = thumbnail_at + 2 + 12 * 3 + 4
        thumbnail = directory(
            thumbnail_at, [(259, 3, 1, short(6)), (513, 4, 1, long(after)), (514, 4, 1, long(len(THUMBNAIL)))], 0
        )
        return first, inner, thumbnail + THUMBNAIL

    first, inner, _ = blocks(0, 0)
    inner_at = 8 + len(first)
    parts = blocks(inner_at, inner_at + len(inner))
    header = (b"II" if order == "<" else b"MM") + struct.pack(order + "HI", 42, 8)
    return header + b"".join(parts)


@pytest.fixture
def make_exif() -> Callable[..., bytes]:
    """exif(orientation, order="<", size=(height, width)) -> bytes."""

    def make(orientation: int, order: Literal["<", ">"] = "<", size: tuple[int, int] = (20, 30)) -> bytes:
        return _exif(orientation, order, size)

    return make


@pytest.fixture
def rgb() -> NDArray[np.uint8]:
    """(24, 40, 3) uint8 without any symmetry."""
    y, x = np.mgrid[:24, :40]
    return np.stack([x * 6, y * 10, (x * 3 + y * 5) % 256], -1).astype(np.uint8)


@pytest.fixture
def deep(rgb: NDArray[np.uint8]) -> NDArray[np.uint16]:
    """The same with 16 bits, low bytes in use."""
    return rgb.astype(np.uint16) * 250 + np.arange(40, dtype=np.uint16)[:, np.newaxis] * 13


@pytest.fixture
def run_python() -> Callable[[str], str]:
    """Run a program in a fresh process; returns what it prints."""

    def run(program: str) -> str:
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    return run
