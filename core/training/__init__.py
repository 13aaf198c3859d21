"""Training: data sets, one definition per stage, one loop that saves, resumes and reports.

    from pocketprior.core.training import read_recipe, train

Importing this package does not import PyTorch; using one of its functions does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .runs import evaluate, read_recipe, train

__all__ = ["evaluate", "read_recipe", "train"]


def __getattr__(name: str) -> Any:
    """Import a public function when it is first used."""
    if name in __all__:
        from . import runs

        return getattr(runs, name)
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'; it has: {', '.join(__all__)}")
