"""ONNX files with equal bytes for equal graphs: nothing that differs between two runs, nothing of the machine.

Large constants can lie in a file next to the graph, one that several graphs may share. Needs no torch.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Sequence
from copy import deepcopy
from pathlib import Path

import onnx
from onnx import TensorProto

from ...core.pack.store import SHARED, packed_file
from . import Joined, TaskPack, Written

__all__ = ["ConstantStore", "join_files", "normalized", "shared_onnx", "write_graph"]

MODULE_KEY = "pocketprior.module"  # metadata of a node
LARGE_GRAPH = 2**30  # bytes of weights from which they go into a file of their own; a protocol buffer holds 2 GiB
_SCOPES = "pkg.torch.onnx.name_scopes"  # what PyTorch writes: a list of modules, each within the one before, and the op
_BLOCK = 64  # bytes to which constants are aligned: what vector instructions load at once
_LEAST_SHARED = 128  # bytes: naming the place of a constant takes about half as many


class ConstantStore:
    """Constants, one after the other, each stored once."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.offsets: dict[bytes, int] = {}

    def offset(self, constant: bytes) -> int:
        """The offset of a constant, which is appended unless it is there already."""
        if constant not in self.offsets:
            self.data += bytes(-len(self.data) % _BLOCK)
            self.offsets[constant] = len(self.data)
            self.data += constant
        return self.offsets[constant]


def join_files(
    target: str, split: Callable[[Path, ConstantStore], tuple[bytes, bytes]], packs: Sequence[TaskPack], folder: Path
) -> Joined:
    """Join the graph files of several tasks in a folder: their constants go into one file, `SHARED[target]`.

    `split`: (path of a graph file, store) -> the file with its constants in the store, and the same without what only
    differs between tasks, by which equal graphs are found: they are stored once.
    """
    store, known, places = ConstantStore(), dict[tuple[str, str, bytes], str](), dict[tuple[str, str, str], str]()
    for pack in packs:
        for graph, spec in pack.manifest.graphs.items():
            for label, packed in spec.files.get(target, {}).items():
                content, same = split(pack.folder / packed.file, store)
                place = known.setdefault((graph, label, same), pack.prefix + packed.file)
                places[pack.task, graph, label] = place
                if not (folder / place).exists():
                    (folder / place).write_bytes(content)
    (folder / SHARED[target]).write_bytes(store.data)
    shared = (packed_file(folder, SHARED[target]),)
    return {key: Written(key[-1], packed_file(folder, place), shared) for key, place in places.items()}


def write_graph(model: onnx.ModelProto, path: Path) -> tuple[Path, ...]:
    """Check the graph and write it to `path`; weights of LARGE_GRAPH bytes and more go to NAME.onnx.data, returned."""
    # Not ByteSize, which fails for what is too large to be written in one piece.
    if sum(len(tensor.raw_data) for tensor in model.graph.initializer) < LARGE_GRAPH:
        onnx.checker.check_model(model, full_check=True)
        path.write_bytes(model.SerializeToString(deterministic=True))
        return ()
    weights, store = path.with_name(f"{path.name}.data"), ConstantStore()
    path.write_bytes(shared_onnx(model, store, weights.name).SerializeToString(deterministic=True))
    weights.write_bytes(store.data)
    onnx.checker.check_model(path, full_check=True)
    return (weights,)


def shared_onnx(model: onnx.ModelProto, store: ConstantStore, file: str = SHARED["onnx"]) -> onnx.ModelProto:
    """The graph with its large constants in `store`, which is to be written to `file` in the same folder."""
    result = deepcopy(model)
    for tensor in result.graph.initializer:
        if len(tensor.raw_data) >= _LEAST_SHARED:
            facts = {"location": file, "offset": store.offset(tensor.raw_data), "length": len(tensor.raw_data)}
            tensor.ClearField("raw_data")
            tensor.data_location = TensorProto.EXTERNAL
            for key, value in facts.items():
                tensor.external_data.add(key=key, value=str(value))
    return result


def normalized(model: onnx.ModelProto, metadata: dict[str, str]) -> onnx.ModelProto:
    """Drop what differs between two runs or describes the machine (traces, paths, value names); add `metadata`.

    Each node keeps the name of the module that it was made from, so that a differing layer can be named.
    """
    graph = model.graph
    graph.name = "graph"
    graph.doc_string = ""
    del model.metadata_props[:]
    del graph.metadata_props[:]
    del graph.value_info[:]
    kept = {v.name for v in (*graph.input, *graph.output)}
    renamed: dict[str, str] = {}

    def rename(name: str) -> str:
        if not name or name in kept:
            return name
        # ONNX Runtime's quantizer appends digits to names: the last character must not be one.
        return renamed.setdefault(name, f"v{len(renamed)}_")

    for tensor in graph.initializer:
        tensor.name = rename(tensor.name)
    for index, node in enumerate(graph.node):
        node.name = f"n{index}_{node.op_type}"
        node.input[:] = [rename(name) for name in node.input]
        node.output[:] = [rename(name) for name in node.output]
    modules = [_module(node) for node in graph.node]
    for part in (*graph.initializer, *graph.node, *graph.input, *graph.output):
        part.doc_string = ""
        del part.metadata_props[:]
    for node, module in zip(graph.node, modules, strict=True):
        if module:
            node.metadata_props.add(key=MODULE_KEY, value=module)
    model.producer_name, model.producer_version = "pocketprior", ""
    for key in sorted(metadata):
        model.metadata_props.add(key=key, value=metadata[key])
    return model


def _module(node: onnx.NodeProto) -> str:
    entries = {entry.key: entry.value for entry in node.metadata_props}
    scopes = ast.literal_eval(entries.get(_SCOPES, "[]"))
    return scopes[-2] if len(scopes) > 1 else entries.get(MODULE_KEY, "")
