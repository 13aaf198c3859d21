"""What the benchmark refuses, counts and reports; how fast anything is, no test says."""

from __future__ import annotations

import json
import time
from dataclasses import asdict

import pytest
import torch

from pocketprior.kernels import OPS, bench
from pocketprior.kernels.cases import Case
from pocketprior.kernels.timing import Time, interleaved
from pocketprior.kernels.verify import Finding

CASE = Case(2, 16, 8, 8)
OP = "modulated_norm"


def test_a_wrong_op_gets_no_number(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = Finding("gradient 1", 2.0, 1.0)
    monkeypatch.setattr(bench, "verify", lambda *_: [Finding("output", 0.5, 1.0), wrong])
    monkeypatch.setattr(bench, "interleaved", lambda *_: pytest.fail("it was timed"))
    with pytest.raises(bench.UnverifiedError, match="gradient 1"):
        bench.bench(OP, CASE, torch.float32, None)


def test_nothing_is_timed_without_a_gpu(capsys: pytest.CaptureFixture[str]) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is one")
    with pytest.raises(SystemExit) as stopped:
        bench.main([OP])
    assert stopped.value.code == 2
    assert "no CUDA device" in capsys.readouterr().err


def test_a_rehearsal_gives_rows_that_json_can_hold() -> None:
    found = bench.bench(OP, CASE, torch.float32, 1e9, "cpu", 1)
    rows = json.loads(json.dumps([asdict(row) for row in found], allow_nan=False))
    assert [row["passes"] for row in rows] == ["forward", "both"]
    assert all(set(row["times"]) == set(bench.WAYS) for row in rows)
    assert rows[1]["bytes"] > rows[0]["bytes"] > 0


def test_traffic_counts_each_array_once_per_kernel() -> None:
    size = CASE.n * CASE.channels * CASE.height * CASE.width * 2
    counted = bench.traffic(OP, CASE, torch.bfloat16)
    # x in and y out, and a few vectors of C; back: x and dy in, dx out, and sums.
    assert 2 * size < counted.forward < 3 * size
    assert 3 * size < counted.backward < 5 * size
    assert counted.saved == 0
    assert set(counted.kernels) == {"_forward_kernel", "_backward_kernel"}
    assert sum(counted.kernels.values()) == counted.forward + counted.backward


@pytest.mark.parametrize("op", OPS)
def test_the_twin_keeps_no_more_than_pytorch(op: str) -> None:
    case = Case(1, 64, 64, 64)
    kept = bench.traffic(op, case, torch.bfloat16).saved
    assert kept <= bench.saved_by_reference(op, case, torch.bfloat16)


def test_ways_take_turns() -> None:
    order: list[str] = []
    times = interleaved({name: lambda name=name: order.append(name) for name in "abc"}, "cpu", 3)
    assert order == list("abc" + "abc" + "bca" + "cab")
    assert all(0 <= time.low <= time.median <= time.high for time in times.values())


def test_times_are_milliseconds() -> None:
    found = interleaved({"sleep": lambda: time.sleep(0.02)}, "cpu", 3)["sleep"]
    assert found.median >= 20
    assert asdict(Time(2.0, 1.0, 3.0)) == {"median": 2.0, "low": 1.0, "high": 3.0}
