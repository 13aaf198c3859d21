"""The target "onnx": standard operators only, free or fixed sizes, equal bytes for equal weights."""

from __future__ import annotations

import logging
import shutil
import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import onnx
import torch

from ...core.pack.store import packed_file
from ..systems.graphs import ModelGraph
from . import WEIGHT_PRECISIONS, GraphToWrite, Target, Written, by_digest
from .calibration import FloatPack
from .onnx_file import ConstantStore, SharedFiles, normalized, shared_onnx, write_graph
from .quantized_onnx import quantized_graph

__all__ = ["OPSET", "TARGET", "convert_onnx", "onnx_files"]

OPSET = 20  # the newest that ONNX Runtime and OpenVINO both support well


def convert_onnx(
    graph: ModelGraph, program: torch.export.ExportedProgram, path: Path, *, metadata: Mapping[str, str]
) -> tuple[Path, ...]:
    """Write `program`, what `traced` returns for `graph`, to `path`.

    Returns:
        What was written next to it and belongs to it: weights, where they are large.
    """
    with warnings.catch_warnings(), torch.no_grad():
        # The exporter warns about its own deprecations and about optional packages.
        warnings.simplefilter("ignore")
        for chatty in ("torch.onnx", "onnxscript"):
            logging.getLogger(chatty).setLevel(logging.ERROR)
        exported = torch.onnx.export(
            program,
            dynamo=True,
            opset_version=OPSET,
            input_names=list(graph.inputs),
            output_names=list(graph.outputs),
            external_data=False,
            verbose=False,
        )
    assert exported is not None
    return write_graph(normalized(exported.model_proto, dict(metadata)), path)


def onnx_files(
    pack: FloatPack,
    precisions: Mapping[str, str],
    folder: Path,
    label: str,
    graphs: Sequence[str] | None = None,
) -> dict[str, Written]:
    """Write the graphs of a float pack; a graph without quantized layers is copied as fp32.

    Args:
        pack: The float pack.
        precisions: Layer -> precision.
        folder: Where the files go; it must exist.
        label: Precision of the files in the manifest.
        graphs: Those that are quantized, the others stay float; None for all.
    """
    named, written = by_digest(pack, precisions), dict[str, Written]()
    for name, model in pack.models.items():
        changed = any(name in layer.graphs and precisions[layer.name] != "fp32" for layer in pack.layers)
        if changed and (graphs is None or name in graphs):
            path = folder / f"{name}.{label}.onnx"
            parts = write_graph(quantized_graph(model, named, pack.values[name]), path)
            written[name] = _written(label, path, parts)
        else:
            spec = pack.manifest.graphs[name]
            written[name] = Written("fp32", spec.files["onnx"]["fp32"], spec.parts.get("onnx", {}).get("fp32", ()))
            for packed in (written[name].file, *written[name].parts):
                shutil.copyfile(pack.folder / packed.file, folder / packed.file)
    return written


def _written(label: str, path: Path, parts: Sequence[Path]) -> Written:
    return Written(label, packed_file(path.parent, path.name), tuple(packed_file(path.parent, p.name) for p in parts))


def _write(job: GraphToWrite, folder: Path) -> Written:
    path = folder / f"{job.name}.onnx"
    return _written("fp32", path, convert_onnx(job.graph, job.program, path, metadata=job.metadata))


def _split(path: Path, store: ConstantStore) -> tuple[bytes, bytes]:
    model = shared_onnx(onnx.load(path), store)
    content = model.SerializeToString(deterministic=True)
    del model.metadata_props[:]  # the facts of the task
    return content, model.SerializeToString(deterministic=True)


TARGET = Target(
    name="onnx",
    runtime="onnxruntime",
    precisions=WEIGHT_PRECISIONS,
    emit=onnx_files,
    write=_write,
    join=partial(SharedFiles, "onnx", _split),
)
