"""coremltools, imported when it is needed, without what it says while it is imported."""

from __future__ import annotations

import logging
import warnings
from typing import Any

from ...core.errors import MissingExtraError

__all__ = ["coremltools"]


def coremltools() -> Any:
    """The package. Raises MissingExtraError where it is not installed."""
    # It warns of newer versions of torch and scikit-learn than it was tested with, and of what macOS alone has.
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import coremltools
    except ModuleNotFoundError as error:
        raise MissingExtraError("coremltools", "coreml", "writing Core ML packages") from error
    finally:
        logging.disable(level)
    return coremltools
