"""Post-training int8 for ONNX Runtime: QDQ, activations unsigned, weights signed and symmetric per channel.

Only convolutions are quantized: vectors (time, code, FiLM) and the elementwise sampler stay in float, where they cost
nothing and where int8 would cost quality.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import onnx
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process

from .calibrate import Feed
from .to_onnx import normalized

__all__ = ["int8"]


class _Reader(CalibrationDataReader):
    def __init__(self, feeds: Sequence[Feed]) -> None:
        self.feeds: Iterator[Feed] = iter(feeds)

    def get_next(self) -> Feed | None:  # type: ignore[override]
        return next(self.feeds, None)


def int8(source: Path, path: Path, feeds: Sequence[Feed], *, keep: Sequence[str] = ()) -> None:
    """Write the int8 twin of the float graph `source` to `path`, calibrated on `feeds`.

    keep: names of convolution nodes that stay in float. The metadata of `source` is carried over.
    """
    metadata = {p.key: p.value for p in onnx.load(source, load_external_data=False).metadata_props}
    logging.getLogger().setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder:
        prepared, quantized = Path(folder) / "prepared.onnx", Path(folder) / "int8.onnx"
        quant_pre_process(source, prepared, skip_symbolic_shape=True)
        quantize_static(
            prepared,
            quantized,
            _Reader(feeds),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["Conv"],
            nodes_to_exclude=list(keep),
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
            extra_options={"WeightSymmetric": True, "ActivationSymmetric": False},
        )
        model = normalized(onnx.load(quantized), metadata)
    path.write_bytes(model.SerializeToString(deterministic=True))
