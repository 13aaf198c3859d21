from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from torch.nn import functional as F

from pocketprior.core.errors import UsageError
from pocketprior.core.metrics import lpips, read_lpips_weights
from pocketprior.core.metrics.lpips import _LAYERS, _expected, _read_arrays

ARRAYS = {
    "a": np.arange(6, dtype=np.float32).reshape(2, 3),
    "b": np.array([0.5, -2], np.float16),
    "c": np.array(3.25),
}


@pytest.fixture(scope="module")
def arrays() -> dict[str, np.ndarray]:
    """Random weights that keep activations of order one."""
    rng = np.random.default_rng(0)
    made = {}
    for name, shape in _expected().items():
        values = rng.standard_normal(shape) * np.sqrt(2 / max(1, np.prod(shape[1:])))
        made[name] = (np.abs(values) if name.startswith("lin") else values).astype(np.float32)
    return made


@pytest.fixture(scope="module")
def weights(arrays, tmp_path_factory):
    path = tmp_path_factory.mktemp("lpips") / "weights.safetensors"
    save_file(arrays | {"features.0.other": np.zeros(3, np.int64)}, path)
    return read_lpips_weights(path)


def of_torch(a: np.ndarray, b: np.ndarray, arrays: dict[str, np.ndarray]) -> float:
    tensors = {name: torch.from_numpy(array).double() for name, array in arrays.items()}
    shift = torch.tensor([-0.030, -0.088, -0.188], dtype=torch.float64).view(1, 3, 1, 1)
    scale = torch.tensor([0.458, 0.448, 0.450], dtype=torch.float64).view(1, 3, 1, 1)
    x = torch.from_numpy(np.stack([a, b]).astype(np.float64)).permute(0, 3, 1, 2) / 127.5 - 1
    x, total = (x - shift) / scale, 0.0
    for i, layer in enumerate(_LAYERS):
        if layer.pool_first:
            x = F.max_pool2d(x, 3, 2)
        weight, bias = tensors[f"{layer.name}.weight"], tensors[f"{layer.name}.bias"]
        x = F.relu(F.conv2d(x, weight, bias, layer.stride, layer.padding))
        unit = x / (x.norm(dim=1, keepdim=True) + 1e-10)
        total += float(F.conv2d((unit[:1] - unit[1:]) ** 2, tensors[f"lin{i}.model.1.weight"]).mean())
    return total


@pytest.mark.parametrize("size", [(32, 32), (63, 40), (97, 131)])
def test_equals_torch(photo, damage, arrays, weights, size):
    a, b = photo[: size[0], : size[1]], damage.noisy(photo, 15)[: size[0], : size[1]]
    assert lpips(a, b, weights) == pytest.approx(of_torch(a, b, arrays), rel=1e-9)


def test_identity_symmetry_and_order(photo, damage, weights):
    a, weak, strong = photo[:64, :64], damage.noisy(photo, 5)[:64, :64], damage.noisy(photo, 40)[:64, :64]
    assert lpips(a, a, weights) == 0
    assert lpips(a, weak, weights) == pytest.approx(lpips(weak, a, weights))
    assert 0 < lpips(a, weak, weights) < lpips(a, strong, weights)


def test_too_small(photo, weights):
    with pytest.raises(UsageError, match="at least 32 x 32"):
        lpips(photo[:31], photo[:31], weights)


@pytest.mark.parametrize("damage_of", ["missing", "shape", "nan"])
def test_wrong_weights_are_refused_by_name(arrays, tmp_path, damage_of):
    name = "features.8.bias"
    wrong = dict(arrays)
    if damage_of == "missing":
        del wrong[name]
    else:
        wrong[name] = np.zeros(7, np.float32) if damage_of == "shape" else np.full(256, np.nan, np.float32)
    np.savez(tmp_path / "weights.npz", **wrong)
    with pytest.raises(UsageError, match=r"'features\.8\.bias'.*\(256,\).*lin4"):
        read_lpips_weights(tmp_path / "weights.npz")


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_reads_float_arrays_and_nothing_else(tmp_path, suffix):
    path = tmp_path / f"file{suffix}"
    arrays = ARRAYS | {"whole": np.arange(3)}
    save_file(arrays, path, {"made": "here"}) if suffix == ".safetensors" else np.savez(path, **arrays)
    read = _read_arrays(path)
    assert sorted(read) == ["a", "b", "c"]
    assert all(np.array_equal(read[name], ARRAYS[name]) for name in ARRAYS)
    assert {array.dtype for array in read.values()} == {np.dtype(np.float64)}


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
@pytest.mark.parametrize("content", [b"", b"\x00" * 40, b"\xff" * 40, b"\x02\0\0\0\0\0\0\0[]"])
def test_damaged_files(tmp_path, suffix, content):
    path = tmp_path / f"file{suffix}"
    path.write_bytes(content)
    with pytest.raises(UsageError, match="undamaged"):
        _read_arrays(path)


def test_truncated_safetensors(tmp_path):
    path = tmp_path / "file.safetensors"
    save_file(ARRAYS, path)
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(UsageError, match="undamaged"):
        _read_arrays(path)


def test_pickles_are_not_opened(tmp_path):
    path = tmp_path / "file.npz"
    np.savez(path, a=np.array([{}], dtype=object))
    with pytest.raises(UsageError, match="undamaged"):
        _read_arrays(path)


def test_missing_file_and_unknown_suffix(tmp_path):
    with pytest.raises(UsageError, match="No such file"):
        _read_arrays(tmp_path / "none.npz")
    with pytest.raises(UsageError, match=r"\.safetensors or \.npz"):
        _read_arrays(tmp_path / "weights.pth")
