"""Reading a package: Manifest.json names the specification, which names the files of weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from google.protobuf.message import DecodeError

from ...core.errors import PackError
from .elements import tensor_type
from .features import Feature, read_feature
from .program import Program, block_of
from .schema import Model
from .values import FindWeights
from .weights import Weights

__all__ = ["Interface", "Package", "read_package"]

_BESIDE = "@model_path/"  # how a file of weights is named: relative to the folder of the specification


class Interface(NamedTuple):
    """What a function takes and gives."""

    inputs: Mapping[str, Feature]
    outputs: Mapping[str, Feature]


@dataclass(frozen=True)
class Package:
    """functions: name -> what that program of the package takes and gives. metadata: what its author wrote into it."""

    path: Path
    functions: Mapping[str, Interface]
    metadata: Mapping[str, str]
    messages: Mapping[str, Any]
    find: FindWeights

    def name(self, wanted: str) -> str:
        """The name of the function `wanted`: its own, or "main" where there is none; PackError where neither is."""
        for candidate in (wanted, "main"):
            if candidate in self.functions:
                return candidate
        known = ", ".join(self.functions)
        raise PackError(f"{self.path} has no function '{wanted}', and no 'main'; it has: {known}")

    def own(self, wanted: str) -> str:
        """The name `wanted`, if it is that of a function; PackError else."""
        if wanted not in self.functions:
            raise PackError(f"{self.path} has no function '{wanted}'; it has: {', '.join(self.functions)}")
        return wanted

    def function(self, wanted: str) -> Program:
        """The program of the function `wanted`, to be run here.

        Raises PackError for damaged weights, and for a program that cannot be evaluated: with ops, parameters or types
        that are not known.
        """
        name = self.name(wanted)
        return Program.read(
            self.messages[name], *self.functions[name], self.find, where=f"{self.path}, function '{name}'"
        )


def read_package(path: Path) -> Package:
    """Read the package that is the folder `path`; its programs and their weights are read when they are asked for.

    Raises PackError for a package that is damaged, or that holds something else than ML programs.
    """
    specification = _specification(path)
    model = _parse(specification)
    messages = model.mlProgram.functions
    if not messages:
        raise PackError(
            f"{specification}: no ML program was found; expected a model of that type (convert_to='mlprogram'), "
            "not a neural network or a pipeline"
        )
    # A model of one function describes that one itself.
    described = {one.name: one for one in model.description.functions} or {"main": model.description}
    missing = sorted(set(described) - set(messages))
    if missing:
        raise PackError(f"{path}: the function '{missing[0]}' is described but not there; export the package again")
    functions = {name: _interface(one, messages[name], str(path)) for name, one in sorted(described.items())}
    metadata = dict(model.description.metadata.userDefined)
    return Package(path, functions, metadata, messages, _finder(path, specification.parent))


def _interface(description: Any, function: Any, where: str) -> Interface:
    """Where the description of an output says nothing of its shape, the program does."""
    block = block_of(function, where)
    types = {value.name: value.type for op in block.operations for value in op.outputs if value.name in block.outputs}
    outputs: dict[str, Feature] = {}
    for feature in (read_feature(output, where) for output in description.output):
        shaped = not feature.shapes and feature.name in types
        outputs[feature.name] = feature.shaped(tensor_type(types[feature.name], where)) if shaped else feature
    return Interface({one.name: read_feature(one, where) for one in description.input}, outputs)


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


def _parse(path: Path) -> Any:
    try:
        return Model.FromString(path.read_bytes())
    except OSError as error:
        raise PackError(f"{path} cannot be read ({error}); copy the whole package again") from error
    except DecodeError as error:
        raise PackError(f"{path} is no Core ML specification, or a damaged one; copy the package again") from error


def _finder(package: Path, folder: Path) -> FindWeights:
    """The weights of a file that a program names, of each file once."""

    @cache
    def find(name: str) -> Weights:
        if not name.startswith(_BESIDE):
            raise PackError(f"{package}: the weights '{name}' were named, expected a file '{_BESIDE}...'")
        return Weights(_inside(package, folder / name.removeprefix(_BESIDE)))

    return find


def _inside(package: Path, path: Path) -> Path:
    if not path.resolve().is_relative_to(package.resolve()):
        raise PackError(f"{package} names the file {path}, which is outside of it; export the package again")
    return path
