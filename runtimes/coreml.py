"""Core ML packages: run by Core ML itself on macOS, elsewhere by our own interpreter of their programs (`mil/`).

Reports name the `engine` that ran: only Core ML shows what a device makes of a package.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..core.errors import GraphError, MissingExtraError, PackError, UsageError
from ..core.pack.manifest import ArraySpec, GraphSpec
from ..core.restore.restorer import Graph
from .check import check_interface, first_line
from .mil import MilPackage, read_package
from .mil.interpreter import MIL_ARITHMETIC
from .mil.values import Feature
from .options import DEFAULT_OPTIONS, RuntimeOptions

__all__ = ["CORE_ML", "INTERPRETER", "TARGETS", "as_8_bits", "engine", "open"]

TARGETS = ("coreml",)
CORE_ML = "Core ML"
INTERPRETER = "MIL interpreter"
IMAGE_INPUT = "image"  # the input that a package may take as an 8-bit image

_UNITS = {"CPU": "CPU_ONLY", "GPU": "CPU_AND_GPU", "NPU": "CPU_AND_NE", "ALL": "ALL"}  # device -> compute units

_Array = NDArray[np.float32]


def engine() -> str:
    """The engine on this machine: CORE_ML or INTERPRETER."""
    return CORE_ML if sys.platform == "darwin" else INTERPRETER


def open(path: Path, name: str, spec: GraphSpec, options: RuntimeOptions = DEFAULT_OPTIONS) -> Graph:
    """Open the package whose Manifest.json is `path`: the function that `spec` names, else `name`, else "main".

    Core ML has the devices CPU, GPU, NPU and ALL, and computes in the types that the program declares; the interpreter
    has the CPU, and rounds to these types only in fp16 arithmetic. Both ignore `options.threads`.
    """
    _check_options(options)
    package = read_package(path.parent)
    function = package.name(spec.function or name, exact=bool(spec.function))
    check_interface(path, spec, *map(_arrays, package.functions[function]))
    if engine() == CORE_ML:
        return _native(package, function, name, list(spec.outputs), options)
    program = package.function(function)

    def call(**inputs: _Array) -> dict[str, _Array]:
        return program.run(as_8_bits(inputs, program.inputs), options.arithmetic)

    return call


def as_8_bits(inputs: Mapping[str, _Array], features: Mapping[str, Feature]) -> dict[str, _Array]:
    """The inputs of a program; an 8-bit image, given in [0, 1], becomes the whole numbers 0 to 255 as float32."""
    return {
        name: np.floor(np.clip(array, 0, 1) * np.float32(255) + np.float32(0.5))
        if _is_image(features.get(name))
        else array
        for name, array in inputs.items()
    }


def _is_image(feature: Feature | None) -> bool:
    return feature is not None and (feature.name, feature.colour) == (IMAGE_INPUT, "rgb")


def _native(package: MilPackage, function: str, name: str, outputs: list[str], options: RuntimeOptions) -> Graph:
    try:
        import coremltools as library
    except ModuleNotFoundError as error:
        raise MissingExtraError("coremltools", "coreml", "the runtime 'coreml' on macOS") from error
    chosen: dict[str, Any] = {"function_name": function} if len(package.functions) > 1 else {}
    units = library.ComputeUnit[_UNITS[options.device]]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", RuntimeWarning)  # how it says that a model does not compile
            model = library.models.MLModel(str(package.path), compute_units=units, **chosen)
    except (RuntimeError, RuntimeWarning) as error:
        raise PackError(
            f"Core ML cannot open {package.path} ({first_line(error)}); copy the pack again, or export it again"
        ) from error
    features, _ = package.functions[function]

    def call(**inputs: _Array) -> dict[str, _Array]:
        try:
            results = model.predict(
                {n: _as_taken(array, features[n]) for n, array in as_8_bits(inputs, features).items()}
            )
        except Exception as error:  # coremltools raises no narrower ones
            raise GraphError(f"graph '{name}': Core ML could not run it ({first_line(error)})") from error
        return {output: np.array(results[output], np.float32) for output in outputs}

    return call


def _as_taken(array: _Array, feature: Feature) -> Any:
    """An input as coremltools takes it: an image as a Pillow object."""
    return Image.fromarray(array[0].transpose(1, 2, 0).astype(np.uint8)) if _is_image(feature) else array


def _check_options(options: RuntimeOptions) -> None:
    devices = _UNITS if engine() == CORE_ML else ("CPU",)
    if options.device not in devices:
        raise UsageError(
            f"expected a device of {engine()} ({', '.join(devices)}), got '{options.device}'"
            + ("" if engine() == CORE_ML else "; Core ML, which has others, runs only on macOS")
        )
    if options.arithmetic not in MIL_ARITHMETIC:
        raise UsageError(
            f"expected an arithmetic of Core ML programs ({', '.join(MIL_ARITHMETIC)}), got '{options.arithmetic}'"
        )


def _arrays(features: Mapping[str, Feature]) -> dict[str, ArraySpec]:
    """The arrays of a package. The photo may be an 8-bit image; any other image has its colours for a dtype."""
    return {
        name: ArraySpec(one.dtype if _is_image(one) else one.colour or one.dtype, one.open_shape())
        for name, one in features.items()
    }
