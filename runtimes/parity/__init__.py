"""Is what runs here what was trained? `compare` a pack with a recorded reference, call by call and as a whole."""

from __future__ import annotations

from .comparison import CompareOptions, compare
from .findings import ParityReport

__all__ = ["CompareOptions", "ParityReport", "compare"]
