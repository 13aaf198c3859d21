from __future__ import annotations

import numpy as np
import packs
import pytest

from pocketprior.core import metrics
from pocketprior.runtimes.bench import quality, rivals
from pocketprior.runtimes.bench.cache import Cache
from pocketprior.runtimes.bench.photos import DAMAGES, BenchPhoto
from pocketprior.runtimes.bench.quality import (
    BM3D,
    DTPM,
    INPUT,
    NLM,
    PREDICTOR,
    Judge,
    Measurement,
    Method,
    mean,
    measure,
    our_methods,
)

PHOTOS = [BenchPhoto(f"set/{i}", packs.photo(96, 192, seed=i)) for i in range(2)]


@pytest.fixture
def judge(tmp_path):
    return Judge.open(Cache(tmp_path))


def test_judge_measures_what_the_table_shows(judge):
    true, restored = PHOTOS[0].pixels, DAMAGES[0](PHOTOS[0].pixels)
    values = judge(restored, true)
    assert list(values) == ["PSNR", "SSIM", "HaarPSI", "NIQE", "SWD"]
    assert values["PSNR"] == metrics.psnr(restored, true)
    assert values["NIQE"] == metrics.niqe(restored)
    assert values["SWD"] == metrics.swd(restored, true)
    assert all(type(value) is float for value in values.values())


def test_judge_measures_a_pair_once(judge, monkeypatch):
    true, restored = PHOTOS[0].pixels, DAMAGES[0](PHOTOS[0].pixels)
    first = judge(restored, true)
    monkeypatch.setattr(metrics, "niqe", lambda _: pytest.fail("measured again"))
    assert Judge.open(judge.cache)(restored, true) == first


def test_judge_with_lpips(judge, tmp_path):
    rng = np.random.default_rng(0)
    layers = {0: (64, 3, 11, 11), 3: (192, 64, 5, 5), 6: (384, 192, 3, 3), 8: (256, 384, 3, 3), 10: (256, 256, 3, 3)}
    arrays = {}
    for i, (layer, shape) in enumerate(layers.items()):
        arrays[f"features.{layer}.weight"] = rng.normal(size=shape).astype(np.float32) / 50
        arrays[f"features.{layer}.bias"] = np.zeros(shape[0], np.float32)
        arrays[f"lin{i}.model.1.weight"] = np.ones((1, shape[0], 1, 1), np.float32)
    np.savez(tmp_path / "weights.npz", **arrays)
    values = Judge.open(judge.cache, tmp_path / "weights.npz")(DAMAGES[0](PHOTOS[0].pixels), PHOTOS[0].pixels)
    assert list(values)[-1] == "LPIPS"
    assert values["LPIPS"] > 0


def test_our_methods_are_the_predictor_and_the_whole_model(fused):
    predictor, whole = our_methods(fused)
    image = PHOTOS[0].pixels
    assert (predictor.name, whole.name) == (PREDICTOR, DTPM)
    assert np.array_equal(predictor.restore(image), fused(image, strength=0.0))
    assert np.array_equal(whole.restore(image), fused(image, strength=1.0, seed=0))


def test_tuned_rivals_restore_with_the_settings_they_name(monkeypatch, tmp_path):
    monkeypatch.setattr(rivals, "tuned_nl_means", lambda *_: rivals.Nlm(9, 3, 7))
    monkeypatch.setattr(rivals, "tuned_bm3d_sigma", lambda *_: 12.5)
    found = quality.tuned_rivals(PHOTOS, Cache(tmp_path), with_bm3d=True)
    assert list(found) == [damage.name for damage in DAMAGES]
    means, bm3d = found["mixed"]
    assert (means.name, means.settings) == (NLM, "h = hColor = 9, template 3, search 7")
    assert (bm3d.name, bm3d.settings) == (BM3D, "sigma 12.5")
    image = PHOTOS[0].pixels[:40, :40]
    assert np.array_equal(means.restore(image), rivals.fast_nl_means(image, rivals.Nlm(9, 3, 7)))
    assert [len(group) for group in quality.tuned_rivals(PHOTOS, Cache(tmp_path), with_bm3d=False).values()] == [1] * 7


@pytest.fixture
def quick(tmp_path):
    """A judge for tests about who is judged, not about how."""
    return Judge(Cache(tmp_path), {"PSNR": metrics.psnr}, "PSNR alone")


def test_measure_gives_everyone_the_same_damaged_photo(quick):
    seen = {"a": [], BM3D: []}

    def method(name, version):
        return Method(name, lambda image: seen[name].append(image) or image, "as is", version)

    methods = {damage.name: [method("a", ""), method(BM3D, "1")] for damage in DAMAGES}
    found = list(measure(PHOTOS, methods, quick, {"set/1"}))
    assert [m.method for m in found[:2]] == [INPUT, "a"]
    assert {m.photo for m in found if m.method == BM3D} == {"set/1"}
    assert len(found) == 7 * 2 * 2 + 7
    for own, other in zip(seen["a"][7:], seen[BM3D], strict=True):
        assert np.array_equal(own, other)
    by_input = [m.values for m in found if m.method == INPUT]
    assert by_input == [m.values for m in found if m.method == "a"]


@pytest.mark.parametrize(("version", "times"), [("1", 1), ("", 2)])
def test_only_versioned_methods_are_kept(quick, version, times):
    calls = []
    method = Method("a", lambda image: calls.append(image) or image, "as is", version)
    for _ in range(2):
        list(measure(PHOTOS[:1], {d.name: [method] for d in DAMAGES}, quick, ()))
    assert len(calls) == 7 * times


def test_another_version_or_other_settings_are_made_anew(quick):
    calls = []
    for settings, version in (("x", "1"), ("x", "2"), ("y", "1")):
        method = Method("a", lambda image: calls.append(image) or image, settings, version)
        list(measure(PHOTOS[:1], {d.name: [method] for d in DAMAGES}, quick, ()))
    assert len(calls) == 7 * 3


def test_mean():
    values = [("a", "x", 1), ("b", "x", 4), ("b", "y", 9)]
    found = [Measurement("p", damage, method, {"PSNR": value}) for damage, method, value in values]
    assert mean(found, "PSNR", "x") == 2.5
    assert mean(found, "PSNR", "x", ["b"]) == 4
    with pytest.raises(ValueError, match="at least one"):
        mean(found, "PSNR", "y", ["a"])
