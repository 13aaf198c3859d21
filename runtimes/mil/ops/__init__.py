"""What each op does: op -> the function that evaluates it.

The functions follow the documented definitions of MIL; where an op has several versions, the parameters are those of
the newest. They take float32 for any number with a fraction, never write to their arguments, and raise ValueError for
what a definition leaves open.
"""

from __future__ import annotations

from ..values import Op
from .elementwise import ELEMENTWISE
from .quantization import QUANTIZATION
from .reduction import REDUCTIONS
from .shaping import SHAPING

__all__ = ["MIL_OPS"]

MIL_OPS: dict[str, Op] = {**ELEMENTWISE, **QUANTIZATION, **REDUCTIONS, **SHAPING}
