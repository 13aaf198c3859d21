"""What the benchmark refuses, counts and reports; how fast anything is, no test says."""

from __future__ import annotations

import json
import math
import time

import pytest
import torch
from gpu import bench
from gpu.verify import Finding

from pocketprior.kernels import OPS

CASE = (2, 16, 8, 8)
OP = "modulated_norm"


def test_a_wrong_op_gets_no_number(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = Finding("gradient 1", 2.0, 1.0)
    monkeypatch.setattr(bench, "verify", lambda *_: [Finding("output", 0.5, 1.0), wrong])
    monkeypatch.setattr(bench, "interleaved", lambda *_: pytest.fail("it was timed"))
    with pytest.raises(AssertionError, match="gradient 1"):
        list(bench.bench(OP, CASE, torch.float32, 1e9))


def test_a_rehearsal_gives_rows_that_json_can_hold() -> None:
    rows = json.loads(json.dumps(list(bench.bench(OP, CASE, torch.float32, 1e9, "cpu", 1)), allow_nan=False))
    assert [row["pass"] for row in rows] == ["forward", "both"]
    assert all(row[f"{way} ms"] > 0 for row in rows for way in bench.WAYS)
    moved = [row["of copy"] * row["fused ms"] for row in rows]
    assert moved[1] > moved[0] > 0


def test_traffic_counts_each_array_once_per_kernel() -> None:
    size = math.prod(CASE) * 2
    counted = bench.traffic(OP, CASE, torch.bfloat16)
    # x in and y out, and a few vectors of C; back: x and dy in, dx out, and sums.
    assert 2 * size < counted.forward < 3 * size
    assert 3 * size < counted.backward < 5 * size
    assert counted.saved == 0


@pytest.mark.parametrize("op", OPS)
def test_a_kernel_keeps_no_more_than_pytorch(op: str) -> None:
    case = (1, 64, 64, 64)
    kept = bench.traffic(op, case, torch.bfloat16).saved
    assert kept <= bench.saved_by_reference(op, case, torch.bfloat16)


def test_ways_take_turns() -> None:
    order: list[str] = []
    times = bench.interleaved({name: lambda name=name: order.append(name) for name in "abc"}, "cpu", 3)
    assert order == list("abc" + "abc" + "bca" + "cab")
    assert all(0 <= low <= median <= high for median, low, high in times.values())


def test_times_are_milliseconds() -> None:
    median, *_ = bench.interleaved({"sleep": lambda: time.sleep(0.02)}, "cpu", 3)["sleep"]
    assert median >= 20
