"""A Core ML program that is given a picture of 8 bits, as cameras and decoders have it, in the place of an array."""

from __future__ import annotations

from typing import Any

import numpy as np

from .package import Package, blocks
from .program import bindings, constant, operation

__all__ = ["IMAGE", "given_pictures"]

IMAGE = "image"  # the input that is one
LEVELS = np.float32(255)
RGB = 20  # of the format's ColorSpace
_UNIT, _LEVELS = f"{IMAGE}__unit", f"{IMAGE}__levels"


def given_pictures(package: Package) -> Package:
    """The package with its input `image` as an RGB picture of 8 bits, scaled to [0, 1] in the program.

    A package without such an input is given back as it is.
    """
    result = package.copy()
    for described in result.spec.description.input:
        if described.name == IMAGE:
            _describe(described.type)
    for name, block in zip(sorted(result.spec.mlProgram.functions), blocks(result.spec), strict=True):
        inputs = {value.name: value.type for value in result.spec.mlProgram.functions[name].inputs}
        if IMAGE in inputs:
            _scale(result, block, inputs[IMAGE])
    return result


def _describe(kind: Any) -> None:
    """An array (1, 3, h, w) becomes a picture of the same sizes."""
    array = type(kind)()
    array.CopyFrom(kind)
    kind.imageType.colorSpace = RGB
    sizes = array.multiArrayType.shapeRange.sizeRanges
    kind.imageType.height, kind.imageType.width = array.multiArrayType.shape[2:]
    if sizes:
        kind.imageType.imageSizeRange.heightRange.CopyFrom(sizes[2])
        kind.imageType.imageSizeRange.widthRange.CopyFrom(sizes[3])


def _scale(package: Package, block: Any, kind: Any) -> None:
    """Divide what comes in, 0 to 255, by 255: the numbers that arrays of 8-bit photos have, to the bit."""
    operations = list(block.operations)
    for op in operations:
        for _, binding in bindings(op):
            if binding.name == IMAGE:
                binding.name = _UNIT
    levels = constant(package, _LEVELS, np.array(LEVELS))
    scaled = operation("real_div", _UNIT, kind, {"x": IMAGE, "y": _LEVELS})
    del block.operations[:]
    block.operations.extend([levels, scaled, *operations])
