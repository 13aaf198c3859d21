from __future__ import annotations

from functools import partial
from statistics import fmean

import numpy as np
import pytest

from pocketprior.core import metrics
from pocketprior.core.degradations.fixed import DAMAGES
from pocketprior.core.metrics.baselines import NULLS
from pocketprior.runtimes.bench import methods
from pocketprior.runtimes.bench.methods import (
    BM3D,
    DTPM,
    INPUT,
    NLM,
    PREDICTOR,
    BenchMethod,
    ResultCache,
    bm3d_method,
    nl_means_method,
    our_methods,
)
from pocketprior.runtimes.bench.quality import Judge, Measurement, compared, mean, run
from pocketprior.runtimes.bench.trials import BenchPhoto, Trial, trials
from support import packs

PHOTOS = [BenchPhoto(f"set/{i}", packs.photo(96, 192, seed=i)) for i in range(2)]


def test_our_methods_are_the_predictor_and_the_whole_model(fused):
    image = PHOTOS[0].pixels
    for name, alone in ((DTPM, PREDICTOR), ("int8", f"int8, {PREDICTOR}")):
        predictor, whole = our_methods(fused, name)
        assert (predictor.name, whole.name) == (alone, name)
        assert np.array_equal(predictor.restore(image), fused(image, strength=0.0))
        assert np.array_equal(whole.restore(image), fused(image, strength=1.0, seed=0))


def test_classical_methods_restore_with_the_settings_they_name(monkeypatch, tmp_path):
    chosen = {methods.fast_nl_means: methods.Nlm(9, 3, 7), methods.bm3d: 12.5}
    monkeypatch.setattr(methods, "best_setting", lambda _, method, *__: (0.0, chosen[method]))
    trial = Trial("any", None, [], [])
    means, slow = nl_means_method(trial, ResultCache(tmp_path)), bm3d_method(trial, ResultCache(tmp_path), {"set/1"})
    assert (means.name, means.settings) == (NLM, "h = hColor = 9, template 3, search 7")
    assert (slow.name, slow.settings, slow.only) == (BM3D, "sigma 12.5", {"set/1"})
    image = PHOTOS[0].pixels[:40, :40]
    assert np.array_equal(means.restore(image), methods.fast_nl_means(image, methods.Nlm(9, 3, 7)))


@pytest.fixture
def quick(tmp_path):
    """A judge for tests about who is judged, not about how."""
    return Judge(ResultCache(tmp_path), {"PSNR": metrics.psnr}, "PSNR alone")


def measured(judge, methods, photos=PHOTOS, damages=DAMAGES[:2]):
    return run(trials(photos, photos, damages), lambda _: methods, judge)


def test_everyone_gets_the_same_damaged_photo(quick):
    seen = {"a": [], "b": []}
    methods = [
        BenchMethod(name, lambda image, name=name: seen[name].append(image) or image, "as is", version, only)
        for name, version, only in (("a", "", None), ("b", "1", {"set/1"}))
    ]
    found = measured(quick, methods).measurements
    assert [(m.damage, m.method, m.photo) for m in found[:5]] == [
        ("noise 15", INPUT, "set/0"),
        ("noise 15", INPUT, "set/1"),
        ("noise 15", "a", "set/0"),
        ("noise 15", "a", "set/1"),
        ("noise 15", "b", "set/1"),
    ]
    assert len(found) == 10
    assert all(np.array_equal(own, other) for own, other in zip(seen["a"][1::2], seen["b"], strict=True))
    assert [m.values for m in found if m.method == INPUT] == [m.values for m in found if m.method == "a"]


@pytest.mark.parametrize(("version", "times"), [("1", 1), ("", 2)])
def test_only_versioned_methods_are_kept(quick, version, times):
    calls = []
    method = BenchMethod("a", lambda image: calls.append(image) or image, "as is", version)
    for _ in range(2):
        measured(quick, [method])
    assert len(calls) == 4 * times


def test_another_version_or_other_settings_are_made_anew(quick):
    calls = []
    for settings, version in (("x", "1"), ("x", "2"), ("y", "1")):
        measured(quick, [BenchMethod("a", lambda image: calls.append(image) or image, settings, version)])
    assert len(calls) == 4 * 3


def test_null_opponents_have_the_psnr_of_our_model(quick):
    def worse(image, amount):
        board = np.indices(image.shape).sum(axis=0) % 2 * 2 - 1
        return np.clip(image + amount * board, 0, 255).astype(np.uint8)

    methods = [BenchMethod(PREDICTOR, partial(worse, amount=0)), BenchMethod(DTPM, partial(worse, amount=9))]
    results = measured(quick, methods)
    assert list(results.gains) == ["noise 15", "noise 25"]
    for damage, gains in results.gains.items():
        assert list(gains) == list(NULLS)
        assert min(gains.values()) > 0
        ours = mean(results.measurements, "PSNR", DTPM, [damage])
        for name in NULLS:
            assert mean(results.measurements, "PSNR", name, [damage]) == pytest.approx(ours, abs=0.01)


def test_no_null_opponents_without_our_model(quick):
    results = measured(quick, [BenchMethod(PREDICTOR, lambda image: image)])
    assert results.gains == {}
    assert {m.method for m in results.measurements} == {INPUT, PREDICTOR}


def test_damages_count_the_same_and_undamaged_photos_not():
    rows = [("a", "x", 1), ("b", "x", 4), ("b", "x", 6), ("b", "y", 9), ("clean", "x", 60)]
    found = [Measurement("p", damage, method, {"PSNR": value}) for damage, method, value in rows]
    assert mean(found, "PSNR", "x") == fmean([1, 5])
    assert mean(found, "PSNR", "x", ["b"]) == 5
    assert mean(found, "PSNR", "x", ["clean"]) == 60
    with pytest.raises(ValueError, match="'y' has no measurement"):
        mean(found, "PSNR", "y", ["a"])


def test_methods_are_compared_photo_by_photo():
    found = [
        Measurement(photo, damage, method, {"PSNR": base + (1 if method == "x" else 0) + (2 if damage == "b" else 0)})
        for photo, base in (("p", 10.0), ("q", 50.0))
        for damage in ("a", "b")
        for method in ("x", "y")
    ]
    assert compared(found, "PSNR", "x", "y", ["a", "b"]) == (1, 1, 1, 2)
    extra = [*found, Measurement("r", "a", "x", {"PSNR": 99.0})]
    assert compared(extra, "PSNR", "x", "y", ["a"]).photos == 2
