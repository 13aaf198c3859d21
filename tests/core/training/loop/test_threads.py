"""Threads follow the machine, and whoever writes into the run folder."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from pocketprior.core.errors import UsageError
from pocketprior.core.training.loop import processes
from pocketprior.core.training.loop.processes import Threads, idle_cores, parse_threads


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("cores", "others", "expected"),
    [(2, 0.0, 2), (2, 0.2, 2), (2, 0.3, 1), (2, 1.0, 1), (2, 5.0, 1), (16, 0.1, 16), (16, 1.0, 15), (1, 0.0, 1)],
)
def test_every_idle_core_and_one_at_least(cores: int, others: float, expected: int) -> None:
    assert idle_cores(cores, others) == expected


def test_what_can_be_asked_for() -> None:
    assert parse_threads("auto") is None
    assert parse_threads("3") == 3
    for text in ("0", "-1", "two", ""):
        with pytest.raises(UsageError, match="'auto' or a number above 0"):
            parse_threads(text)


def test_number_is_set_and_the_file_replaces_it(tmp_path: Path) -> None:
    found = Threads(1, tmp_path)
    assert found.adjust() == torch.get_num_threads() == 1
    (tmp_path / "threads").write_text("2\n")
    assert found.adjust() == torch.get_num_threads() == 2
    (tmp_path / "threads").write_text("half of them")
    assert found.adjust() == 1
    (tmp_path / "threads").unlink()
    assert found.adjust() == 1


def test_auto_looks_again_after_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    others = 0.0
    monkeypatch.setattr(processes, "_cores", lambda: 2)
    monkeypatch.setattr(Threads, "load_of_others", lambda *_: others)
    found = Threads(None, tmp_path)
    assert found.adjust() == 2
    others = 1.0
    assert found.adjust() == 2  # the next look is in half a minute
    monkeypatch.setattr(processes, "EVERY", 0.0)
    found = Threads(None, tmp_path)
    assert found.adjust() == 1
    others = 0.0
    assert found.adjust() == torch.get_num_threads() == 2


@pytest.mark.skipif(not Path("/proc/stat").exists(), reason="needs Linux")
def test_busy_process_is_noticed_and_this_one_is_not_counted(tmp_path: Path) -> None:
    cores = processes._cores()
    with subprocess.Popen(
        [sys.executable, "-c", "print(1, flush=True)\nwhile True: pass"], stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        other.stdout.readline()
        load = Threads(None, tmp_path)
        since, ours = time.monotonic(), os.times()
        while time.monotonic() - since < 0.8:
            sum(range(1000))
        used = sum(os.times()[:2]) - sum(ours[:2])
        found = load.load_of_others(0.8)
        other.kill()
    assert 0.2 < found <= cores - used / (time.monotonic() - since) + 0.3
