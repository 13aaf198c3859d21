"""A graph as a Core ML package (ML program) in float32, of free or fixed sizes, equal bytes for equal weights.

coremltools turns PyTorch's trace into MIL. Values are named after the modules that compute them, so that a differing
layer can be named; the package is reproducible: no host name, no date.
"""

from __future__ import annotations

import tempfile
from contextlib import redirect_stderr
from copy import deepcopy
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ....core.errors import UnknownNameError
from ....core.limits import LARGEST_TILE
from .. import GraphToWrite
from . import coreml_package as mil
from .coreml_package import CoremlPackage

__all__ = ["convert_coreml", "with_image_input"]

# The oldest iOS, and macOS of the same autumn, that runs a package -> version of the specification.
DEPLOYMENT_TARGETS = {"iOS16": 7, "iOS17": 8, "iOS18": 9}
DEFAULT_DEPLOYMENT_TARGET = "iOS17"
# These would change the weights of layers, by which quantization finds them.
_MERGING = {"common::fuse_conv_batchnorm", "common::fuse_conv_bias", "common::fuse_conv_scale"}
_IMAGE = "image"  # the input that can be one
_RGB = 20  # of the format's ColorSpace
_SCALED, _WHITE = f"{_IMAGE}__unit", f"{_IMAGE}__levels"  # names of values in the program
_DEFAULT_SIDE = 256  # pixels: a range of sizes names one of them


def convert_coreml(job: GraphToWrite, path: Path) -> None:
    """Write a traced graph as a package, the folder `path`, with `job.metadata` as its user-defined metadata.

    Raises UnknownNameError for an unknown deployment target, MissingExtraError without coremltools.
    """
    if job.deployment_target not in DEPLOYMENT_TARGETS:
        raise UnknownNameError("deployment target", job.deployment_target, DEPLOYMENT_TARGETS)
    package = _converted(job)
    described = package.spec.description
    described.metadata.Clear()
    package.spec.mlProgram.attributes.clear()
    for key in sorted(job.metadata):
        described.metadata.userDefined[key] = job.metadata[key]
    mil.write_package(with_image_input(package) if job.images else package, path)


def _side(job: GraphToWrite) -> Any:
    """A height or width; a free one is an object, which height and width must not share."""
    if job.tile is not None:
        return job.tile
    default = job.multiple * max(1, _DEFAULT_SIDE // job.multiple)
    return mil.coremltools().RangeDim(job.multiple, LARGEST_TILE // job.multiple * job.multiple, default=default)


def _converted(job: GraphToWrite) -> CoremlPackage:
    tools = mil.coremltools()
    given = job.graph.inputs.items()
    shapes = {name: [_side(job) if isinstance(s, str) else s for s in spec.shape] for name, spec in given}
    inputs = [tools.TensorType(name=name, shape=shape, dtype=np.float32) for name, shape in shapes.items()]
    outputs = [tools.TensorType(name=name, dtype=np.float32) for name in job.graph.outputs]
    pipeline = tools.PassPipeline()
    pipeline.remove_passes(_MERGING)
    with mil.quiet(), redirect_stderr(StringIO()), tempfile.TemporaryDirectory() as folder:
        model = tools.convert(
            _named(job.program),
            convert_to="mlprogram",
            inputs=inputs,
            outputs=outputs,
            minimum_deployment_target=tools.target[job.deployment_target],
            pass_pipeline=pipeline,
            compute_precision=tools.precision.FLOAT32,  # fp16.py rewrites it
            skip_model_load=True,
            package_dir=f"{folder}/graph.mlpackage",
        )
        return CoremlPackage.of(model.get_spec(), Path(model.weights_dir) / "weight.bin")


def _named(program: torch.export.ExportedProgram) -> torch.export.ExportedProgram:
    """The program in PyTorch's core operators, each named after its module."""
    with torch.no_grad():
        program = program.run_decompositions({})
    results = {node for output in program.graph.nodes if output.op == "output" for node in output.all_input_nodes}
    for node in list(program.graph.nodes):
        if node.target is torch.ops.aten.alias.default:  # coremltools has no rule for it
            node.replace_all_uses_with(node.args[0])
            program.graph.erase_node(node)
        elif node.op == "call_function" and node not in results:  # the signature names these
            node._rename(_place(node))
    return program


def _place(node: torch.fx.Node) -> str:
    """The module of an operation, and which operation it is: denoiser_unet_intro__conv2d."""
    modules = [path for path, _ in node.meta.get("nn_module_stack", {}).values()]
    operation = getattr(node.target, "__name__", str(node.target)).partition(".")[0]
    return "__".join(part.replace(".", "_") for part in (modules[-1] if modules else "", operation) if part)


def with_image_input(package: CoremlPackage) -> CoremlPackage:
    """The package with its input `image` as an 8-bit RGB image, as cameras have it, scaled to [0, 1] in the program.

    A package without such an input comes back unchanged.
    """
    result = package.copy()
    for described in result.spec.description.input:
        if described.name == _IMAGE:
            array, image = deepcopy(described.type.multiArrayType), described.type.imageType
            image.colorSpace = _RGB
            image.height, image.width = array.shape[2:]
            if sizes := array.shapeRange.sizeRanges:
                image.imageSizeRange.heightRange.CopyFrom(sizes[2])
                image.imageSizeRange.widthRange.CopyFrom(sizes[3])
    for function, block in mil.functions(result.spec):
        for value in function.inputs:
            if value.name == _IMAGE:
                _scale_image(result, block, value.type)
    return result


def _scale_image(package: CoremlPackage, block: Any, kind: Any) -> None:
    """Divide the input, 0 to 255, by 255: the numbers that arrays of 8-bit photos have, to the bit."""
    for op in block.operations:
        for binding in mil.bindings(op):
            if binding.name == _IMAGE:
                binding.name = _SCALED
    white = mil.constant(_WHITE, package.value(np.array(np.float32(255))))
    scaled = mil.operation("real_div", _SCALED, kind, {"x": _IMAGE, "y": _WHITE})
    mil.replace_operations(block, [white, scaled, *block.operations])
