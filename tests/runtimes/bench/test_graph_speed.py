from __future__ import annotations

import importlib.util
import shutil
import time

import pytest

from pocketprior.core.errors import UsageError
from pocketprior.core.pack.manifest import Manifest
from pocketprior.runtimes.bench import speed
from pocketprior.runtimes.bench.speed import GraphRun, graph_table, inputs, measure_graphs
from support import packs


def test_inputs_have_the_shapes_of_the_graph(built_pack):
    spec = Manifest.load(built_pack).graphs["fused"]
    given = inputs(spec, 24)
    assert {name: array.shape for name, array in given.items()} == {
        "image": (1, 3, 24, 24),
        "noise": (1, 3, 24, 24),
        "code": (1, packs.CODE),
        "strength": (1,),
    }


def test_every_graph_of_every_pack_is_called_in_turn(built_pack, tmp_path):
    shutil.copytree(built_pack, tmp_path / "other")
    timings = measure_graphs([built_pack, tmp_path / "other"], ["onnxruntime"], side=16, rounds=3, only=["predict"])
    assert [(t.graph, t.pack, t.precision, t.arithmetic) for t in timings] == [
        ("predict", str(built_pack), "fp32", "fp32"),
        ("predict", str(tmp_path / "other"), "fp32", "fp32"),
    ]
    assert timings[0].over_fp32 == timings[0].over_best_float == 1
    assert all(0 < t.fastest <= t.median <= t.slowest for t in timings)
    assert graph_table(timings).count("| predict |") == 2


@pytest.mark.skipif(importlib.util.find_spec("openvino") is None, reason="the extra openvino is not installed")
def test_openvino_computes_floats_in_32_bits_too(built_pack):
    found = measure_graphs([built_pack], ["openvino"], side=16, rounds=1, only=["predict"])
    assert "fp32" in {timing.arithmetic for timing in found}


def test_gains_are_over_the_float_graph_of_the_same_runtime(monkeypatch):
    def call(seconds):
        def busy():
            end = time.process_time() + seconds
            while time.process_time() < end:
                pass

        return busy

    calls = {
        GraphRun("g", "float", "fp32", "a", "fp32"): call(0.04),
        GraphRun("g", "float", "fp32", "a", "bf16"): call(0.02),
        GraphRun("g", "small", "int8", "a", "fp32"): call(0.01),
        GraphRun("g", "float", "fp32", "b", "fp32"): call(0.01),
    }
    monkeypatch.setattr(speed, "_graph_calls", lambda *_: calls)
    timings = measure_graphs([], rounds=3)
    assert [t.over_fp32 for t in timings] == pytest.approx([1, 2, 4, 1], rel=0.3)
    assert [t.over_best_float for t in timings] == pytest.approx([0.5, 1, 2, 1], rel=0.3)


def test_packs_of_other_graphs_are_refused(built_pack, tmp_path):
    packs.build(tmp_path, graphs=("encode", "fused"), golden=False)
    with pytest.raises(UsageError, match=r"has the graphs encode, fused, not all of .*predict"):
        measure_graphs([built_pack, tmp_path], ["onnxruntime"], side=16)
