"""What the arrays around the convolutions of a graph hold, over real calls: what 8 bits must hold, and means."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import NamedTuple

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper

from .layers import initializers, uses
from .samples import Feed

__all__ = ["Range", "ends", "operations", "ranges", "unit"]

BINS = 2048  # of a histogram: 8 for each of 256 codes
SHARES = np.linspace(0.5, 1.0, 11)  # of the least and of the largest value, that 8 bits may reach to


class Range(NamedTuple):
    """From where to where 8 bits reach, zero among them; how many values an array had in all calls together.

    means: of each channel.
    """

    least: float
    largest: float
    values: int
    means: tuple[float, ...]


def ranges(model: onnx.ModelProto, feeds: Sequence[Feed]) -> dict[str, Range]:
    """What goes into and comes out of every convolution, over all calls.

    8 bits reach from a share of the least value to a share of the largest: those of SHARES that leave the least squared
    error over all values. A percentile would cut off the white of a photo; this weighs what is cut off.
    """
    watched = sorted({name for node in uses(model) if node.op_type == "Conv" for name in ends(model, node)})
    session = _session(model, watched)
    # Zero is always among the values: borders are padded with it.
    extremes, sums, sizes = dict.fromkeys(watched, (0.0, 0.0)), dict[str, NDArray[np.float64]](), dict[str, int]()
    for name, values in _arrays(session, watched, feeds):
        least, largest = extremes[name]
        extremes[name] = min(least, float(values.min())), max(largest, float(values.max()))
        sums[name] = sums.get(name, 0.0) + values.sum(axis=(0, *range(2, values.ndim)), dtype=np.float64)
        sizes[name] = sizes.get(name, 0) + values.size
    counts = {name: np.zeros(BINS, np.int64) for name in watched}
    for name, values in _arrays(session, watched, feeds):
        counts[name] += np.histogram(values, BINS, extremes[name])[0]
    return {
        name: Range(
            *_least_error(*extremes[name], counts[name]),
            sizes[name],
            tuple((sums[name] * len(sums[name]) / sizes[name]).tolist()),
        )
        for name in watched
        if name in sizes
    }


def unit(values: Range) -> tuple[float, int]:
    """Scale and zero point of the unsigned 8 bits that hold an array."""
    return _unit(values.least, values.largest)


def operations(model: onnx.ModelProto, values: Mapping[str, Range]) -> dict[str, int]:
    """Multiply-adds of the convolutions with each weights, by their name, in the calls that `values` are from."""
    weights = initializers(model)
    found: dict[str, int] = {}
    for node in uses(model):
        if node.op_type == "Conv":
            shape = weights[node.input[1]].dims
            positions = values[ends(model, node)[1]].values // shape[0]
            found[node.input[1]] = found.get(node.input[1], 0) + positions * math.prod(shape)
    return found


def ends(model: onnx.ModelProto, node: onnx.NodeProto) -> tuple[str, str]:
    """The arrays before a convolution and after it: after its ReLU where nothing else sees what is before that."""
    following = [other for other in model.graph.node if node.output[0] in other.input]
    results = {value.name for value in model.graph.output}
    rectified = len(following) == 1 and following[0].op_type == "Relu" and node.output[0] not in results
    return node.input[0], following[0].output[0] if rectified else node.output[0]


def _session(model: onnx.ModelProto, watched: Sequence[str]) -> onnxruntime.InferenceSession:
    """The graph, with the watched arrays among its outputs."""
    probed = onnx.ModelProto()
    probed.CopyFrom(model)
    known = {value.name for value in (*model.graph.input, *model.graph.output)}
    probed.graph.output.extend(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in watched if name not in known
    )
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1  # so that sums, and what follows from them, are the same everywhere
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL  # keeps what is watched
    return onnxruntime.InferenceSession(probed.SerializeToString(), options, providers=["CPUExecutionProvider"])


def _arrays(
    session: onnxruntime.InferenceSession, watched: Sequence[str], feeds: Sequence[Feed]
) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Every watched array of every call."""
    for feed in feeds:
        asked = [name for name in watched if name not in feed]
        made = session.run(asked, dict(feed)) if asked else []
        yield from ((name, np.asarray(values)) for name, values in zip(asked, made, strict=True))
        yield from ((name, feed[name]) for name in watched if name in feed)


def _least_error(least: float, largest: float, counts: NDArray[np.int64]) -> tuple[float, float]:
    """The shares of two extremes within which 8 bits are nearest to values with this histogram between them."""
    if least == largest:
        return least, largest
    centres = least + (np.arange(BINS) + 0.5) * (largest - least) / BINS

    def error(reach: tuple[float, float]) -> float:
        scale, zero = _unit(*reach)
        codes = np.clip(np.round(centres / scale) + zero, 0, 255)
        return float(counts @ np.square((codes - zero) * scale - centres))

    reaches = [(least * low, largest * high) for low, high in product(SHARES if least else [1.0], SHARES)]
    return min(reversed(reaches), key=error)  # of equal ones the widest


def _unit(least: float, largest: float) -> tuple[float, int]:
    scale = float(np.float32(max((largest - least) / 255, 1e-12)))
    return scale, int(np.clip(round(-least / scale), 0, 255))
