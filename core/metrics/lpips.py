"""LPIPS on AlexNet, for those who have the weights: none are included.

Zhang et al., "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric" (CVPR 2018). The weights file,
.safetensors or .npz, holds AlexNet's convolutions under their torchvision names (features.0.weight (64, 3, 11, 11),
features.0.bias (64), ... features.10) and the linear heads under the names of the LPIPS authors (lin0.model.1.weight
(1, 64, 1, 1), ... lin4.model.1.weight). Other arrays are ignored; nothing in the file is ever executed.
"""

from __future__ import annotations

import json
import math
import zipfile
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from ..arrays import Field, Image
from ..errors import UsageError
from .planes import PEAK, check_pair, planes

__all__ = ["LpipsWeights", "lpips", "read_lpips_weights"]

_SHIFT = np.array([-0.030, -0.088, -0.188]).reshape(3, 1, 1)
_SCALE = np.array([0.458, 0.448, 0.450]).reshape(3, 1, 1)
_EPSILON = 1e-10  # of the channel normalisation

_SAFETENSORS_DTYPES = {"F16": np.dtype("<f2"), "F32": np.dtype("<f4"), "F64": np.dtype("<f8")}


class _Layer(NamedTuple):
    name: str
    shape: tuple[int, int, int, int]
    stride: int
    padding: int
    pool_first: bool


_LAYERS = (
    _Layer("features.0", (64, 3, 11, 11), 4, 2, False),
    _Layer("features.3", (192, 64, 5, 5), 1, 2, True),
    _Layer("features.6", (384, 192, 3, 3), 1, 1, True),
    _Layer("features.8", (256, 384, 3, 3), 1, 1, False),
    _Layer("features.10", (256, 256, 3, 3), 1, 1, False),
)


LpipsWeights: TypeAlias = dict[str, Field]  # float64 arrays by the names above


def lpips(a: Image, b: Image, weights: LpipsWeights) -> float:
    """LPIPS (Eq. 1), 0 = equal, lower is better; sides of at least 32 pixels."""
    check_pair(a, b, "LPIPS", 32)
    pairs = zip(_activations(a, weights), _activations(b, weights), strict=True)
    heads = (weights[_head(i)].reshape(-1, 1, 1) for i in range(len(_LAYERS)))
    return math.fsum(float((head * (u - v) ** 2).sum(axis=0).mean()) for head, (u, v) in zip(heads, pairs, strict=True))


def read_lpips_weights(path: Path) -> LpipsWeights:
    """Read a weights file as described above; UsageError says what is missing, misshapen or not finite."""
    arrays = _read_arrays(path)
    for name, shape in _expected().items():
        if name not in arrays or arrays[name].shape != shape or not np.isfinite(arrays[name]).all():
            found = f"has shape {arrays[name].shape} or NaN" if name in arrays else "is missing"
            raise UsageError(
                f"LPIPS weights '{path}': '{name}' {found}; expected finite values of shape {shape}; "
                f"the file must hold {', '.join(_expected())}"
            )
    return {name: arrays[name] for name in _expected()}


def _activations(image: Image, weights: LpipsWeights) -> list[Field]:
    """Unit-length (over channels) activations after each ReLU, (C, H, W) each."""
    x = (planes(image) / (PEAK / 2) - 1 - _SHIFT) / _SCALE
    result: list[Field] = []
    for layer in _LAYERS:
        if layer.pool_first:
            x = sliding_window_view(x, (1, 3, 3))[:, ::2, ::2].max(axis=(3, 4, 5))
        x = np.maximum(_convolve(x, layer, weights), 0)
        result.append(x / (np.sqrt((x**2).sum(axis=0, keepdims=True)) + _EPSILON))
    return result


def _convolve(x: Field, layer: _Layer, weights: LpipsWeights) -> Field:
    """x: (C, H, W) -> (C', H', W'), zero padding."""
    kernel = weights[f"{layer.name}.weight"]
    pad, stride = layer.padding, layer.stride
    padded = np.pad(x, ((0, 0), (pad, pad), (pad, pad)))
    windows = sliding_window_view(padded, (1, *kernel.shape[2:]))[:, ::stride, ::stride, 0]
    out = np.tensordot(kernel, windows, axes=((1, 2, 3), (0, 3, 4)))
    return out + weights[f"{layer.name}.bias"].reshape(-1, 1, 1)


def _expected() -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    for i, layer in enumerate(_LAYERS):
        channels = layer.shape[0]
        shapes |= {f"{layer.name}.weight": layer.shape, f"{layer.name}.bias": (channels,)}
        shapes[_head(i)] = (1, channels, 1, 1)
    return shapes


def _head(index: int) -> str:
    return f"lin{index}.model.1.weight"


def _read_arrays(path: Path) -> dict[str, Field]:
    """All float arrays of the file as float64; UsageError when it cannot be read as what its suffix says."""
    readers = {".safetensors": _safetensors, ".npz": _npz}
    if path.suffix not in readers:
        raise UsageError(f"'{path}' cannot be read as weights; expected a .safetensors or .npz file")
    try:
        return readers[path.suffix](path)
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise UsageError(
            f"'{path}' cannot be read as {path.suffix}: {error}; expected an undamaged .safetensors or .npz file"
        ) from error


def _npz(path: Path) -> dict[str, Field]:
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name].astype(np.float64) for name in file.files if file[name].dtype.kind == "f"}


def _safetensors(path: Path) -> dict[str, Field]:
    """Eight bytes with the length of a JSON header, the header, the arrays one after another."""
    content = path.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    header: dict[str, Any] = dict(**json.loads(content[8:start]))
    header.pop("__metadata__", None)
    arrays: dict[str, Field] = {}
    for name, entry in header.items():
        if entry["dtype"] in _SAFETENSORS_DTYPES:
            shape = [int(size) for size in entry["shape"]]
            first = start + int(entry["data_offsets"][0])
            flat = np.frombuffer(content, _SAFETENSORS_DTYPES[entry["dtype"]], math.prod(shape), first)
            arrays[name] = flat.reshape(shape).astype(np.float64)
    return arrays
