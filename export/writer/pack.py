"""Write a pack: graphs, manifest, golden restoration, model card. The same checkpoint gives the same bytes.

The way is checkpoint -> graphs (`systems`) -> files (`targets`) -> pack; only a system's own file knows that system,
only a target's own file knows that target.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import onnxruntime
import torch
from torch.export import ExportedProgram

from ...core.errors import UnknownNameError, UsageError
from ...core.pack.manifest import MANIFEST_FORMAT, Golden, GraphSpec, Manifest, PackedFile, Size, TileWindow, mirror
from ...core.pack.store import packed_file
from ...core.sampling.noise import NOISE_SPEC
from ..systems.model_graph import traced
from ..systems.source import CheckpointSource, Opened
from ..targets import GraphToWrite, Target, target_of, targets_of
from ..targets.calibration import damaged_photos, open_float
from ..targets.weights import uniform_precisions
from .entries import assembled, bare, check_place, filed, written_whole
from .facts import COST_TILE, bytes_per_pixel, card, macs_per_pixel, parameters
from .golden_restoration import add_golden, golden_photo, settle

__all__ = ["PackOptions", "write_pack"]

_CALIBRATION_SIDE = 256  # pixels of the squares from which 8 bits get their ranges
_PENDING = PackedFile("pending", "0" * 64, 0)  # stands where a hash comes


@dataclass(frozen=True)
class PackOptions:
    """What a pack holds.

    Raises UnknownNameError and UsageError for what does not exist or does not go together.
    """

    name: str = ""  # of the pack, "" for that of its folder
    targets: Sequence[str] = ("onnx",)  # of TARGETS
    precisions: Sequence[str] = ("fp32",)  # of every target; graphs come in all of them, the first one is run
    deployment_target: str | None = None  # the oldest system that runs the files, None for the target's default
    trained_on: str = ""  # what the card says of the photos that the weights come from, Markdown
    fused: bool = True  # whether the pack has the fused graph of a model that has one
    tile: int | None = None  # edge in pixels of the only tiles that graphs take, None for any; NPUs want fixed sizes
    images: bool = False  # whether graphs take `image` as an 8-bit image, where the target can

    def __post_init__(self) -> None:
        targets = targets_of(self.targets)
        for names in (self.targets, self.precisions):
            if not names or len(names) != len(set(names)):
                raise UsageError(f"'{','.join(names)}' was given; name one or more, each once")
        for target in targets:
            for precision in self.precisions:
                if precision not in target.precisions:
                    raise UnknownNameError(f"precision of {target.name}", precision, target.precisions)
        if self.images and not any(target.images for target in targets):
            raise UsageError("--pictures was given; only Core ML packages can take images: add --to coreml")
        if self.deployment_target is not None:
            self._check_deployment(self.deployment_target, [target for target in targets if target.deployment_targets])

    def _check_deployment(self, system: str, targets: Sequence[Target]) -> None:
        if not targets:
            raise UsageError(f"--system {system} was given; only Core ML packages ask for a system: add --to coreml")
        for target in targets:
            known = target.deployment_targets
            if system not in known:
                raise UnknownNameError("system", system, known)
            for precision in self.precisions:
                needed = target.needs.get(precision.partition("+")[0], 0)
                if needed > known[system]:
                    able = ", ".join(name for name, version in known.items() if version >= needed)
                    raise UsageError(f"--system {system} does not have {precision}; systems that have it: {able}")


def write_pack(
    source: CheckpointSource, folder: Path, photos: Sequence[Path], options: PackOptions | None = None
) -> Manifest:
    """Export one model to `folder`, which appears as a whole or not at all.

    Args:
        source: The checkpoint, and how it is to sample.
        folder: Of the pack; it must not exist.
        photos: Clean ones; the first, damaged, gives the golden restoration, all give 8 bits their ranges.
        options: What the pack holds; None for float32 ONNX graphs.

    Raises:
        UsageError: The model cannot be packed with these options.
        CheckpointError: The checkpoint cannot be read.
        PhotoWriteError: `folder` exists or cannot be written.
        GraphError: The packed graphs do not do what PyTorch does.
        MissingExtraError: The toolchain of a target is not installed.
    """
    options = options or PackOptions()
    check_place(folder)
    if not photos:
        raise UsageError("no photo was given; a pack needs at least one, for its golden restoration")

    def write(temporary: Path) -> tuple[Path, Manifest]:
        draft = temporary / folder.name
        draft.mkdir()
        manifest = _draft(opened, options.name or folder.name, source.digest())
        programs = {n: traced(g, manifest.size.multiple_of, options.tile) for n, g in opened.graphs.items()}
        text = card(manifest, opened.about, ", ".join(options.precisions), options.trained_on)
        manifest = _with_floats(draft, manifest, target_of("onnx"), opened, programs, options)
        (draft / "CARD.md").write_text(text, encoding="utf-8")
        manifest = replace(manifest, card=packed_file(draft, "CARD.md"))
        manifest = add_golden(draft, manifest, opened.graphs, golden_photo(photos[0], opened.damage))
        for target in targets_of(options.targets):
            if target.write and target.name not in manifest.precision:
                manifest = _with_floats(draft, manifest, target, opened, programs, options)
                manifest.save(draft)
        if (tuple(options.targets), tuple(options.precisions)) == (("onnx",), ("fp32",)):
            return draft, manifest
        return _emitted(draft, photos, options)

    opened = _opened(source, options)
    return written_whole(folder, write)


def _opened(source: CheckpointSource, options: PackOptions) -> Opened:
    """The model as the options want it. Raises UsageError for what it cannot have."""
    opened = source.open()
    if not options.fused:
        if "fused" not in opened.graphs:
            raise UsageError(f"--split was given; this {opened.facts['model']} has no fused graph: leave it out")
        fields = _without_fused(opened.facts["receptive_field"])
        opened = replace(
            opened, graphs=_without_fused(opened.graphs), facts={**opened.facts, "receptive_field": fields}
        )
    opened = opened if options.tile is None else opened.in_tiles(options.tile)
    size: Size = opened.facts["size"]
    for window in opened.facts["receptive_field"].values():
        if isinstance(window, TileWindow) and not size.takes(window):
            raise UsageError(f"a window of {window.edge} {window.overlap} was given; expected {size.expected(window)}")
    return opened


def _without_fused(graphs: Mapping[str, Any]) -> dict[str, Any]:
    return {name: fact for name, fact in graphs.items() if name != "fused"}


def _draft(opened: Opened, name: str, checkpoint: str) -> Manifest:
    """The manifest without its files: placeholders stand where hashes come."""
    specs = {n: GraphSpec(g.inputs, g.outputs, {"onnx": {"fp32": _PENDING}}) for n, g in opened.graphs.items()}
    return Manifest(
        format=MANIFEST_FORMAT,
        name=name,
        value_range=(0.0, 1.0),
        noise=NOISE_SPEC,
        graphs=specs,
        precision={"onnx": dict.fromkeys(specs, "fp32")},
        parity={},
        made_by={
            "checkpoint": checkpoint,
            "onnxruntime": onnxruntime.__version__,
            "pocketprior": version("pocketprior"),
            "torch": torch.__version__.split("+")[0],
        },
        card=_PENDING,
        golden={"pending": Golden(_PENDING, 0, "pending")},
        **_measured(opened),
        **opened.facts,
    )


def _measured(opened: Opened) -> dict[str, Any]:
    """Costs; per pixel for the graphs that run on tiles, on the tile that they run on where that is fixed."""
    graphs, fields, size = opened.graphs, opened.facts["receptive_field"], opened.facts["size"]
    usual = size.minimum if size.fixed else COST_TILE
    tiles = {name: window.edge if isinstance(window, TileWindow) else usual for name, window in fields.items()}
    return {
        "parameters": {name: parameters(graph) for name, graph in graphs.items()},
        "macs_per_pixel": {name: macs_per_pixel(graphs[name], tile) for name, tile in tiles.items()},
        "bytes_per_pixel": {name: bytes_per_pixel(graphs[name], tile) for name, tile in tiles.items()},
    }


def _with_floats(
    folder: Path,
    manifest: Manifest,
    target: Target,
    opened: Opened,
    programs: Mapping[str, ExportedProgram],
    options: PackOptions,
) -> Manifest:
    """The manifest with graphs of a target in float32, written from what was traced."""
    assert target.write is not None
    size, written = manifest.size, {}
    for name, graph in opened.graphs.items():
        job = GraphToWrite(
            name=name,
            graph=graph,
            program=programs[name],
            multiple=size.multiple_of,
            tile=size.minimum if size.fixed else None,
            metadata={"pocketprior.graph": name, "pocketprior.manifest": mirror(manifest)},
            deployment_target=(options.deployment_target or target.default_deployment_target)
            if target.deployment_targets
            else "",
            images=options.images and target.images,
        )
        written[name] = target.write(job, folder)
    return filed(bare(manifest) if target.name == "onnx" else manifest, target.name, written)


def _emitted(floats: Path, photos: Sequence[Path], options: PackOptions) -> tuple[Path, Manifest]:
    """The pack with the graphs that were asked for, in a folder next to the one with float32 graphs."""
    manifest = Manifest.load(floats)
    pack = open_float(floats, damaged_photos(photos, manifest.tasks[0], _CALIBRATION_SIDE))
    folder = floats.with_name(f"{floats.name}.emitted")
    folder.mkdir()
    manifest = bare(manifest)
    for target in targets_of(options.targets):
        for precision in options.precisions:
            precisions = uniform_precisions(pack.layers, precision.partition("+")[0])
            manifest = filed(manifest, target.name, target.emit(pack, precisions, folder, precision))
    return folder, settle(folder, assembled(pack.folder, folder, manifest), {})
