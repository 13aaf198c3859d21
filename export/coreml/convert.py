"""A graph as a Core ML package (ML program) in float32, of free or of fixed sizes, equal bytes for equal weights.

coremltools turns PyTorch's trace into MIL. Values are named after the modules that they are
from, so that a layer that differs can be told by its name; nothing in the package tells of the machine or the day.
"""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Callable
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...core.errors import UnknownNameError
from ...core.restore.tiles import LARGEST_TILE
from ..graphs import Graph
from .package import Package, write
from .pictures import given_pictures
from .toolchain import coremltools

__all__ = ["SYSTEM", "SYSTEMS", "convert"]

SYSTEMS = {"iOS16": 7, "iOS17": 8, "iOS18": 9}  # and the macOS of the same autumn; version of the specification
SYSTEM = "iOS17"  # unless told otherwise
# What would change the weights of layers, by which a plan for fewer bits finds them.
MERGING = {"common::fuse_conv_batchnorm", "common::fuse_conv_bias", "common::fuse_conv_scale"}
DEFAULT = 256  # pixels: a range of sizes names one of them


def convert(
    graph: Graph,
    program: torch.export.ExportedProgram,
    path: Path,
    *,
    multiple: int,
    tile: int | None = None,
    pictures: bool = False,
    metadata: dict[str, str],
    system: str = SYSTEM,
) -> None:
    """Write `program`, what `traced` gives for `graph` with the same `multiple` and `tile`, to `path`.

    pictures: whether the input `image` is a picture of 8 bits. system: one of SYSTEMS, the oldest that can run the
    package. Raises UnknownNameError, MissingExtraError without coremltools.
    """
    if system not in SYSTEMS:
        raise UnknownNameError("system", system, SYSTEMS)
    package = _converted(graph, program, _side(multiple, tile), system)
    described = package.spec.description
    described.metadata.Clear()
    package.spec.mlProgram.attributes.clear()
    for key in sorted(metadata):
        described.metadata.userDefined[key] = metadata[key]
    write(given_pictures(package) if pictures else package, path)


def _side(multiple: int, tile: int | None) -> Callable[[], Any]:
    """Makes a height or width; free ones are objects that must not be the same for both."""
    if tile is not None:
        return lambda: tile
    default, highest = multiple * max(1, DEFAULT // multiple), LARGEST_TILE // multiple * multiple
    return lambda: coremltools().RangeDim(multiple, highest, default=default)


def _converted(graph: Graph, program: torch.export.ExportedProgram, side: Callable[[], Any], system: str) -> Package:
    tools = coremltools()
    inputs = [
        tools.TensorType(name=name, shape=[side() if isinstance(s, str) else s for s in spec.shape], dtype=np.float32)
        for name, spec in graph.inputs.items()
    ]
    outputs = [tools.TensorType(name=name, dtype=np.float32) for name in graph.outputs]
    pipeline = tools.PassPipeline()
    pipeline.remove_passes(MERGING)
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)  # it warns of what it does not know of newer versions
    try:
        with warnings.catch_warnings(), redirect_stderr(StringIO()), tempfile.TemporaryDirectory() as folder:
            warnings.simplefilter("ignore")
            model = tools.convert(
                _named(program),
                convert_to="mlprogram",
                inputs=inputs,
                outputs=outputs,
                minimum_deployment_target=tools.target[system],
                pass_pipeline=pipeline,
                compute_precision=tools.precision.FLOAT32,  # 16 bits are put in by `halves.py`
                skip_model_load=True,
                package_dir=f"{folder}/graph.mlpackage",
            )
            return Package.of(model.get_spec(), Path(model.weights_dir) / "weight.bin")
    finally:
        logging.disable(level)


def _named(program: torch.export.ExportedProgram) -> torch.export.ExportedProgram:
    """The program in PyTorch's core operators; each has the name of the module that it is from."""
    with torch.no_grad():
        program = program.run_decompositions({})
    results = {node for output in program.graph.nodes if output.op == "output" for node in output.all_input_nodes}
    for node in list(program.graph.nodes):
        if node.target is torch.ops.aten.alias.default:  # coremltools has no rule for it
            node.replace_all_uses_with(node.args[0])
            program.graph.erase_node(node)
        elif node.op == "call_function" and node not in results:  # these go by the names in the program's signature
            node._rename(_place(node))
    return program


def _place(node: torch.fx.Node) -> str:
    """The module that an operation is from, and which operation: denoiser_unet_intro__conv2d."""
    modules = [path for path, _ in node.meta.get("nn_module_stack", {}).values()]
    operation = getattr(node.target, "__name__", str(node.target)).partition(".")[0]
    return "__".join(part.replace(".", "_") for part in (modules[-1] if modules else "", operation) if part)
