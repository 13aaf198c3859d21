"""What each op does: op -> the function that evaluates it.

The functions follow the documented definitions of MIL; where an op has several versions, the parameters are those of
the newest. They take float32 for any number with a fraction, never write to their arguments, and raise ValueError for
what a definition leaves open.
"""

from __future__ import annotations

from ..signatures import Op
from . import elementwise, quantization, reduction, shaping, windows

__all__ = ["OPS"]

OPS: dict[str, Op] = {**elementwise.OPS, **quantization.OPS, **reduction.OPS, **shaping.OPS, **windows.OPS}
