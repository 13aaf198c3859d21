"""From a trained checkpoint to a pack. The functions here are the public ones; each is imported when it is asked for.

export       checkpoints -> pack
quantize     float pack -> smaller pack, under a budget on the restored image
record       checkpoint -> reference of a parity run
build        recipe -> trained, distilled, exported, quantized and proved
personalize  album -> a pack that knows its subject
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .build_recipe import build
    from .parity_reference import record
    from .personal import personalize
    from .quantization.api import quantize
    from .writer.multitask import export

__all__ = ["build", "export", "personalize", "quantize", "record"]

_PLACES = {
    "build": ".build_recipe",
    "export": ".writer.multitask",
    "personalize": ".personal",
    "quantize": ".quantization.api",
    "record": ".parity_reference",
}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_PLACES[name], __package__), name)
