"""A pack written from checkpoints: it verifies, restores, and comes out equal twice."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from small import save_small

from pocketprior.core.cli import main
from pocketprior.core.degradations import TASKS
from pocketprior.core.errors import CheckpointError, PhotoWriteError, UnknownNameError, UsageError
from pocketprior.core.manifest import Manifest
from pocketprior.core.restore import Restorer
from pocketprior.core.verify import verify
from pocketprior.export.dtpm import DtpmSource
from pocketprior.export.pack import PRECISIONS, golden_photo, write_pack

PHOTOS = sorted((Path(__file__).parents[2] / "examples").glob("*.jpg"))


def write(folder: Path, precision: str, name: str = "pack") -> Path:
    model, semantic = save_small(folder)
    source = DtpmSource(model, str(semantic), steps=2)
    write_pack(source, folder / name, name="small", photos=PHOTOS, precision=precision)
    return folder / name


@pytest.fixture(scope="module", params=PRECISIONS)
def pack(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp(request.param), request.param)


def test_pack_verifies_here(pack: Path) -> None:
    report = verify(pack)
    assert report.ok
    assert {check.form for check in report.goldens} == {"fused", "split"}


def test_facts_are_those_of_the_model(pack: Path) -> None:
    manifest = Manifest.load(pack)
    assert manifest.tasks == ("cleanup",)
    assert len(manifest.times) == 2
    assert manifest.receptive_field["fused"] == manifest.radius(("predict", "denoise"))
    assert set(manifest.parameters) == set(manifest.graphs)
    assert not any(path.name.startswith(".") for path in pack.parent.iterdir())


def test_graph_files_carry_the_facts(pack: Path) -> None:
    for file in pack.glob("*.onnx"):
        keys = {p.key: p.value for p in onnx.load(file).metadata_props}
        assert keys["pocketprior.graph"] == file.name.split(".")[0]
        assert '"small"' in keys["pocketprior.manifest"]


def test_int8_convolutions_are_quantized(pack: Path) -> None:
    quantized = "int8" in {p for chosen in Manifest.load(pack).precision.values() for p in chosen.values()}
    operators = {node.op_type for file in pack.glob("fused*.onnx") for node in onnx.load(file).graph.node}
    assert ("QuantizeLinear" in operators) == quantized == (pack.parent.name.startswith("int8"))


def test_two_exports_are_equal(pack: Path, tmp_path: Path) -> None:
    again = write(tmp_path, "int8" if pack.parent.name.startswith("int8") else "fp32")
    files = sorted(p.relative_to(pack) for p in pack.rglob("*") if p.is_file())
    assert files == sorted(p.relative_to(again) for p in again.rglob("*") if p.is_file())
    assert all((pack / f).read_bytes() == (again / f).read_bytes() for f in files)


def test_existing_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "pack").mkdir()
    with pytest.raises(PhotoWriteError, match="exists already"):
        write(tmp_path, "fp32")


def test_unknown_precision_lists_the_known(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="fp32, int8"):
        write(tmp_path, "fp4")


def test_damaged_checkpoint_leaves_no_pack(tmp_path: Path) -> None:
    model, semantic = save_small(tmp_path)
    model.write_bytes(model.read_bytes()[:-9])
    with pytest.raises(CheckpointError):
        write_pack(DtpmSource(model, str(semantic)), tmp_path / "pack", name="x", photos=PHOTOS)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.safetensors", "semantic.safetensors"]


def test_without_a_photo_there_is_no_pack(tmp_path: Path) -> None:
    model, semantic = save_small(tmp_path)
    with pytest.raises(UsageError, match="at least one, for its golden restoration"):
        write_pack(DtpmSource(model, str(semantic)), tmp_path / "pack", name="x", photos=[])


def test_golden_photo_is_fixed() -> None:
    first, second = (golden_photo(PHOTOS[0], TASKS["cleanup"]) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert first.shape == (96, 96, 3)


def test_command_exports_a_pack(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, semantic = save_small(tmp_path)
    out = tmp_path / "pack"
    argv = ["export", str(model), "--semantic", str(semantic), "--data", str(PHOTOS[0].parent), "-o", str(out)]
    assert main([*argv, "--steps", "1"]) == 0
    assert "MB" in capsys.readouterr().out
    assert Restorer.from_pack(out)(np.zeros((5, 7, 3), np.uint8)).shape == (5, 7, 3)
