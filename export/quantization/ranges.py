"""What the arrays around the convolutions of a graph hold, over real calls: what 8 bits must hold, and means."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper

from ...core.pack.int8 import HISTOGRAM_BINS, QuantParams, clip_range, quant_params
from .layers import initializers, uses
from .samples import Feed

__all__ = ["Range", "ends", "operations", "ranges", "unit_of"]


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

    8 bits reach as far as `reach` says.
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
    counts = {name: np.zeros(HISTOGRAM_BINS, np.int64) for name in watched}
    for name, values in _arrays(session, watched, feeds):
        counts[name] += np.histogram(values, HISTOGRAM_BINS, extremes[name])[0]
    return {
        name: Range(
            *clip_range(*extremes[name], counts[name]),
            sizes[name],
            tuple((sums[name] * len(sums[name]) / sizes[name]).tolist()),
        )
        for name in watched
        if name in sizes
    }


def unit_of(values: Range) -> QuantParams:
    """The unit of the codes that hold an array."""
    return quant_params(values.least, values.largest)


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
