"""bf16 only where the machine computes in it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from pocketprior.core.training.loop.processes import LIMITS, resolve

CPU = torch.device("cpu")
PROGRAM = Path(__file__).parents[3] / "support" / "toy_training.py"


def test_what_is_asked_for_is_taken() -> None:
    assert [resolve(wanted, CPU) for wanted in ("bf16", "fp32")] == ["bf16", "fp32"]


def test_auto_is_what_the_cpu_says(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in LIMITS:
        monkeypatch.delenv(name, raising=False)
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    if not any(line.startswith("flags") for line in flags.splitlines()):
        pytest.skip("needs Linux on x86")
    native = "avx512_bf16" in flags or "amx_bf16" in flags
    assert resolve("auto", CPU) == ("bf16" if native else "fp32")


@pytest.mark.parametrize("name", LIMITS)
@pytest.mark.parametrize("limit", ["AVX2", "AVX512_CORE", "avx512_core_vnni"])
def test_limit_on_the_instructions_counts(name: str, limit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, limit)
    assert resolve("auto", CPU) == "fp32"


def test_limit_that_leaves_bf16_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(LIMITS[0], raising=False)
    before = resolve("auto", CPU)
    monkeypatch.setenv(LIMITS[0], "AVX512_CORE_AMX")
    assert resolve("auto", CPU) == before


def test_limited_run_says_what_it_trains_in(tmp_path: Path) -> None:
    environment = {**os.environ, LIMITS[0]: "AVX512_CORE_VNNI", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(PROGRAM), str(tmp_path), "precision=auto", "steps=1"]
    said = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stderr
    assert said.startswith("toy: 0.333 k parameters, adamw, fp32 on cpu, ")
    assert 'precision = "auto"' in (tmp_path / "recipe.toml").read_text()
