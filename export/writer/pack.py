"""Write a pack: graphs, manifest, golden restoration, model card. The same checkpoint gives the same bytes.

The way is checkpoint -> graphs (`systems`) -> files (`targets`) -> pack; only a system's own file knows that system,
only a target's own file knows that target.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import onnxruntime
import torch

from ...core.errors import PhotoWriteError, UnknownNameError, UsageError
from ...core.files import failure_reason
from ...core.pack.manifest import Manifest, Size, TileWindow, mirror
from ...core.pack.store import packed_file
from ..systems.source import CheckpointSource, Opened, traced
from ..targets import BASE_TARGET, GraphToWrite, Target, Written, targets_of, targets_with
from ..targets.calibration import damaged_photos, open_float
from ..targets.weights import uniform_precisions
from .facts import card, costs, draft_manifest
from .golden_restoration import add_golden, golden_photo, settle

__all__ = ["PackOptions", "assembled", "bare", "check_place", "filed", "new_pack", "write_pack"]

_CALIBRATION_SIDE = 256  # pixels of the squares from which 8 bits get their ranges


def check_place(folder: Path) -> None:
    """Make the folder above `folder`. Raises PhotoWriteError where no pack can be written, or one exists."""
    if folder.exists():
        raise PhotoWriteError(f"{folder} exists already; remove it or choose another folder with -o")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PhotoWriteError(f"the folder {folder.parent} cannot be made: {failure_reason(error)}") from error
    if not os.access(folder.parent, os.W_OK):
        raise PhotoWriteError(f"{folder} cannot be written: you may not write to {folder.parent}; choose another -o")


@contextmanager
def new_pack(folder: Path) -> Iterator[Path]:
    """A place for a pack, which becomes `folder` when the block ends: as a whole or not at all.

    Drafts can lie next to it. Raises PhotoWriteError where `folder` exists or cannot be written.
    """
    check_place(folder)
    try:
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as temporary:
            place = Path(temporary) / folder.name
            yield place
            if place.exists():
                shutil.move(place, folder)
    except OSError as error:
        raise PhotoWriteError(f"the pack {folder} cannot be written: {failure_reason(error)}") from error


def bare(manifest: Manifest) -> Manifest:
    """The manifest without graph files."""
    graphs = {name: replace(spec, files={}, parts={}) for name, spec in manifest.graphs.items()}
    return replace(manifest, graphs=graphs, precision={})


def filed(manifest: Manifest, target: str, written: Mapping[str, Written]) -> Manifest:
    """The manifest with one more file of each graph for a target; the first one of a target is run."""
    graphs = dict(manifest.graphs)
    for name, spec in manifest.graphs.items():
        new = written[name]
        files = {**spec.files, target: {**spec.files.get(target, {}), new.label: new.file}}
        parts = {target: {**spec.parts.get(target, {}), new.label: new.parts}} if new.parts else {}
        graphs[name] = replace(spec, files=files, parts={**spec.parts, **parts})
    first = {name: new.label for name, new in written.items()}
    return replace(manifest, graphs=graphs, precision={target: first, **manifest.precision})


def assembled(source: Path, folder: Path, manifest: Manifest) -> Manifest:
    """Save the manifest in `folder`; files that are missing there come from the float pack in `source`."""
    for file in manifest.files():
        place = folder / file.file
        if not place.exists():
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes((source / file.file).read_bytes())
    manifest.save(folder)
    return manifest


@dataclass(frozen=True)
class PackOptions:
    """What a pack holds. Raises UnknownNameError and UsageError for what does not exist or does not go together."""

    name: str = ""  # of the pack, "" for that of its folder
    targets: Sequence[str] = (BASE_TARGET,)  # of TARGETS
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
            able = targets_with(lambda target: target.images)
            raise UsageError(f"--pictures was given; only {able} files can take images: add --to {able}")
        if self.deployment_target is not None:
            self._check_deployment(self.deployment_target, [target for target in targets if target.deployment_targets])

    def _check_deployment(self, system: str, targets: Sequence[Target]) -> None:
        if not targets:
            able = targets_with(lambda target: target.deployment_targets)
            raise UsageError(f"--system {system} was given; only {able} files ask for a system: add --to {able}")
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
    """Export one model to `folder`, which must not exist, and appears as a whole or not at all; returns the manifest.

    Photos are clean; the first, damaged, gives the golden restoration, all give 8 bits their ranges. Without options
    the pack holds float32 ONNX graphs. Raises UsageError for a model that cannot be packed with these options,
    CheckpointError for one that cannot be read, PhotoWriteError where `folder` exists or cannot be written, GraphError
    where the packed graphs do not do what PyTorch does, MissingExtraError without the toolchain of a target.
    """
    options = options or PackOptions()
    check_place(folder)
    if not photos:
        raise UsageError("no photo was given; a pack needs at least one, for its golden restoration")
    opened = _opened(source, options)
    versions = {"onnxruntime": onnxruntime.__version__, "torch": torch.__version__.split("+")[0]}
    made_by = {"checkpoint": source.digest(), "pocketprior": version("pocketprior"), **versions}
    name = options.name or folder.name
    manifest = draft_manifest(opened, BASE_TARGET, name=name, made_by=made_by, **costs(opened))
    with new_pack(folder) as pack:
        if (tuple(options.targets), tuple(options.precisions)) == ((BASE_TARGET,), ("fp32",)):
            return _float_pack(pack, manifest, opened, photos[0], options)
        floats = pack.with_name(f"{pack.name}.float")
        return _emitted(_float_pack(floats, manifest, opened, photos[0], options), floats, pack, photos, options)


def _opened(source: CheckpointSource, options: PackOptions) -> Opened:
    opened = source.open()
    if not options.fused:
        if "fused" not in opened.graphs:
            raise UsageError(f"--split was given; this {opened.facts['model']} has no fused graph: leave it out")
        facts = {**opened.facts, "receptive_field": _without_fused(opened.facts["receptive_field"])}
        opened = replace(opened, graphs=_without_fused(opened.graphs), facts=facts)
    opened = opened if options.tile is None else opened.in_tiles(options.tile)
    size: Size = opened.facts["size"]
    for window in opened.facts["receptive_field"].values():
        if isinstance(window, TileWindow) and not size.takes(window):
            raise UsageError(f"a window of {window.edge} {window.overlap} was given; expected {size.expected(window)}")
    return opened


def _without_fused(graphs: Mapping[str, Any]) -> dict[str, Any]:
    return {name: fact for name, fact in graphs.items() if name != "fused"}


def _float_pack(folder: Path, manifest: Manifest, opened: Opened, photo: Path, options: PackOptions) -> Manifest:
    """Write a pack with float32 graphs of the base target, and of those that start from what PyTorch traces."""
    folder.mkdir()
    size = manifest.size
    programs = {name: traced(graph, size.multiple_of, options.tile) for name, graph in opened.graphs.items()}
    text = card(manifest, opened.about, ", ".join(options.precisions), options.trained_on)
    for target in targets_of(list(dict.fromkeys([BASE_TARGET, *options.targets]))):
        if target.write is None:
            continue
        system = (options.deployment_target or target.default_deployment_target) if target.deployment_targets else ""
        written: dict[str, Written] = {}
        for name, graph in opened.graphs.items():
            tile = size.minimum if size.fixed else None
            metadata = {"pocketprior.graph": name, "pocketprior.manifest": mirror(manifest)}
            images = options.images and target.images
            job = GraphToWrite(name, graph, programs[name], size.multiple_of, tile, metadata, system, images)
            written[name] = target.write(job, folder)
        if target.name == BASE_TARGET:
            manifest = filed(bare(manifest), target.name, written)
            (folder / "CARD.md").write_text(text, encoding="utf-8")
            manifest = replace(manifest, card=packed_file(folder, "CARD.md"))
            manifest = add_golden(folder, manifest, opened.graphs, golden_photo(photo, opened.damage))
        else:
            manifest = filed(manifest, target.name, written)
            manifest.save(folder)
    return manifest


def _emitted(manifest: Manifest, floats: Path, folder: Path, photos: Sequence[Path], options: PackOptions) -> Manifest:
    """Write the pack with the graphs that were asked for, from the one with float32 graphs."""
    pack = open_float(floats, damaged_photos(photos, manifest.tasks[0], _CALIBRATION_SIDE))
    folder.mkdir()
    manifest = bare(manifest)
    for target in targets_of(options.targets):
        for precision in options.precisions:
            precisions = uniform_precisions(pack.layers, precision.partition("+")[0])
            manifest = filed(manifest, target.name, target.emit(pack, precisions, folder, precision))
    return settle(folder, assembled(pack.folder, folder, manifest), {})
