"""Step distillation: one method per file, and `distill`, which runs one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .methods import distill

__all__ = ["DISTILL_METHODS", "distill"]

DISTILL_METHODS = ("trajectory", "progressive", "unrolled", "consistency", "one_step", "quantized")  # modules


def __getattr__(name: str) -> Any:
    """`distill`, imported when it is used: it needs torch, the names of the methods do not."""
    if name == "distill":
        from .methods import distill

        return distill
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
