"""Faults as they happen, planted in the files of a pack; hashes are refreshed, so that they alone tell nothing."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from pocketprior.core.pack.manifest import FILE
from pocketprior.core.pack.store import packed_file

__all__ = [
    "Edit",
    "after",
    "attribute_of_all",
    "before",
    "edited",
    "facts",
    "nth",
    "other_operator",
    "rehashed",
    "weight",
]

Edit = Callable[[onnx.ModelProto], None]


def edited(folder: Path, graph: str, change: Edit) -> None:
    """Change the one graph file of `graph` and make its hash right."""
    (path,) = folder.glob(f"{graph}.*onnx")
    model = onnx.load(path)
    change(model)
    path.write_bytes(model.SerializeToString(deterministic=True))
    rehashed(folder)


def rehashed(folder: Path) -> None:
    """Make the manifest tell the hashes that its files have."""
    tree = json.loads((folder / FILE).read_text())
    (folder / FILE).write_text(json.dumps(_rehashed(folder, tree)))


def facts(folder: Path, changes: Mapping[str, Any]) -> None:
    """Change fields of the manifest."""
    tree = json.loads((folder / FILE).read_text())
    (folder / FILE).write_text(json.dumps(tree | changes))


def nth(model: onnx.ModelProto, operator: str, number: int = 0) -> onnx.NodeProto:
    """The node of an operator that comes at this place among its kind."""
    return [node for node in model.graph.node if node.op_type == operator][number]


def weight(model: onnx.ModelProto, name: str, change: Callable[[NDArray[Any]], NDArray[Any]]) -> None:
    """Change one initializer; it must then be another."""
    (tensor,) = (t for t in model.graph.initializer if t.name == name)
    old = numpy_helper.to_array(tensor)
    new = np.asarray(change(old), old.dtype, order="C")
    assert not np.array_equal(old, new), f"nothing was planted in {name}"
    tensor.CopyFrom(numpy_helper.from_array(new, name))


def before(model: onnx.ModelProto, name: str, operator: str, *constants: NDArray[Any], **attributes: object) -> None:
    """Put a node between the input `name` and all that uses it."""
    for node in model.graph.node:
        node.input[:] = ["planted" if used == name else used for used in node.input]
    model.graph.node.insert(0, _node(model, operator, name, "planted", constants, attributes))


def after(model: onnx.ModelProto, name: str, operator: str, *constants: NDArray[Any], **attributes: object) -> None:
    """Put a node between what gives the output `name` and the output."""
    for node in model.graph.node:
        node.output[:] = ["planted" if made == name else made for made in node.output]
        node.input[:] = ["planted" if used == name else used for used in node.input]
    model.graph.node.append(_node(model, operator, "planted", name, constants, attributes))


def attribute_of_all(operator: str, name: str, value: object, model: onnx.ModelProto) -> None:
    """Give an attribute of all nodes of an operator another value."""
    for node in (node for node in model.graph.node if node.op_type == operator):
        kept = [attribute for attribute in node.attribute if attribute.name != name]
        del node.attribute[:]
        node.attribute.extend([*kept, helper.make_attribute(name, value)])


def other_operator(old: str, new: str, model: onnx.ModelProto) -> None:
    """Another operator in place of the first of its kind."""
    node = nth(model, old)
    node.op_type = new
    del node.attribute[:]


def _node(
    model: onnx.ModelProto,
    operator: str,
    given: str,
    made: str,
    constants: tuple[NDArray[Any], ...],
    attributes: Mapping[str, object],
) -> onnx.NodeProto:
    names = [f"planted{i}" for i in range(len(constants))]
    model.graph.initializer.extend(map(numpy_helper.from_array, constants, names))
    return helper.make_node(operator, [given, *names], [made], **attributes)


def _rehashed(folder: Path, value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _rehashed(folder, item) for name, item in value.items()}
    if isinstance(value, list) and len(value) == 3 and isinstance(value[0], str) and (folder / value[0]).is_file():
        return list(packed_file(folder, value[0]))
    return [_rehashed(folder, item) for item in value] if isinstance(value, list) else value
