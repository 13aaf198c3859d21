"""Reading a package: Manifest.json names the specification, which names the files of weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError

from ...core.errors import PackError
from ...core.pack.mlpackage import MODEL_PATH
from .interpreter import MilProgram, block_of
from .schema import Model
from .values import Feature, FindWeights, WeightFile, read_feature, tensor_type

__all__ = ["MilPackage", "read_package"]


_Features = tuple[Mapping[str, Feature], Mapping[str, Feature]]  # the inputs and the outputs of a function


@dataclass(frozen=True)
class MilPackage:
    """A package; its programs and their weights are read at the first request."""

    path: Path
    functions: Mapping[str, _Features]  # by the name of the function
    metadata: Mapping[str, str]  # what the author wrote into the package
    messages: Mapping[str, Any]
    find: FindWeights

    def name(self, wanted: str, *, exact: bool = False) -> str:
        """The name `wanted` if it is that of a function, else "main" unless `exact`; PackError where there is none."""
        for candidate in (wanted,) if exact else (wanted, "main"):
            if candidate in self.functions:
                return candidate
        nor_main = "" if exact else ", and no 'main'"
        raise PackError(f"{self.path} has no function '{wanted}'{nor_main}; it has: {', '.join(self.functions)}")

    def function(self, wanted: str) -> MilProgram:
        """The program of the function `wanted`, or of "main".

        Raises PackError for damaged weights, and for unknown ops, parameters or types.
        """
        name = self.name(wanted)
        return MilProgram.read(self.messages[name], *self.functions[name], self.find, f"{self.path}, function '{name}'")


def read_package(path: Path) -> MilPackage:
    """Read the package in the folder `path`; PackError for a damaged one, or one without ML programs."""
    specification = _specification(path)
    try:
        model = Model.FromString(specification.read_bytes())
    except OSError as error:
        raise PackError(f"{specification} cannot be read ({error}); copy the whole package again") from error
    except DecodeError as error:
        raise PackError(
            f"{specification} is no Core ML specification, or a damaged one; copy the package again"
        ) from error
    messages = model.mlProgram.functions
    if not messages:
        raise PackError(
            f"{specification}: expected an ML program (convert_to='mlprogram'), got another type of model, such as a "
            "neural network or a pipeline"
        )
    # A model of one function describes that one itself.
    described = {one.name: one for one in model.description.functions} or {"main": model.description}
    missing = sorted(set(described) - set(messages))
    if missing:
        raise PackError(f"{path}: the function '{missing[0]}' is described but not there; export the package again")
    functions = {name: _interface(one, messages[name], str(path)) for name, one in sorted(described.items())}

    @cache
    def find(name: str) -> WeightFile:
        if not name.startswith(MODEL_PATH):
            raise PackError(f"{path}: expected weights in a file '{MODEL_PATH}...', got '{name}'")
        return WeightFile(_inside(path, specification.parent / name.removeprefix(MODEL_PATH)))

    return MilPackage(path, functions, dict(model.description.metadata.userDefined), messages, find)


def _interface(description: Any, function: Any, where: str) -> _Features:
    """Where the description of an output says nothing of its shape, the program does."""
    block = block_of(function, where)
    types = {value.name: value.type for op in block.operations for value in op.outputs if value.name in block.outputs}
    inputs, outputs = (
        {one.name: read_feature(one, where) for one in described}
        for described in (description.input, description.output)
    )
    for name, feature in outputs.items():
        if not feature.shapes and name in types:
            outputs[name] = feature.shaped(tensor_type(types[name], where))
    return inputs, outputs


def _specification(path: Path) -> Path:
    """The file that the package's manifest calls its root."""
    manifest = path / "Manifest.json"
    try:
        tree = json.loads(manifest.read_text(encoding="utf-8"))
        root = tree["itemInfoEntries"][tree["rootModelIdentifier"]]["path"]
    except OSError as error:
        raise PackError(f"{manifest} cannot be read ({error}); expected the manifest of a Core ML package") from error
    except (ValueError, KeyError, TypeError) as error:
        raise PackError(
            f"{manifest} names no model ({type(error).__name__}: {error}); copy the package again, or export it again"
        ) from error
    return _inside(path, path / "Data" / str(root))


def _inside(package: Path, path: Path) -> Path:
    if not path.resolve().is_relative_to(package.resolve()):
        raise PackError(f"{package} names the file {path}, which is outside of it; export the package again")
    return path
