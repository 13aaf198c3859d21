"""Step distillation: one method per file, and `distill`, which runs one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .distillation import distill, distill_recipe

__all__ = ["DISTILL_METHODS", "distill", "distill_recipe"]

DISTILL_METHODS = ("trajectory", "progressive", "unrolled", "consistency", "one_step", "quantized")  # a module each


def __getattr__(name: str) -> Any:
    """The functions of `distillation`, imported on first use: they need torch, the names of the methods do not."""
    if name in __all__:
        from . import distillation

        return getattr(distillation, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
