"""A pack written from checkpoints: it verifies, restores, and comes out equal twice."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import onnx
import pytest

from pocketprior.core.cli import main
from pocketprior.core.degradations import TASKS
from pocketprior.core.errors import CheckpointError, PhotoWriteError, UnknownNameError, UsageError
from pocketprior.core.pack.manifest import Manifest, TileWindow
from pocketprior.core.restore.restorer import Restorer
from pocketprior.core.restore.selftest import verify
from pocketprior.export.systems.diffir import DiffirSource
from pocketprior.export.systems.dtpm import DtpmSource
from pocketprior.export.systems.source import ModelWords
from pocketprior.export.writer.facts import card
from pocketprior.export.writer.golden_restoration import golden_photo
from pocketprior.export.writer.pack import PackOptions, write_pack
from support.small_models import save_diffir, save_small

PHOTOS = sorted((Path(__file__).parents[3] / "examples").glob("*.jpg"))


def write(folder: Path, precision: str, name: str = "pack") -> Path:
    model, semantic = save_small(folder)
    source = DtpmSource(model, str(semantic), steps=2)
    write_pack(source, folder / name, PHOTOS, PackOptions(name="small", precisions=[precision]))
    return folder / name


@pytest.fixture(scope="module", params=["fp32", "int8"])
def precision(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def pack(precision: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp(precision), precision)


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


def test_int8_convolutions_are_quantized(precision: str, pack: Path) -> None:
    quantized = "int8" in {p for chosen in Manifest.load(pack).precision.values() for p in chosen.values()}
    operators = {node.op_type for file in pack.glob("fused*.onnx") for node in onnx.load(file).graph.node}
    assert ("QuantizeLinear" in operators) == quantized == (precision == "int8")


def test_two_exports_are_equal(precision: str, pack: Path, tmp_path: Path) -> None:
    again = write(tmp_path, precision)
    files = sorted(p.relative_to(pack) for p in pack.rglob("*") if p.is_file())
    assert files == sorted(p.relative_to(again) for p in again.rglob("*") if p.is_file())
    assert all((pack / f).read_bytes() == (again / f).read_bytes() for f in files)


def test_existing_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "pack").mkdir()
    with pytest.raises(PhotoWriteError, match="exists already"):
        write(tmp_path, "fp32")


def test_a_place_that_cannot_be_is_said_first(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(PhotoWriteError, match=r"file cannot be made: .*exists already"):
        write(tmp_path, "fp32", "file/pack")
    with pytest.raises(PhotoWriteError, match="a part of this path is a file"):
        write(tmp_path, "fp32", "file/sub/pack")


def test_a_full_disk_leaves_no_pack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("pocketprior.export.targets.onnx.convert_onnx", full)
    with pytest.raises(PhotoWriteError, match="pack cannot be written: the disk is full"):
        write(tmp_path, "fp32")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.safetensors", "semantic.safetensors"]


@pytest.mark.parametrize("window", [(10, 10), (255, 32), (-256, 32), (256, -1)])
def test_windows_that_cannot_be(tmp_path: Path, window: tuple[int, int]) -> None:
    """Before anything is traced, and as a mistake of the call."""
    source = DiffirSource(save_diffir(tmp_path), window=TileWindow(*window))
    with pytest.raises(UsageError, match=rf"a window of {window[0]} {window[1]} was given; expected .* a multiple of"):
        write_pack(source, tmp_path / "pack", PHOTOS, PackOptions(name="x"))


def test_the_card_says_what_it_was_trained_on_only_if_told(pack: Path) -> None:
    manifest, about = Manifest.load(pack), ModelWords("what", "strength", "training", "limits")
    assert "does not say which photos" in card(manifest, about, "fp32")
    told = card(manifest, about, "fp32", "- my own photos\n")
    assert "\n\n- my own photos\n\n## Limits" in told
    assert "does not say" not in told


def test_unknown_precision_lists_the_known(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="fp32, fp16, w8, w4, int8"):
        write(tmp_path, "fp4")


def test_damaged_checkpoint_leaves_no_pack(tmp_path: Path) -> None:
    model, semantic = save_small(tmp_path)
    model.write_bytes(model.read_bytes()[:-9])
    with pytest.raises(CheckpointError):
        write_pack(DtpmSource(model, str(semantic)), tmp_path / "pack", PHOTOS, PackOptions(name="x"))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.safetensors", "semantic.safetensors"]


def test_without_a_photo_there_is_no_pack(tmp_path: Path) -> None:
    model, semantic = save_small(tmp_path)
    with pytest.raises(UsageError, match="at least one, for its golden restoration"):
        write_pack(DtpmSource(model, str(semantic)), tmp_path / "pack", [], PackOptions(name="x"))


def test_golden_photo_is_fixed() -> None:
    first, second = (golden_photo(PHOTOS[0], TASKS["cleanup"]) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert first.shape == (96, 96, 3)


def test_command_exports_a_pack(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    model, semantic = save_small(tmp_path)
    out = tmp_path / "pack"
    argv = ["export", str(model), "--semantic", str(semantic), "--data", str(PHOTOS[0].parent), "-o", str(out)]
    (tmp_path / "photos.md").write_text("My own photos.")
    assert main([*argv, "--steps", "1", "--trained-on", str(tmp_path / "photos.md")]) == 0
    assert "MB" in capsys.readouterr().out
    assert [
        record for record in caplog.records if record.levelname == "WARNING"
    ] == []  # the exporter's notes are not for who exports
    assert "My own photos." in (out / "CARD.md").read_text(encoding="utf-8")
    assert Restorer.from_pack(out)(np.zeros((5, 7, 3), np.uint8)).shape == (5, 7, 3)
