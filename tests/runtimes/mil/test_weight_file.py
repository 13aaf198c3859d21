"""Files of weights are read as coremltools writes them, and refused when anything about them is wrong."""

from __future__ import annotations

import struct
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from pocketprior.core.errors import PackError
from pocketprior.runtimes.mil.values import ELEMENTS, Element, WeightFile

BY_NAME = {element.name: element for element in ELEMENTS.values()}
COUNT = 13  # no whole number of bytes for any number of bits below 8
STORED = [element.name for element in ELEMENTS.values() if element.blob is not None]


def numbers(element: Element) -> np.ndarray:
    """From the least to the greatest number of a type."""
    if np.issubdtype(element.dtype, np.floating):
        return np.linspace(-3, 3, COUNT).astype(element.dtype)
    lowest = -(1 << (element.bits - 1)) if np.issubdtype(element.dtype, np.signedinteger) else 0
    return np.linspace(lowest, lowest + (1 << element.bits) - 1, COUNT).round().astype(element.dtype)


@pytest.fixture(scope="module")
def written(tools: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, int]]:
    """A file with one record of each type, and where they begin."""
    path = tmp_path_factory.mktemp("weights") / "weight.bin"
    names = {"float16": "fp16", "float32": "float"}
    writer = tools.ct.libmilstoragepython._BlobStorageWriter(str(path))
    offsets: dict[str, int] = {}
    for name in STORED:
        values = numbers(BY_NAME[name])
        as_written = values.view(np.uint16) if name == "float16" else values
        offsets[name] = getattr(writer, f"write_{names.get(name, name)}_data")(as_written)
    del writer
    return path, offsets


@pytest.mark.parametrize("name", STORED)
def test_every_type(name: str, written: tuple[Path, dict[str, int]]) -> None:
    path, offsets = written
    found = WeightFile(path).read(offsets[name], BY_NAME[name], COUNT)
    assert found.dtype == BY_NAME[name].dtype
    np.testing.assert_array_equal(found, numbers(BY_NAME[name]))


def record(
    path: Path, magic: int = 0xDEADBEEF, version: int = 2, blob: int = 2, size: int = 8, start: int = 128
) -> Path:
    header = struct.pack("<II56x", 1, version)
    path.write_bytes(header + struct.pack("<IIQQQ32x", magic, blob, size, start, 0) + np.ones(2, np.float32).tobytes())
    return path


def test_a_record(tmp_path: Path) -> None:
    found = WeightFile(record(tmp_path / "w")).read(64, BY_NAME["float32"], 2)
    np.testing.assert_array_equal(found, [1, 1])
    assert not found.flags.writeable


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"magic": 0xDEADBEE}, "byte 64: expected a record of weights, which begins with 0xdeadbeef, got 0xdeadbee"),
        ({"version": 3}, "expected weights of version 2, got version 3"),
        ({"blob": 1}, "the program expects float32, got elements of type number 1"),
        ({"size": 12}, "the program expects 2 numbers of 32 bits, got 96 bits"),
        ({"start": 132}, "is cut off: it has 136 bytes of 140; copy the package again"),
    ],
)
def test_a_record_that_is_wrong(wrong: dict[str, int], message: str, tmp_path: Path) -> None:
    with pytest.raises(PackError, match=message):
        WeightFile(record(tmp_path / "w", **wrong)).read(64, BY_NAME["float32"], 2)


@pytest.mark.parametrize(("size", "needed"), [(0, 64), (63, 64), (100, 128), (135, 136)])
def test_a_file_that_is_cut_off(size: int, needed: int, tmp_path: Path) -> None:
    path = record(tmp_path / "w")
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(PackError, match=rf"w is cut off: it has {size} bytes of {needed}"):
        WeightFile(path).read(64, BY_NAME["float32"], 2)


def test_a_record_beyond_the_end(tmp_path: Path) -> None:
    with pytest.raises(PackError, match="it has 136 bytes of 1088"):
        WeightFile(record(tmp_path / "w")).read(1024, BY_NAME["float32"], 2)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(PackError, match=r"none cannot be read .*copy the whole package again"):
        WeightFile(tmp_path / "none").read(64, BY_NAME["float32"], 2)
