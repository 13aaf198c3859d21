"""What each op does: op -> the function that evaluates it.

The functions follow the documented definitions of MIL; where an op has several versions, the parameters are those of
the newest. They take float32 for any number with a fraction, never write to what they are given, and raise ValueError
for what a definition leaves open.
"""

from __future__ import annotations

from ..signatures import Op
from . import (
    activation,
    convolution,
    elementwise,
    linear,
    normalization,
    pooling,
    quantization,
    reduction,
    resizing,
    selection,
    shaping,
)

__all__ = ["OPS"]

OPS: dict[str, Op] = {
    **activation.OPS,
    **convolution.OPS,
    **elementwise.OPS,
    **linear.OPS,
    **normalization.OPS,
    **pooling.OPS,
    **quantization.OPS,
    **reduction.OPS,
    **resizing.OPS,
    **selection.OPS,
    **shaping.OPS,
}
