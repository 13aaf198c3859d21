"""Packs whose graphs take tiles of one size alone: exported, run on photos of any size, held against a recording."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from pocketprior.core.arrays import Image
from pocketprior.core.cli import main
from pocketprior.core.errors import GraphError, PackError, UsageError
from pocketprior.core.models.deploy.rewrite import eager
from pocketprior.core.pack.manifest import Manifest, Size, TileWindow
from pocketprior.core.photo.io import read
from pocketprior.core.restore.restorer import Restorer
from pocketprior.core.restore.selftest import verify
from pocketprior.export.targets import TARGETS
from pocketprior.export.writer.pack import PackOptions, write_pack
from support.small_models import PHOTOS, save_diffir, source_of

TILE = 128
STEPS = 1  # of the DTPM: the reach of two is more than the tile
SYSTEMS = ("dtpm", "diffir", "gen2res")
SIZES = ((1, 1), (40, 300), (128, 128), (150, 131), (60, 24))

Packs = Callable[[str], Path]


@pytest.fixture(scope="module")
def fixed(tmp_path_factory: pytest.TempPathFactory) -> Packs:
    known: dict[str, Path] = {}

    def pack(system: str) -> Path:
        if system not in known:
            folder = tmp_path_factory.mktemp(system)
            source = source_of(system, folder, STEPS)
            targets = TARGETS if system == "dtpm" else TARGETS[:1]  # the way to the others is the same
            write_pack(source, folder / "pack", PHOTOS[:1], PackOptions(name="x", targets=targets, tile=TILE))
            known[system] = folder / "pack"
        return known[system]

    return pack


def photo(height: int, width: int) -> Image:
    return np.ascontiguousarray(read(PHOTOS[0]).pixels[40 : 40 + height, 60 : 60 + width])


@pytest.mark.parametrize("system", SYSTEMS)
def test_files_have_the_size_of_the_tile(fixed: Packs, system: str) -> None:
    manifest = Manifest.load(fixed(system))
    assert manifest.size == Size(manifest.size.multiple_of, TILE, fixed=True)
    for name, spec in manifest.graphs.items():
        inputs = onnx.load(fixed(system) / f"{name}.onnx").graph.input
        shapes = {i.name: tuple(d.dim_value for d in i.type.tensor_type.shape.dim) for i in inputs}
        assert shapes == {name: array.shape for name, array in spec.sized(manifest.size).inputs.items()}
        assert not spec.spatial or (1, 3, TILE, TILE) in shapes.values()


@pytest.mark.parametrize(
    ("system", "runtime"), [(system, "onnxruntime") for system in SYSTEMS] + [("dtpm", "openvino"), ("dtpm", "coreml")]
)
def test_photos_of_any_size_are_restored(fixed: Packs, system: str, runtime: str) -> None:
    """The same in every runtime, whose graphs refuse any other size."""
    restorer, known = (Restorer.from_pack(fixed(system), runtime=r, threads=1) for r in (runtime, "onnxruntime"))
    for height, width in SIZES if runtime == "onnxruntime" else SIZES[1:2]:
        restored = restorer(photo(height, width), seed=3)
        assert restored.shape == (height, width, 3)
        assert np.abs(restored.astype(int) - known(photo(height, width), seed=3)).max() <= 1
    assert verify(fixed(system), runtime).ok


@pytest.mark.parametrize(("system", "window"), [("dtpm", None), ("gen2res", TileWindow(TILE, 8))])
def test_tiles_are_those_of_free_sizes(fixed: Packs, tmp_path: Path, system: str, window: TileWindow | None) -> None:
    """On a photo that needs no padding to the tile: of a DTPM because the reach is kept, of a Gen2Res by its window."""
    manifest, opened = Manifest.load(fixed(system)), source_of(system, tmp_path, STEPS).open()
    graphs = {name: eager(graph.module, list(graph.inputs), *graph.outputs) for name, graph in opened.graphs.items()}
    reach = manifest.receptive_field if window is None else dict.fromkeys(manifest.receptive_field, window)
    free = Restorer(replace(manifest, size=opened.facts["size"], receptive_field=reach), graphs)
    large = photo(200, 180)
    difference = Restorer.from_pack(fixed(system), threads=1)(large).astype(int) - free(large)
    assert np.abs(difference).max() <= 1


def test_another_size_is_refused(fixed: Packs) -> None:
    restorer = Restorer.from_pack(fixed("gen2res"), threads=1)
    x = np.zeros((1, 3, 64, TILE), np.float32)
    with pytest.raises(GraphError, match=r"input 'x': expected the shape \[1, 3, 128, 128\], got \[1, 3, 64, 128\]"):
        restorer.graphs["denoise"](x=x, t=np.zeros(1, np.float32))
    with pytest.raises(UsageError, match="runs only on tiles of 128 pixels"):
        restorer(photo(8, 8), tile=64)


@pytest.mark.parametrize(
    ("system", "tile", "error", "words"),
    [
        ("gen2res", 66, UsageError, "expected tiles of a multiple of 4 pixels, got 66"),
        ("gen2res", 0, UsageError, "a multiple of 4 pixels, got 0"),
        ("gen2res", 24, UsageError, "a window of 24 8 was given; expected .* 36 or more, exactly 24"),
        ("dtpm", 32, PackError, r"size: given 32, expected \d+ or more, for what the graphs see"),
    ],
)
def test_tiles_that_cannot_be(tmp_path: Path, system: str, tile: int, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        write_pack(source_of(system, tmp_path, STEPS), tmp_path / "pack", PHOTOS[:1], PackOptions(name="x", tile=tile))
    assert not (tmp_path / "pack").exists()


def test_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exported, recorded and held against one another with the same option."""
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "one.jpg").write_bytes(PHOTOS[0].read_bytes())
    checkpoint, options = str(save_diffir(tmp_path)), ["--window", "64", "8", "--tile", "64"]
    pack, recording = str(tmp_path / "pack"), str(tmp_path / "known.npz")
    assert main(["export", checkpoint, "--data", str(photos), "-o", pack, *options]) == 0
    assert main(["info", pack]) == 0
    assert "tiles only of 64 x 64 pixels" in capsys.readouterr().out
    told = ["--photos", str(PHOTOS[0]), "--side", "100", "--device", "cpu"]
    assert main(["parity", "record", checkpoint, "-o", recording, *told, *options]) == 0
    assert main(["parity", "run", pack, "--against", recording]) == 0
    assert main(["parity", "record", checkpoint, "-o", recording, *told, "--window", "64", "8"]) == 0
    assert main(["parity", "run", pack, "--against", recording]) == 1
    assert "first at the error source 'facts'" in capsys.readouterr().out
