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

from ..core.arrays import Image
from ..core.errors import GraphError, PhotoWriteError, UnknownNameError, UsageError
from ..core.files import failure_reason
from ..core.image import read
from ..core.manifest import FORMAT, Golden, GraphSpec, Manifest, PackedFile, Size, mirror
from ..core.models.eager import eager
from ..core.noise import NOISE_SPEC
from ..core.pack import packed_file
from ..core.restore import Restorer
from ..core.tiles import Window
from ..core.verify import verify, write_golden
from .card import card
from .graphs import Graph
from .measure import TILE, bytes_per_pixel, macs_per_pixel, parameters
from .place import check_place
from .quantization.levels import LEVELS
from .quantization.samples import samples
from .quantization.variant import open_float, settle, uniform_levels, write_onnx
from .source import Opened, Source, Task
from .to_onnx import convert

__all__ = ["PRECISIONS", "check_place", "golden_photo", "write_pack"]

PRECISIONS = LEVELS
CALIBRATION_SIDE = 256  # pixels of the squares that give 8 bits their ranges
GOLDEN_SIDE = 96  # pixels; the packed restoration is a crop of this size
GOLDEN_SEED = 2024
FLOAT_SLACK = 2  # grey levels by which rounding may move a float32 restoration
PENDING = PackedFile("pending", "0" * 64, 0)  # stands where a hash comes


def write_pack(
    source: Source,
    folder: Path,
    *,
    name: str,
    photos: Sequence[Path],
    precision: str = "fp32",
    trained_on: str = "",
) -> Manifest:
    """Export a model to `folder`, which appears whole or not at all.

    source: a DtpmSource, DiffirSource or Gen2ResSource, which says how it samples too. photos: clean ones; the first,
    damaged, gives the golden restoration, all give int8 its ranges. precision: one of PRECISIONS. trained_on: what the
    card says of the photos that the weights come from, Markdown. Raises UnknownNameError, UsageError for what cannot be
    packed so, CheckpointError, PhotoWriteError when `folder` exists or cannot be written, GraphError where the packed
    graphs do not do what PyTorch does.
    """
    if precision not in PRECISIONS:
        raise UnknownNameError("precision", precision, PRECISIONS)
    if not photos:
        raise UsageError("no photo was given; a pack needs at least one, for its golden restoration")
    check_place(folder)
    opened = source.open()
    _check_windows(opened)
    try:
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as temporary:
            draft = Path(temporary) / folder.name
            draft.mkdir()
            manifest = _fill(draft, source, opened, name, precision, photos[0], trained_on)
            if precision != "fp32":
                draft, manifest = _quantized(draft, precision, photos)
            shutil.move(draft, folder)
    except OSError as error:
        raise PhotoWriteError(f"the pack {folder} cannot be written: {failure_reason(error)}") from error
    return manifest


def _check_windows(opened: Opened) -> None:
    size: Size = opened.facts["size"]
    for window in opened.facts["receptive_field"].values():
        if isinstance(window, Window) and not size.takes(window):
            raise UsageError(f"a window of {window.edge} {window.overlap} was given; expected {size.expected(window)}")


def _fill(
    folder: Path,
    source: Source,
    opened: Opened,
    name: str,
    precision: str,
    photo: Path,
    trained_on: str,
) -> Manifest:
    """The pack in float32; its card says what it is to become."""
    graphs = opened.graphs
    draft = _draft(opened, name, source.digest())
    files = {name: _write_graph(folder, name, graph, draft) for name, graph in graphs.items()}
    (folder / "CARD.md").write_text(card(draft, opened.about, precision, trained_on), encoding="utf-8")
    finished = dataclasses.replace(
        draft,
        graphs={
            graph: dataclasses.replace(spec, files={"onnx": {"fp32": files[graph]}})
            for graph, spec in draft.graphs.items()
        },
        card=packed_file(folder, "CARD.md"),
    )
    _add_golden(folder, finished, graphs, golden_photo(photo, opened.damage))
    return Manifest.load(folder)


def _quantized(floats: Path, level: str, photos: Sequence[Path]) -> tuple[Path, Manifest]:
    """The pack with every layer at one level, beside the one in float32."""
    manifest = Manifest.load(floats)
    pack = open_float(floats, samples(photos, manifest.tasks[0], CALIBRATION_SIDE))
    folder = floats.with_name(f"{floats.name}.{level}")
    folder.mkdir()
    settle(folder, write_onnx(pack, uniform_levels(pack.layers, level), folder, level), {})
    return folder, Manifest.load(folder)


def _draft(opened: Opened, name: str, checkpoint: str) -> Manifest:
    """The manifest but for its files: placeholders stand where hashes come."""
    specs = {n: GraphSpec(g.inputs, g.outputs, {"onnx": {"fp32": PENDING}}) for n, g in opened.graphs.items()}
    return Manifest(
        format=FORMAT,
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
    graphs, reach = opened.graphs, opened.facts["receptive_field"]
    tiles = {name: window.edge if isinstance(window, Window) else TILE for name, window in reach.items()}
    return {
        "parameters": {name: parameters(graph) for name, graph in graphs.items()},
        "macs_per_pixel": {name: macs_per_pixel(graphs[name], tile) for name, tile in tiles.items()},
        "bytes_per_pixel": {name: bytes_per_pixel(graphs[name], tile) for name, tile in tiles.items()},
    }


def _write_graph(folder: Path, name: str, graph: Graph, draft: Manifest) -> PackedFile:
    metadata = {"pocketprior.graph": name, "pocketprior.manifest": mirror(draft)}
    convert(graph, folder / f"{name}.onnx", multiple=draft.size.multiple_of, metadata=metadata)
    return packed_file(folder, f"{name}.onnx")


def _add_golden(folder: Path, manifest: Manifest, graphs: Mapping[str, Graph], photo: Image) -> None:
    """Record what the checkpoint makes of `photo` and how far the packed graphs are from it, and save the manifest."""
    reference = Restorer(manifest, {n: eager(g.module, list(g.inputs), *g.outputs) for n, g in graphs.items()})
    restored = reference(photo, seed=GOLDEN_SEED)
    file = write_golden(folder, "golden/photo.npz", photo=photo, seed=GOLDEN_SEED, strength=1.0, restored=restored)
    dataclasses.replace(manifest, golden={"photo": Golden(file, 255, "not measured yet")}).save(folder)
    found = max(check.difference for check in verify(folder).goldens)
    if found > FLOAT_SLACK:
        raise GraphError(
            f"the float32 graphs of '{manifest.name}' are {found} grey levels from PyTorch, at most {FLOAT_SLACK} can "
            "be rounding; the model cannot be packed: report it, with its configuration"
        )
    golden = Golden(file, max(1, found), "float32 graphs differ from PyTorch by rounding only")
    parity = {"onnx": {"golden_max_level_error": float(found)}}
    dataclasses.replace(manifest, golden={"photo": golden}, parity=parity).save(folder)


def golden_photo(path: Path, damage: Task) -> Image:
    """The centre of a clean photo, damaged with a fixed seed: (96, 96, 3) uint8, or less of a smaller photo."""
    pixels = read(path).pixels
    y, x = (max(0, (side - GOLDEN_SIDE) // 2) for side in pixels.shape[:2])
    square = pixels[y : y + GOLDEN_SIDE, x : x + GOLDEN_SIDE].astype(np.float32) / np.iinfo(pixels.dtype).max
    damaged = damage(square.astype(np.float32), np.random.default_rng(GOLDEN_SEED))
    return np.round(damaged * 255).astype(np.uint8)
