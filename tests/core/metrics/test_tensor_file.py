from __future__ import annotations

import numpy as np
import pytest
from safetensors.numpy import save_file

from pocketprior.core.errors import UsageError
from pocketprior.core.metrics.tensor_file import read_tensors

ARRAYS = {
    "a": np.arange(6, dtype=np.float32).reshape(2, 3),
    "b": np.array([0.5, -2], np.float16),
    "c": np.array(3.25),
}


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_reads_float_arrays_and_nothing_else(tmp_path, suffix):
    path = tmp_path / f"file{suffix}"
    arrays = ARRAYS | {"whole": np.arange(3)}
    save_file(arrays, path, {"made": "here"}) if suffix == ".safetensors" else np.savez(path, **arrays)
    read = read_tensors(path)
    assert sorted(read) == ["a", "b", "c"]
    assert all(np.array_equal(read[name], ARRAYS[name]) for name in ARRAYS)
    assert {array.dtype for array in read.values()} == {np.dtype(np.float64)}


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
@pytest.mark.parametrize("content", [b"", b"\x00" * 40, b"\xff" * 40, b"\x02\0\0\0\0\0\0\0[]"])
def test_damaged_files(tmp_path, suffix, content):
    path = tmp_path / f"file{suffix}"
    path.write_bytes(content)
    with pytest.raises(UsageError, match="undamaged"):
        read_tensors(path)


def test_truncated_safetensors(tmp_path):
    path = tmp_path / "file.safetensors"
    save_file(ARRAYS, path)
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(UsageError, match="undamaged"):
        read_tensors(path)


def test_pickles_are_not_opened(tmp_path):
    path = tmp_path / "file.npz"
    np.savez(path, a=np.array([{}], dtype=object))
    with pytest.raises(UsageError, match="undamaged"):
        read_tensors(path)


def test_missing_file_and_unknown_suffix(tmp_path):
    with pytest.raises(UsageError, match="No such file"):
        read_tensors(tmp_path / "none.npz")
    with pytest.raises(UsageError, match=r"\.safetensors or \.npz"):
        read_tensors(tmp_path / "weights.pth")
