"""What a pack can be exported to: one file or folder per target, with its `TARGET`, and one name in `TARGETS`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ...core.errors import UnknownNameError
from ...core.pack.manifest import Manifest, PackedFile

if TYPE_CHECKING:
    from torch.export import ExportedProgram

    from ..systems.source import ModelGraph
    from .calibration import FloatPack

__all__ = ["GraphToWrite", "Offer", "Target", "TaskPack", "Written", "target_of", "targets_of", "targets_with"]

TARGETS = ("onnx", "openvino", "coreml")
BASE_TARGET = TARGETS[0]  # its float32 graphs are what calibration runs, a search measures and other targets start from
WEIGHT_PRECISIONS = ("fp32", "fp16", "w8", "w4", "int8")  # see weights.py


class Written(NamedTuple):
    """The files of a graph that a target wrote into the folder of a pack."""

    label: str  # their precision
    file: PackedFile
    parts: tuple[PackedFile, ...] = ()  # what lies next to the file and belongs to it, such as its weights
    function: str = ""  # the name of the graph inside its file, "" for the only or the first one


class GraphToWrite(NamedTuple):
    """A traced graph that is to be written in float32."""

    name: str
    graph: ModelGraph
    program: ExportedProgram  # what `traced` returns for the graph, with the same `multiple` and `tile`
    multiple: int  # of heights and widths
    tile: int | None = None  # edge of the only tiles that the graph takes, None for any size
    metadata: Mapping[str, str] = {}
    deployment_target: str = ""  # of Target.deployment_targets, "" for a target that has none
    images: bool = False  # whether the input `image` is an 8-bit image instead of an array


class TaskPack(NamedTuple):
    """A pack of one task that is to be joined with others."""

    folder: Path
    manifest: Manifest
    prefix: str  # of its files in the joined pack, "" for the first task

    @property
    def task(self) -> str:
        """Its only task."""
        return self.manifest.tasks[0]


Emit = Callable[["FloatPack", Mapping[str, str], Path, str], dict[str, Written]]
Joined = dict[tuple[str, str, str], Written]  # (task, graph, label) -> its files in the joined pack


class Offer(NamedTuple):
    """One way to write a quantized pack for a target."""

    precisions: Mapping[str, str]  # layer -> precision
    emit: Emit


@dataclass(frozen=True)
class Target:
    """One kind of graph file, and how it is written."""

    name: str  # as the manifest and `--to` have it
    runtime: str  # name of the runtime in `runtimes/` that runs the files; it checks them when a pack is written
    precisions: tuple[str, ...]  # labels that graphs can have; "w8+bf16" computes in bf16 what is not integer
    emit: Emit  # writes all graphs of a float pack into a folder: (pack, layer -> precision, folder, label)
    # Writes one traced graph in float32 into a folder; None where `emit` can start from the ONNX graphs.
    write: Callable[[GraphToWrite, Path], Written] | None = None
    # Writes the graphs of packs of one task each into one pack's folder; None where tasks cannot share a pack.
    join: Callable[[Sequence[TaskPack], Path], Joined] | None = None
    check: Callable[[Manifest], None] = lambda _: None  # raises UsageError for a pack that `emit` cannot start from
    # The ways in which `quantize` may write a plan: (label, layer -> precision) -> offers by their label, of which the
    # fastest is shipped; None for `emit` itself.
    offers: Callable[[str, Mapping[str, str]], dict[str, Offer]] | None = None
    baselines: tuple[str, ...] = ()  # labels of float files that `quantize` measures next to several offers
    # What a plan means to the target's own quantizer: (pack, layer -> precision) -> its name and JSON.
    plan: Callable[[FloatPack, Mapping[str, str]], tuple[str, dict[str, Any]]] | None = None
    timed: bool = True  # whether speed can be measured here: not where an interpreter stands in for the runtime
    # Operating systems that the files can be made for, and the version of the format each has.
    deployment_targets: Mapping[str, int] = field(default_factory=dict[str, int])
    default_deployment_target: str = ""  # the one that is taken if none is named
    joined_deployment_target: str = ""  # the only one whose files can hold several tasks, "" where all can
    needs: Mapping[str, int] = field(default_factory=dict[str, int])  # weight precision -> first version that has it
    images: bool = False  # whether graphs can take 8-bit images


def target_of(name: str) -> Target:
    """The target of that name. Raises UnknownNameError."""
    if name not in TARGETS:
        raise UnknownNameError("target", name, TARGETS)
    return import_module(f".{name}", __package__).TARGET


def targets_of(names: Sequence[str]) -> list[Target]:
    """The targets of these names. Raises UnknownNameError."""
    return [target_of(name) for name in names]


def targets_with(has: Callable[[Target], object]) -> str:
    """The names of those that have something, for messages: "onnx,coreml"."""
    return ",".join(target.name for target in targets_of(TARGETS) if has(target))
