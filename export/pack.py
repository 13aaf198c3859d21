"""Write a pack: graphs, manifest, golden restoration, model card. The same checkpoint gives the same bytes.

What differs between the systems is in `dtpm.py`, `diffir.py` and `gen2res.py`.
"""

from __future__ import annotations

import dataclasses
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from torch.export import ExportedProgram

from ..core.arrays import Image
from ..core.errors import GraphError, PhotoWriteError, UnknownNameError, UsageError
from ..core.files import failure_reason
from ..core.models.deploy.rewrite import eager
from ..core.pack.manifest import MANIFEST_FORMAT, Golden, GraphSpec, Manifest, PackedFile, Size, mirror
from ..core.pack.size import TileWindow
from ..core.pack.store import packed_file
from ..core.photo.io import read
from ..core.restore.restorer import Restorer
from ..core.restore.selftest import verify, write_golden
from ..core.sampling.noise import NOISE_SPEC
from .card import card
from .coreml.coded import NEEDS
from .coreml.convert import SYSTEM, SYSTEMS
from .coreml.convert import convert as convert_coreml
from .coreml.palette import PALETTES
from .graphs import Graph, traced
from .measure import TILE, bytes_per_pixel, macs_per_pixel, parameters
from .place import check_place
from .quantization.files import EMITTERS, Written, assembled, bare, filed, package_parts
from .quantization.levels import LEVELS
from .quantization.samples import samples
from .quantization.variant import FLOAT_SLACK, open_float, settle, uniform_levels
from .source import Opened, Source, Task
from .to_onnx import convert

__all__ = ["PRECISIONS", "TARGETS", "check_place", "golden_photo", "write_pack"]

# What each target can have: levels of the weights, and what is computed in beside integers where that is not float32.
PRECISIONS = {
    "onnx": LEVELS,
    "openvino": (*LEVELS, "fp16+bf16", "w8+bf16", "w4+bf16", "int8+bf16"),
    "coreml": (*LEVELS, *(f"{level}+fp16" for level in (*LEVELS[2:], *PALETTES))),
}
TARGETS = tuple(PRECISIONS)
CALIBRATION_SIDE = 256  # pixels of the squares that give 8 bits their ranges
GOLDEN_SIDE = 96  # pixels; the packed restoration is a crop of this size
GOLDEN_SEED = 2024
GOLDEN_AMOUNTS = {
    "photo": 1.0,
    "less": 0.5,
    "more": 1.5,
}  # of packs that take one; a quarter of the crop for the others
PENDING = PackedFile("pending", "0" * 64, 0)  # stands where a hash comes


def write_pack(
    source: Source,
    folder: Path,
    *,
    name: str,
    photos: Sequence[Path],
    targets: Sequence[str] = ("onnx",),
    precisions: Sequence[str] = ("fp32",),
    system: str | None = None,
    trained_on: str = "",
    fused: bool = True,
    tile: int | None = None,
    pictures: bool = False,
) -> Manifest:
    """Export a model to `folder`, which appears whole or not at all.

    source: a DtpmSource, DiffirSource or Gen2ResSource, which says how it samples too. photos: clean ones; the first,
    damaged, gives the golden restoration, all give 8 bits their ranges. targets: of TARGETS. precisions: of those in
    PRECISIONS, for each target; the pack has graphs in all of them and is run in the first. system: the oldest that is
    to run Core ML packages, one of SYSTEMS; None for the oldest since iOS 17 that knows the precisions. trained_on:
    what the card says of the photos that the weights come from, Markdown. fused: whether the pack has the fused graph
    of a model that has one; without it the pack is smaller. tile: edge in pixels of the only tiles that the graphs
    take, None for tiles of any size; some processors, Apple's among them, run graphs of fixed sizes faster or alone.
    pictures: whether Core ML packages are given `image` as a picture of 8 bits, not as an array.

    Raises UnknownNameError, UsageError for what cannot be packed so, CheckpointError, PhotoWriteError when `folder`
    exists or cannot be written, GraphError where the packed graphs do not do what PyTorch does, MissingExtraError
    without the toolchain of a target.
    """
    _check_precisions(targets, precisions)
    _check_system(system, targets, precisions)
    if pictures and "coreml" not in targets:
        raise UsageError("pictures were asked for, which Core ML packages alone can be given: add --to coreml")
    if not photos:
        raise UsageError("no photo was given; a pack needs at least one, for its golden restoration")
    check_place(folder)
    opened = source.open() if fused else _without_fused(source.open())
    opened = opened if tile is None else opened.in_tiles(tile)
    _check_windows(opened)
    try:
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as temporary:
            draft = Path(temporary) / folder.name
            draft.mkdir()
            manifest = _draft(opened, name, source.digest())
            multiple = manifest.size.multiple_of
            programs = {name: traced(graph, multiple, tile) for name, graph in opened.graphs.items()}
            text = card(manifest, opened.about, ", ".join(precisions), trained_on)
            manifest = _fill(draft, manifest, opened, programs, text, photos[0])
            if "coreml" in targets:
                manifest = _with_packages(draft, manifest, opened, programs, system or SYSTEM, pictures)
            if (tuple(targets), tuple(precisions)) != (("onnx",), ("fp32",)):
                draft, manifest = _emitted(draft, targets, precisions, photos)
            shutil.move(draft, folder)
    except OSError as error:
        raise PhotoWriteError(f"the pack {folder} cannot be written: {failure_reason(error)}") from error
    return manifest


def _check_precisions(targets: Sequence[str], precisions: Sequence[str]) -> None:
    for target in targets:
        if target not in PRECISIONS:
            raise UnknownNameError("target", target, PRECISIONS)
        for precision in precisions:
            if precision not in PRECISIONS[target]:
                raise UnknownNameError(f"precision of {target}", precision, PRECISIONS[target])
    for names in (targets, precisions):
        if not names or len(names) != len(set(names)):
            raise UsageError(f"'{','.join(names)}' was given; name one or more, each once")


def _check_system(system: str | None, targets: Sequence[str], precisions: Sequence[str]) -> None:
    if system is None:
        return
    if system not in SYSTEMS:
        raise UnknownNameError("system", system, SYSTEMS)
    if "coreml" not in targets:
        raise UsageError(f"the system {system} was given; it is asked for by Core ML packages alone: add --to coreml")
    for precision in precisions:
        needed = NEEDS.get(precision.partition("+")[0], 0)
        if needed > SYSTEMS[system]:
            able = ", ".join(name for name, version in SYSTEMS.items() if version >= needed)
            raise UsageError(f"{precision} was asked for, which {system} does not have; those that have it: {able}")


def _check_windows(opened: Opened) -> None:
    size: Size = opened.facts["size"]
    for window in opened.facts["receptive_field"].values():
        if isinstance(window, TileWindow) and not size.takes(window):
            raise UsageError(f"a window of {window.edge} {window.overlap} was given; expected {size.expected(window)}")


def _without_fused(opened: Opened) -> Opened:
    if "fused" not in opened.graphs:
        raise UsageError(
            f"a pack without its fused graph was asked for; this {opened.facts['model']} has none: leave the option out"
        )
    facts = {**opened.facts, "receptive_field": _rest(opened.facts["receptive_field"])}
    return dataclasses.replace(opened, graphs=_rest(opened.graphs), facts=facts)


def _rest(graphs: Mapping[str, Any]) -> dict[str, Any]:
    return {name: fact for name, fact in graphs.items() if name != "fused"}


def _fill(
    folder: Path, draft: Manifest, opened: Opened, programs: Mapping[str, ExportedProgram], card: str, photo: Path
) -> Manifest:
    """The pack in float32 as ONNX."""
    graphs = opened.graphs
    files = {name: _write_graph(folder, name, graph, programs[name], draft) for name, graph in graphs.items()}
    finished = filed(bare(draft), "onnx", files)
    (folder / "CARD.md").write_text(card, encoding="utf-8")
    finished = dataclasses.replace(finished, card=packed_file(folder, "CARD.md"))
    _add_golden(folder, finished, graphs, golden_photo(photo, opened.damage))
    return Manifest.load(folder)


def _with_packages(
    folder: Path,
    manifest: Manifest,
    opened: Opened,
    programs: Mapping[str, ExportedProgram],
    system: str,
    pictures: bool,
) -> Manifest:
    """The pack with Core ML packages in float32 beside its other graphs."""
    packages: dict[str, Written] = {}
    for name, graph in opened.graphs.items():
        package, size = f"{name}.mlpackage", manifest.size
        convert_coreml(
            graph,
            programs[name],
            folder / package,
            multiple=size.multiple_of,
            tile=size.minimum if size.fixed else None,
            pictures=pictures,
            metadata=_metadata(name, manifest),
            system=system,
        )
        packages[name] = package_parts(folder, package, "fp32")
    manifest = filed(manifest, "coreml", packages)
    manifest.save(folder)
    return manifest


def _emitted(
    floats: Path, targets: Sequence[str], precisions: Sequence[str], photos: Sequence[Path]
) -> tuple[Path, Manifest]:
    """The pack with the graphs that were asked for, beside the one with float32 ones."""
    manifest = Manifest.load(floats)
    pack = open_float(floats, samples(photos, manifest.tasks[0], CALIBRATION_SIDE))
    folder = floats.with_name(f"{floats.name}.emitted")
    folder.mkdir()
    manifest = bare(manifest)
    for target in targets:
        for precision in precisions:
            levels = uniform_levels(pack.layers, precision.partition("+")[0])
            manifest = filed(manifest, target, EMITTERS[target](pack, levels, folder, precision))
    settle(folder, assembled(pack, folder, manifest), {})
    return folder, Manifest.load(folder)


def _draft(opened: Opened, name: str, checkpoint: str) -> Manifest:
    """The manifest but for its files: placeholders stand where hashes come."""
    specs = {n: GraphSpec(g.inputs, g.outputs, {"onnx": {"fp32": PENDING}}) for n, g in opened.graphs.items()}
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
        card=PENDING,
        golden={"pending": Golden(PENDING, 0, "pending")},
        **_measured(opened),
        **opened.facts,
    )


def _measured(opened: Opened) -> dict[str, Any]:
    """Costs; per pixel for the graphs that are run on tiles, on the tile that they are run on where that is fixed."""
    graphs, reach, size = opened.graphs, opened.facts["receptive_field"], opened.facts["size"]
    usual = size.minimum if size.fixed else TILE
    tiles = {name: window.edge if isinstance(window, TileWindow) else usual for name, window in reach.items()}
    return {
        "parameters": {name: parameters(graph) for name, graph in graphs.items()},
        "macs_per_pixel": {name: macs_per_pixel(graphs[name], tile) for name, tile in tiles.items()},
        "bytes_per_pixel": {name: bytes_per_pixel(graphs[name], tile) for name, tile in tiles.items()},
    }


def _write_graph(folder: Path, name: str, graph: Graph, program: ExportedProgram, draft: Manifest) -> Written:
    path = folder / f"{name}.onnx"
    beside = convert(graph, program, path, metadata=_metadata(name, draft))
    return Written("fp32", packed_file(folder, path.name), tuple(packed_file(folder, part.name) for part in beside))


def _metadata(name: str, draft: Manifest) -> dict[str, str]:
    return {"pocketprior.graph": name, "pocketprior.manifest": mirror(draft)}


def _add_golden(folder: Path, manifest: Manifest, graphs: Mapping[str, Graph], photo: Image) -> None:
    """Record what the checkpoint makes of `photo` and how far the packed graphs are from it, and save the manifest."""
    reference = Restorer(manifest, {n: eager(g.module, list(g.inputs), *g.outputs) for n, g in graphs.items()})
    files: dict[str, PackedFile] = {}
    for name, amount in (GOLDEN_AMOUNTS if manifest.takes_amount else {"photo": 1.0}).items():
        part = photo if amount == 1 else photo[: GOLDEN_SIDE // 2, : GOLDEN_SIDE // 2]
        files[name] = write_golden(
            folder,
            f"golden/{name}.npz",
            photo=part,
            seed=GOLDEN_SEED,
            strength=1.0,
            restored=reference(part, seed=GOLDEN_SEED, amount=amount),
            amount=amount,
        )
    golden = {name: Golden(file, 255, "not measured yet") for name, file in files.items()}
    dataclasses.replace(manifest, golden=golden).save(folder)
    found = max(check.difference for check in verify(folder).goldens)
    if found > FLOAT_SLACK:
        raise GraphError(
            f"the float32 graphs of '{manifest.name}' are {found} grey levels from PyTorch, at most {FLOAT_SLACK} can "
            "be rounding; the model cannot be packed: report it, with its configuration"
        )
    reason = "float32 graphs differ from PyTorch by rounding only"
    golden = {name: Golden(file, max(1, found), reason) for name, file in files.items()}
    parity = {"onnx": {"golden_max_level_error": float(found)}}
    dataclasses.replace(manifest, golden=golden, parity=parity).save(folder)


def golden_photo(path: Path, damage: Task) -> Image:
    """The centre of a clean photo, damaged with a fixed seed: (96, 96, 3) uint8, or less of a smaller photo."""
    pixels = read(path).pixels
    y, x = (max(0, (side - GOLDEN_SIDE) // 2) for side in pixels.shape[:2])
    square = pixels[y : y + GOLDEN_SIDE, x : x + GOLDEN_SIDE].astype(np.float32) / np.iinfo(pixels.dtype).max
    damaged = damage(square.astype(np.float32), np.random.default_rng(GOLDEN_SEED))
    return np.round(damaged * 255).astype(np.uint8)
