"""Core ML packages: by Core ML itself on macOS, elsewhere by our own evaluator of their programs (`mil/`).

A report should say which of them ran: `engine` tells it. Only Core ML shows what a device makes of a package.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core.errors import GraphError, MissingExtraError, PackError, UsageError
from ..core.pack.manifest import ArraySpec, GraphSpec
from ..core.restore.restorer import Graph
from .check import check_interface
from .mil import Package, Program, read_package
from .mil.features import Feature
from .mil.program import ARITHMETIC
from .options import Options

__all__ = ["CORE_ML", "INTERPRETER", "TARGETS", "engine", "in_levels", "open"]

TARGETS = ("coreml",)
CORE_ML, INTERPRETER = "Core ML", "MIL interpreter"
PICTURE = "image"  # the input that a package may be given as a picture of 8 bits
DEFAULT = Options()

_UNITS = {"CPU": "CPU_ONLY", "GPU": "CPU_AND_GPU", "NPU": "CPU_AND_NE", "ALL": "ALL"}  # device -> compute units


_Array = NDArray[np.float32]


def engine() -> str:
    """What runs packages on this machine: CORE_ML or INTERPRETER."""
    return CORE_ML if sys.platform == "darwin" else INTERPRETER


def open(path: Path, name: str, spec: GraphSpec, options: Options = DEFAULT) -> Graph:
    """Open the package that `path`, its Manifest.json, belongs to; of its functions the one that `spec` names, else the
    one called `name`, or "main".

    Core ML has the devices CPU, GPU, NPU and ALL, and computes in the types that the program declares; the interpreter
    has the CPU, and rounds to them only in fp16 arithmetic. Neither lets its threads be chosen.

    Raises PackError for a package that is damaged or not the one that `spec` describes, UsageError for a device or
    arithmetic that is not there, MissingExtraError on macOS without coremltools; a call raises GraphError when it
    fails.
    """
    _check_options(options)
    package = read_package(path.parent)
    function = package.name(name) if not spec.function else package.own(spec.function)
    for kind, features, expected in zip(
        ("inputs", "outputs"), package.functions[function], (spec.inputs, spec.outputs), strict=True
    ):
        check_interface(f"{path}, {kind}", _arrays(features), expected)
    if engine() == CORE_ML:
        return _native(package, function, name, list(spec.outputs), options)
    return _interpreted(package.function(function), options.arithmetic)


def in_levels(inputs: Mapping[str, _Array], features: Mapping[str, Feature]) -> dict[str, _Array]:
    """The inputs of a program, those that it takes as pictures rounded to the levels 0 to 255 of 8 bits."""
    pictures = {name for name, feature in features.items() if _is_picture(feature)}
    return {name: _levels(array) if name in pictures else array for name, array in inputs.items()}


def _levels(image: _Array) -> _Array:
    levels: _Array = np.floor(np.clip(image, 0, 1) * np.float32(255) + np.float32(0.5))
    return levels


def _is_picture(feature: Feature) -> bool:
    return (feature.name, feature.colour) == (PICTURE, "rgb")


def _interpreted(program: Program, arithmetic: str) -> Graph:
    def call(**inputs: _Array) -> dict[str, _Array]:
        return program.run(in_levels(inputs, program.inputs), arithmetic)

    return call


def _native(package: Package, function: str, name: str, outputs: list[str], options: Options) -> Graph:
    library = _library()
    chosen = {"function_name": function} if len(package.functions) > 1 else {}
    units = library.ComputeUnit[_UNITS[options.device]]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", RuntimeWarning)  # how it says that a model does not compile
            model = library.models.MLModel(str(package.path), compute_units=units, **chosen)
    except (RuntimeError, RuntimeWarning) as error:
        raise PackError(
            f"Core ML cannot open {package.path} ({_short(error)}); copy the pack again, or export it again"
        ) from error

    features, _ = package.functions[function]

    def call(**inputs: _Array) -> dict[str, _Array]:
        try:
            results = model.predict(_with_pictures(in_levels(inputs, features), features))
        except Exception as error:  # coremltools raises no narrower ones
            raise GraphError(f"graph '{name}': Core ML could not run it ({_short(error)})") from error
        return {output: np.array(results[output], np.float32) for output in outputs}

    return call


def _with_pictures(inputs: Mapping[str, _Array], features: Mapping[str, Feature]) -> dict[str, Any]:
    """As coremltools takes them: pictures as objects of Pillow."""
    from PIL import Image

    return {
        name: Image.fromarray(array[0].transpose(1, 2, 0).astype(np.uint8)) if _is_picture(features[name]) else array
        for name, array in inputs.items()
    }


def _library() -> Any:
    try:
        import coremltools
    except ModuleNotFoundError as error:
        raise MissingExtraError("coremltools", "coreml", "the runtime 'coreml' on macOS") from error
    return coremltools


def _check_options(options: Options) -> None:
    devices = _UNITS if engine() == CORE_ML else ("CPU",)
    if options.device not in devices:
        raise UsageError(
            f"the device '{options.device}' was given; {engine()} has here: {', '.join(devices)}"
            + ("" if engine() == CORE_ML else " (Core ML, which has others, is on macOS alone)")
        )
    if options.arithmetic not in ARITHMETIC:
        raise UsageError(
            f"{options.arithmetic} arithmetic was asked for; Core ML programs know {' and '.join(ARITHMETIC)}: "
            "choose one of these"
        )


def _arrays(features: Mapping[str, Feature]) -> dict[str, ArraySpec]:
    """What a package has. The picture to be restored may be one of 8 bits; another is named by its colours."""
    return {
        name: ArraySpec(one.dtype if _is_picture(one) else one.colour or one.dtype, one.open_shape())
        for name, one in features.items()
    }


def _short(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
