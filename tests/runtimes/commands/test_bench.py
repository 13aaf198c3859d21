from __future__ import annotations

import json

import pytest
from PIL import Image as PilImage

from pocketprior.core import metrics
from pocketprior.core.cli import main
from pocketprior.core.degradations.fixed import DAMAGES
from pocketprior.core.metrics import psnr
from pocketprior.runtimes.bench import methods, quality_report
from support import baseline_networks, packs


@pytest.fixture
def call(tmp_path, built_pack, monkeypatch):
    """`bench quality` on two small photos, with short tuning and stand-ins for what is slow."""
    monkeypatch.setattr(methods, "NLM_WINDOWS", ((3, 7),))
    monkeypatch.setattr(methods, "NLM_STRENGTHS", (5, 20))
    monkeypatch.setattr(methods, "bm3d", lambda image, *_, **__: image)
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
    real = quality_report.gates

    def forced(measurements):
        return [type(gate)(gate.claim, gate.value, gate.limit, value) for gate in real(measurements)]

    monkeypatch.setattr(quality_report, "gates", forced)


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
        (["--plot", "none/plot.svg"], "does not exist"),
        (["--lpips", "none.npz"], "none.npz"),
        (["--damages", "PolyU"], "unknown damage 'PolyU'; choose one of: noise 15"),
        (["--baseline", "ffdnet.onnx"], "FFDNet=ffdnet.onnx:sigma=25"),
        (["--baseline", "a=none.onnx"], "no file 'none.onnx'"),
        (["--baseline", "a=b.onnx", "--variant", "a=pack"], "'a' stands for two methods"),
    ],
)
def test_wrong_calls(call, capsys, options, message):
    assert call(*options) == 2
    assert message in capsys.readouterr().err


def test_baselines_variants_and_a_plot(call, built_pack, tmp_path, capsys):
    net = baseline_networks.brighter_by_sigma(tmp_path / "net.onnx")
    baselines = ["--baseline", f"net={net}:sigma=true", "--baseline", f"blind={net}"]
    options = ["--variant", f"other={built_pack}", "--plot", str(tmp_path / "plot.svg"), "--quick", "--limit", "1"]
    call(*baselines, *options, "--damages", "noise 25,clean", "--json")
    tree = json.loads(capsys.readouterr().out)
    ours = ["predictor alone", "DTPM", "other, predictor alone", "other"]
    expected = {"noise 25": ["input", "net", "blind", *ours], "clean": ["input", "blind", *ours]}
    for damage, names in expected.items():
        found = [m["method"] for m in tree["measurements"] if m["damage"] == damage]
        assert found == [*names, "unsharp mask", "shaped noise"]
    assert '--baseline "net=net.onnx:sigma=true" --baseline "blind=net.onnx" --variant "other=' in tree["command"]
    assert str(tmp_path) not in tree["command"]
    assert tree["command"].endswith("--quick --plot plot.svg")
    assert list(tree["measurements"][0]["values"]) == ["PSNR", "HaarPSI", "SWD"]
    assert (tmp_path / "plot.svg").read_text().count(">blind</text>") == 3


@pytest.mark.usefixtures("call")
def test_real_pairs_of_a_data_folder(built_pack, tmp_path, capsys):
    data = tmp_path / "data"
    rows = ["file,split,set,role,use,pair_gt"]
    files = ["test/bsd100/a", "test/mcmaster/b", "hq/cid22_val/c"]
    files += [f"paired/denoise_polyu/{kind}/{name}" for name in ("v", "t") for kind in ("gt", "lq")]
    for i, file in enumerate(files):
        path = data / f"{file}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        PilImage.fromarray(packs.photo(96, 192, seed=i)).save(path)
        split = "test" if i < 2 else "train" if file.endswith("/t") else "val"
        role, partner = ("lq", f"{file.replace('/lq/', '/gt/')}.png") if "/lq/" in file else ("clean", "")
        rows.append(f"{file}.png,{split},S,{'gt' if '/gt/' in file else role},any,{partner}")
    (data / "manifest.csv").write_text("\n".join(rows))
    fixed = ["bench", "quality", str(built_pack), "--data", str(data), "--cache", str(tmp_path / "cache"), "--json"]
    main([*fixed, "--damages", "PolyU,JPEG 40", "--bm3d", "1"])
    tree = json.loads(capsys.readouterr().out)
    seen = {(m["damage"], m["photo"]) for m in tree["measurements"]}
    assert seen == {("JPEG 40", "bsd100/a"), ("JPEG 40", "mcmaster/b"), ("PolyU", "gt/v")}
    assert {m["damage"] for m in tree["measurements"] if m["method"] == "BM3D"} == {"JPEG 40"}
    assert main([*fixed, "--damages", "PolyU,rain"]) == 2
    assert "unknown damage 'rain'" in capsys.readouterr().err


def test_photos_must_be_named(capsys):
    assert main(["bench", "quality"]) == 2
    assert "--data --photos" in capsys.readouterr().err
    assert main(["bench"]) == 2


def test_speed(built_pack, tmp_path, capsys):
    net = baseline_networks.brighter_by_sigma(tmp_path / "net.onnx")
    fixed = ["bench", "speed", str(built_pack), "--megapixels", "0.01", "--rounds", "1", "--runtimes", "onnxruntime"]
    options = ["--baseline", f"net={net}", "--variant", f"other={built_pack}"]
    assert main([*fixed, *options]) == 0
    out = capsys.readouterr().out
    assert "one thread, 0.01 megapixels, median of 1, CPU time" in out
    assert "| other, fused " in out
    assert main([*fixed, *options, "--json"]) == 0
    timings = json.loads(capsys.readouterr().out)["timings"]
    assert [timing["method"] for timing in timings][-2:] == ["net", "fastNlMeans"]
    assert main([*fixed, "--variant", f"other={built_pack}:runtime=openvino"]) == 2
    assert "every pack is timed in all --runtimes" in capsys.readouterr().err


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
