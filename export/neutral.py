"""What an ONNX file may tell: nothing that differs between two runs, nothing of the machine. Needs no torch."""

from __future__ import annotations

import ast

import onnx

__all__ = ["MODULE", "normalized"]

MODULE = "pocketprior.module"  # metadata of a node
_SCOPES = "pkg.torch.onnx.name_scopes"  # what PyTorch writes: a list of modules, each within the one before, and the op


def normalized(model: onnx.ModelProto, metadata: dict[str, str]) -> onnx.ModelProto:
    """Drop what differs between two runs or tells of the machine (traces, paths, value names); add `metadata`.

    Of each node the module of the model that it was made from is kept, so that a layer that differs can be told.
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
        tensor.doc_string = ""
        del tensor.metadata_props[:]
    for index, node in enumerate(graph.node):
        node.name = f"n{index}_{node.op_type}"
        node.doc_string = ""
        module = _module(node)
        del node.metadata_props[:]
        if module:
            node.metadata_props.add(key=MODULE, value=module)
        node.input[:] = [rename(name) for name in node.input]
        node.output[:] = [rename(name) for name in node.output]
    for value in (*graph.input, *graph.output):
        value.doc_string = ""
        del value.metadata_props[:]
    model.producer_name, model.producer_version = "pocketprior", ""
    for key in sorted(metadata):
        model.metadata_props.add(key=key, value=metadata[key])
    return model


def _module(node: onnx.NodeProto) -> str:
    told = {entry.key: entry.value for entry in node.metadata_props}
    scopes = ast.literal_eval(told.get(_SCOPES, "[]"))
    return scopes[-2] if len(scopes) > 1 else told.get(MODULE, "")
