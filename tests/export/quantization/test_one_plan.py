"""One plan in three runtimes: the same levels, and nearly the same photos."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pocketprior.core.cli import main
from pocketprior.core.pack.manifest import Manifest
from pocketprior.core.restore.selftest import verify
from pocketprior.export.writer.pack import PackOptions, write_pack
from support.small_models import PHOTOS, source_of

RUNTIMES = {"onnx": "onnxruntime", "openvino": "openvino", "coreml": "coreml"}


@pytest.mark.slow
def test_a_plan_is_the_same_for_every_target(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By `pocketprior quantize`, which measures what each target restores."""
    folder = tmp_path / "pack"
    write_pack(
        source_of("gen2res", tmp_path), folder, PHOTOS[:1], PackOptions(name="x", targets=RUNTIMES, precisions=["fp32"])
    )
    pixels, photos = np.asarray(Image.open(PHOTOS[0])), tmp_path / "photos"
    photos.mkdir()
    for i in range(6):
        Image.fromarray(pixels[40 * i : 40 * i + 40, :40]).save(photos / f"{i}.png")
    out, search = tmp_path / "out", tmp_path / "search"
    arguments = ["quantize", str(folder), "--data", str(photos), "-o", str(out), "--side", "32", "--probe", "1", "32"]
    options = ["--search", str(search), "--budget-db", "30", "--to", "onnx,openvino,coreml", "--json"]
    assert main([*arguments, *options]) == 0
    rows = {row["runtime"]: row for row in json.loads(capsys.readouterr().out)["rows"] if row["name"] != "fp32"}
    assert all(rows[runtime]["worst_db"] >= 30 for runtime in RUNTIMES.values())
    assert abs(rows["coreml"]["worst_db"] - rows["onnxruntime"]["worst_db"]) < 1
    manifest = Manifest.load(out)
    assert set(manifest.precision["coreml"].values()) == {"mixed+fp16"}
    plan = json.loads((search / "plan.json").read_text(encoding="utf-8"))
    assert manifest.made_by["plan"] == json.loads((search / "coreml.json").read_text(encoding="utf-8"))["plan"]
    assert "w4" in plan["levels"].values()
    assert all(verify(out, runtime).ok for runtime in RUNTIMES.values())
