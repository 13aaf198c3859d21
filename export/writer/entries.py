"""The files of a pack and their entries in the manifest."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from ...core.errors import PhotoWriteError
from ...core.files import failure_reason
from ...core.pack.manifest import GraphSpec, Manifest
from ..targets import Written

__all__ = ["assembled", "bare", "check_place", "filed", "written_whole"]


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


def written_whole(folder: Path, write: Callable[[Path], tuple[Path, Manifest]]) -> Manifest:
    """Write a pack that appears as a whole or not at all.

    Args:
        folder: Of the pack.
        write: Writes it into a new folder below the temporary one that it is given; returns that folder and the
            manifest.

    Raises:
        PhotoWriteError: The folder exists, or cannot be written.
    """
    check_place(folder)
    try:
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as temporary:
            draft, manifest = write(Path(temporary))
            shutil.move(draft, folder)
    except OSError as error:
        raise PhotoWriteError(f"the pack {folder} cannot be written: {failure_reason(error)}") from error
    return manifest


def bare(manifest: Manifest) -> Manifest:
    """The manifest without graph files."""
    graphs = {name: replace(spec, files={}, parts={}) for name, spec in manifest.graphs.items()}
    return replace(manifest, graphs=graphs, precision={})


def filed(manifest: Manifest, target: str, written: Mapping[str, Written]) -> Manifest:
    """The manifest with one more file of each graph for a target; the first one of a target is run."""
    graphs = {name: _with(spec, target, written[name]) for name, spec in manifest.graphs.items()}
    first = {name: new.label for name, new in written.items()}
    return replace(manifest, graphs=graphs, precision={target: first, **manifest.precision})


def _with(spec: GraphSpec, target: str, new: Written) -> GraphSpec:
    files = {**spec.files, target: {**spec.files.get(target, {}), new.label: new.file}}
    if not new.parts:
        return replace(spec, files=files)
    return replace(
        spec, files=files, parts={**spec.parts, target: {**spec.parts.get(target, {}), new.label: new.parts}}
    )


def assembled(source: Path, folder: Path, manifest: Manifest) -> Manifest:
    """Save the manifest in `folder`; files that are missing there come from the float pack in `source`."""
    for file in manifest.files():
        place = folder / file.file
        if not place.exists():
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes((source / file.file).read_bytes())
    manifest.save(folder)
    return manifest
