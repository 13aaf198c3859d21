"""Recordings: the same arrays give the same bytes, and nothing but arrays is read."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from pocketprior.core.errors import PackError
from pocketprior.core.pack.store import read_arrays, write_arrays

ARRAYS = {
    "photo": np.arange(24, dtype=np.uint8).reshape(2, 4, 3),
    "deep/name": np.float32([[1.5, -2.0]]),
    "number": np.array(7, np.uint64),
}


def test_there_and_back(tmp_path: Path) -> None:
    write_arrays(tmp_path / "a.npz", ARRAYS)
    found = read_arrays(tmp_path / "a.npz")
    assert set(found) == set(ARRAYS)
    for name, array in ARRAYS.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)


def test_bytes_depend_on_the_arrays_alone(tmp_path: Path) -> None:
    write_arrays(tmp_path / "a.npz", ARRAYS)
    write_arrays(tmp_path / "b.npz", dict(reversed(ARRAYS.items())))
    os.utime(tmp_path / "a.npz", (1, 1))
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_views_are_written_as_they_look(tmp_path: Path) -> None:
    flipped = ARRAYS["photo"][::-1, ::2]
    write_arrays(tmp_path / "a.npz", {"x": flipped})
    np.testing.assert_array_equal(read_arrays(tmp_path / "a.npz")["x"], flipped)


def test_numpy_reads_it_without_us(tmp_path: Path) -> None:
    write_arrays(tmp_path / "a.npz", ARRAYS)
    with np.load(tmp_path / "a.npz") as archive:
        assert sorted(archive.files) == sorted(ARRAYS)


def test_objects_are_never_unpickled(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.array([{}], dtype=object))
    with pytest.raises(PackError, match="cannot be read"):
        read_arrays(tmp_path / "a.npz")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 no zip", b"text"])
def test_what_is_no_recording(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(PackError, match="copy the pack again"):
        read_arrays(tmp_path / "a.npz")


def test_a_missing_recording(tmp_path: Path) -> None:
    with pytest.raises(PackError, match="cannot be read"):
        read_arrays(tmp_path / "a.npz")


def test_a_single_array_is_no_recording(tmp_path: Path) -> None:
    with (tmp_path / "a.npz").open("wb") as file:
        np.save(file, ARRAYS["photo"])
    with pytest.raises(PackError, match="cannot be read"):
        read_arrays(tmp_path / "a.npz")
