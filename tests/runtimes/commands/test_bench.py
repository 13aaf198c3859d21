from __future__ import annotations

import json

import packs
import pytest
from PIL import Image as PilImage

from pocketprior.core import metrics
from pocketprior.core.cli import main
from pocketprior.core.metrics import psnr
from pocketprior.runtimes.bench import rivals
from pocketprior.runtimes.bench.photos import DAMAGES
from pocketprior.runtimes.commands import bench


@pytest.fixture
def call(tmp_path, built_pack, monkeypatch):
    """`bench quality` on two small photos, with short tuning and stand-ins for what is slow."""
    monkeypatch.setattr(rivals, "NLM_WINDOWS", ((3, 7),))
    monkeypatch.setattr(rivals, "NLM_STRENGTHS", (5, 20))
    monkeypatch.setattr(rivals, "bm3d", lambda image, *_, **__: image)
    for slow in ("niqe", "swd"):
        monkeypatch.setattr(metrics, slow, lambda restored, *_: float(restored.mean()))
    photos = tmp_path / "photos"
    photos.mkdir()
    for i in range(2):
        PilImage.fromarray(packs.photo(96, 192, seed=i)).save(photos / f"{i}.png")
    fixed = ["bench", "quality", str(built_pack), "--photos", str(photos), "--cache", str(tmp_path / "cache")]
    return lambda *options: main([*fixed, *options])


def passing(monkeypatch, value):
    """Every gate passes, or fails."""
    real = bench.gates

    def forced(measurements):
        return [type(gate)(gate.claim, gate.value, gate.limit, value) for gate in real(measurements)]

    monkeypatch.setattr(bench, "gates", forced)


@pytest.mark.parametrize(("value", "code"), [(True, 0), (False, 1)])
def test_exit_code_follows_the_gates(call, monkeypatch, capsys, value, code):
    passing(monkeypatch, value)
    assert call("--limit", "1", "--bm3d", "0") == code
    out, err = capsys.readouterr()
    assert out.startswith("# The embedded pack")
    assert "`pocketprior bench quality PACK --photos PHOTOS --limit 1 --bm3d 0`" in out
    assert err.count("pass: " if value else "FAIL: ") == 5


def test_page_and_json_agree_and_repeat(call, tmp_path, capsys):
    out = tmp_path / "results.md"
    call("--limit", "1", "--bm3d", "1", "--out", str(out), "--json")
    first, page = json.loads(capsys.readouterr().out), out.read_text()
    call("--limit", "1", "--bm3d", "1", "--out", str(out), "--json")
    assert json.loads(capsys.readouterr().out) == first
    assert out.read_text() == page
    assert str(tmp_path) not in page
    assert "With BM3D: 1 photos" in page
    true = packs.photo(96, 192, seed=0)
    (values,) = [
        m["values"]
        for m in first["measurements"]
        if (m["photo"].rpartition("/")[2], m["damage"], m["method"]) == ("0", "noise 25", "input")
    ]
    assert values["PSNR"] == psnr(DAMAGES[1](true), true)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--limit", "0"], "whole number from 1"),
        (["--bm3d", "-1"], "whole number from 0"),
        (["--data", "x"], "not allowed with"),
        (["--out", "none/results.md"], "does not exist"),
        (["--lpips", "none.npz"], "none.npz"),
    ],
)
def test_wrong_calls(call, capsys, options, message):
    assert call(*options) == 2
    assert message in capsys.readouterr().err


def test_photos_must_be_named(capsys):
    assert main(["bench", "quality"]) == 2
    assert "--data --photos" in capsys.readouterr().err
    assert main(["bench"]) == 2


def test_speed(built_pack, capsys):
    assert main(["bench", "speed", str(built_pack), "--megapixels", "0.01", "--rounds", "1"]) == 0
    assert "DTPM, fused" in capsys.readouterr().out
    assert main(["bench", "speed", str(built_pack), "--megapixels", "0.01", "--rounds", "1", "--json"]) == 0
    timings = json.loads(capsys.readouterr().out)["timings"]
    assert [timing["method"] for timing in timings][-1] == "fastNlMeans"


def test_graphs_of_packs_beside_the_float_pack(built_pack, capsys):
    fixed = ["bench", "graphs", str(built_pack), "--runtimes", "onnxruntime", "--side", "16", "--rounds", "2"]
    assert main([*fixed, "--graphs", "predict", "fused", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [(t["graph"], t["over_fp32"]) for t in found["timings"]] == [("predict", 1), ("fused", 1)]
    assert main(fixed) == 0
    out = capsys.readouterr().out
    assert "one thread, 16 x 16 pixels, median of 2, CPU time" in out
    assert out.count("| onnxruntime |") == 4
    assert main([*fixed, "--runtimes", "abacus"]) == 2
