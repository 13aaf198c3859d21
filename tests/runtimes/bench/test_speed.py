from __future__ import annotations

import importlib.util

import numpy as np
import pytest

from pocketprior.core.arguments import NamedPath
from pocketprior.core.errors import MissingExtraError
from pocketprior.runtimes.bench import speed
from pocketprior.runtimes.bench.methods import DTPM, BenchMethod
from pocketprior.runtimes.bench.speed import Contestant, contestants, made_photo, measure_speed, rates, speed_table
from pocketprior.runtimes.options import CPU_RUNTIMES
from support import baseline_networks, packs

HAS_OPENVINO = importlib.util.find_spec("openvino") is not None


def test_made_photo_has_the_size_that_was_asked_for():
    photo = made_photo(0.012)
    assert (photo.shape, photo.dtype) == ((95, 127, 3), np.uint8)
    assert np.array_equal(photo, made_photo(0.012))


def test_every_method_has_a_rate():
    calls = []
    found = rates([BenchMethod(name, lambda image, name=name: calls.append(name) or image) for name in "ab"], rounds=2)
    assert calls == ["a", "b", "a", "b", "b", "a"]
    assert list(found) == ["a", "b"]
    assert min(found.values()) > 0


def test_methods_are_timed_in_turn_after_a_call_that_does_not_count(monkeypatch):
    order = []
    methods = {
        Contestant(name, "fp32", "onnxruntime"): lambda image, name=name: order.append(name) or image for name in "ab"
    }
    monkeypatch.setattr(speed, "contestants", lambda *_: methods)
    timings = measure_speed(megapixels=0.01, rounds=3)
    assert order == list("ab" + "ab" + "ba" + "ab")
    assert [timing.method for timing in timings] == ["a", "b"]
    assert all(0 < timing.fastest <= timing.median <= timing.slowest for timing in timings)
    assert timings[0].megapixels_per_second == 1 / timings[0].median
    rows = speed_table(timings).splitlines()
    assert len(rows) == 4
    assert len({len(row) for row in rows}) == 1


def test_contestants_are_the_forms_of_the_pack(built_pack, tmp_path):
    found = contestants({DTPM: built_pack}, [], ["onnxruntime"])
    assert list(found) == [
        ("DTPM, split", "fp32", "onnxruntime"),
        ("predictor alone", "fp32", "onnxruntime"),
        ("DTPM, fused", "fp32", "onnxruntime"),
        ("fastNlMeans", "", "OpenCV"),
    ]
    packs.build(tmp_path / "other", graphs=("encode", "fused"), golden=False)
    found = contestants({"other": tmp_path / "other"}, [], ["onnxruntime"])
    assert [c.method for c in found] == ["other, fused", "fastNlMeans"]
    image = packs.photo(16, 24)
    assert all(method(image).shape == image.shape for method in found.values())


def test_networks_run_in_every_runtime(tmp_path):
    files = [baseline_networks.brighter_by_sigma(tmp_path / "a.onnx"), baseline_networks.quantized(tmp_path / "b.onnx")]
    found = contestants({}, [NamedPath(path.stem, path, "") for path in files], CPU_RUNTIMES)
    expected = [("a", "fp32", "onnxruntime"), ("b", "int8", "onnxruntime")]
    expected += [("a", "fp32", "openvino"), ("b", "int8", "openvino")] if HAS_OPENVINO else []
    assert list(found)[:-1] == expected
    dark = np.full((24, 40, 3), 100, np.uint8)
    for contestant, method in list(found.items())[:-1]:
        assert np.abs(method(dark) - (dark + (25.0 if contestant.method == "a" else 0))).max() <= 1


def test_a_runtime_that_is_not_there(monkeypatch):
    monkeypatch.setattr(speed, "import_module", lambda name: (_ for _ in ()).throw(ModuleNotFoundError(name=name)))
    with pytest.raises(MissingExtraError, match=r"pocketprior\[openvino\]"):
        contestants({}, [], ["openvino"])
    assert [c.method for c in contestants({}, [], CPU_RUNTIMES)] == ["fastNlMeans"]
