"""`pocketprior quantize` from end to end, on a tiny pack."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from pocketprior.core.cli import main
from pocketprior.core.pack.manifest import Manifest
from pocketprior.core.restore.selftest import verify
from pocketprior.export.quantization.plan import load_plan


@pytest.fixture
def call(built_pack: Path, photos: Path, tmp_path: Path) -> Callable[..., int]:
    fixed = ["quantize", str(built_pack), "--data", str(photos), "-o", str(tmp_path / "out"), "--side", "32"]
    return lambda *options: main([*fixed, "--photos", "2", "--probe", "1", "32", *options])


def test_writes_a_pack_that_keeps_the_budget(
    call: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("--budget-db", "40", "--max-size", "1MB", "--json") == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert rows[1]["worst_db"] >= 40
    assert rows[1]["bytes"] < rows[0]["bytes"]
    plan = load_plan(tmp_path / "out.search/plan.json")
    manifest = Manifest.load(tmp_path / "out")
    assert manifest.made_by["plan"] == plan.hash
    assert "mixed" in manifest.precision["onnx"].values()
    assert verify(tmp_path / "out").ok
    for toolchain in ("onnx", "nncf", "coreml"):
        said = json.loads((tmp_path / f"out.search/{toolchain}.json").read_text())
        assert said["plan"] == plan.hash


def test_a_plan_from_a_file_and_one_level_for_all(call: Callable[..., int], tmp_path: Path) -> None:
    assert call("--precision", "int8", "--budget-db", "20") == 0
    assert "int8" in Manifest.load(tmp_path / "out").precision["onnx"].values()
    assert verify(tmp_path / "out").ok


@pytest.mark.parametrize(("level", "offers"), [("w8", ["w8"]), ("int8", ["int8", "int8-nncf", "w8+bf16"])])
def test_openvino_gets_the_fastest_that_keeps_the_budget(
    call: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str], level: str, offers: list[str]
) -> None:
    pytest.importorskip("openvino", reason="the extra openvino is not installed")
    pytest.importorskip("nncf", reason="the package nncf is not installed")
    assert call("--precision", level, "--budget-db", "20", "--to", "onnx,openvino", "--json") == 0
    out, err = capsys.readouterr()
    found = {row["name"]: row for row in json.loads(out)["rows"] if row["runtime"] == "openvino"}
    assert {"fp32", *(name for name in offers if "bf16" not in name)} <= set(found)
    (shipped,) = set(Manifest.load(tmp_path / "out").precision["openvino"].values())
    assert f"openvino: {shipped} is the fastest here of those that keep the budget" in err
    assert shipped not in ("fp32", "bf16")
    assert found[shipped]["worst_db"] >= 20
    assert verify(tmp_path / "out", "openvino").ok


def test_coreml_needs_packages_to_start_from(
    call: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("--to", "onnx,coreml") == 2
    assert "no float32 Core ML package of the graph" in capsys.readouterr().err
    assert call("--to", "coreml") == 2
    assert "give onnx, and others of: onnx, openvino, coreml" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_no_plan_is_said_with_what_is_missing(
    call: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("--budget-db", "200") == 1
    assert "there is no plan: the worst photo keeps" in capsys.readouterr().err
    assert call("--budget-db", "40", "--max-size", "1KB") == 1
    assert "MB more than --max-size allows" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_too_few_photos(built_pack: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = Path(__file__).parents[3] / "examples"
    (tmp_path / "one").mkdir()
    (tmp_path / "one/a.jpg").write_bytes((folder / "dog.jpg").read_bytes())
    assert main(["quantize", str(built_pack), "--data", str(tmp_path / "one"), "-o", str(tmp_path / "out")]) == 2
    assert "expected at least 3" in capsys.readouterr().err
