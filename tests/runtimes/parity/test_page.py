"""The table of packs, runtimes and precisions."""

from __future__ import annotations

import shutil
from dataclasses import fields, replace
from pathlib import Path

import pytest

from pocketprior.core.errors import UsageError
from pocketprior.core.pack.manifest import Manifest, TaskFacts
from pocketprior.core.pack.store import default_pack, packed_file
from pocketprior.runtimes import RUNTIMES
from pocketprior.runtimes.parity.formats import TableRow, fill, measured, table_text

Known = tuple[Path, Path]
PAGE = "# Parity\n\n<!-- table -->\nold\n<!-- /table -->\n\nThe end.\n"


@pytest.fixture(scope="module")
def rows(kept: Known, tmp_path_factory: pytest.TempPathFactory) -> list[TableRow]:
    """A pack with two precisions and a recording, and one without a recording."""
    other = tmp_path_factory.mktemp("other") / "pack"
    shutil.copytree(kept[0], other)
    manifest = Manifest.load(other)
    shutil.copy(other / "predict.onnx", other / "predict.w8.onnx")
    graphs = dict(manifest.graphs)
    files = {"onnx": {**graphs["predict"].files["onnx"], "w8": packed_file(other, "predict.w8.onnx")}}
    graphs["predict"] = replace(graphs["predict"], files=files)
    replace(manifest, graphs=graphs, name="two").save(other)
    return list(measured([other, kept[0]], [kept[1]], threads=1))


def test_every_runtime_and_precision_has_a_row(rows: list[TableRow]) -> None:
    ways = [(row.pack, row.runtime, row.precision) for row in rows]
    assert ways == [
        ("two", "onnxruntime", "fp32"),
        ("two", "onnxruntime", "w8"),
        ("two", "openvino", "fp32"),
        ("two", "openvino", "w8"),
        ("tiny-cleanup", "onnxruntime", "fp32"),
        ("tiny-cleanup", "openvino", "fp32"),
    ]
    assert {row.runtime for row in rows} <= set(RUNTIMES)
    assert all(row.report is not None and row.report.ok for row in rows)


def test_the_reference_is_told(rows: list[TableRow]) -> None:
    assert "a tiny pack in ONNX Runtime" in table_text(rows)
    assert "dB" in table_text(rows)


def test_what_breaks_or_does_not_run_is_told(rows: list[TableRow]) -> None:
    assert rows[0].report is not None
    failed = replace(rows[0].report, sources=())
    found = table_text([rows[0]._replace(report=failed), rows[1]._replace(report=None, reason="no bf16 here")])
    assert "BREACH" in found
    assert "- two in onnxruntime, fp32: FAIL  nothing was compared" in found
    assert "- two in onnxruntime, w8: not run, no bf16 here" in found


def test_every_task_has_a_row(kept: Known, tmp_path: Path) -> None:
    shutil.copytree(kept[0], tmp_path / "pack")
    manifest = Manifest.load(tmp_path / "pack")
    rain = TaskFacts(**{field.name: getattr(manifest, field.name) for field in fields(TaskFacts)})
    replace(manifest, tasks=("cleanup", "rain"), further={"rain": rain}).save(tmp_path / "pack")
    rows = list(measured([tmp_path / "pack"], [], threads=1))
    assert [row.pack for row in rows] == [f"tiny-cleanup, {task}" for task in ("cleanup", "rain") for _ in range(2)]
    assert all(row.report is not None and row.report.ok for row in rows)


def test_a_recording_of_no_pack_is_refused(kept: Known) -> None:
    with pytest.raises(UsageError, match="none of the packs comes from the checkpoint of"):
        list(measured([default_pack()], [kept[1]]))


def test_a_page_is_filled_between_its_marks(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(PAGE)
    fill(page, "| new |")
    fill(page, "| newer \\1 |")
    assert page.read_text() == PAGE.replace("old", "\n| newer \\1 |\n")


@pytest.mark.parametrize("content", [None, "# Parity\n"])
def test_a_page_without_marks(content: str | None, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    if content is not None:
        page.write_text(content)
    with pytest.raises(UsageError, match="<!-- table -->"):
        fill(page, "| new |")
