from __future__ import annotations

import platform

import pytest

from pocketprior.core import timing

INTEL = """\
processor\t: 0
model name\t: A Processor
flags\t\t: fpu avx2 avx512f avx512_vnni amx_int8

processor\t: 1
model name\t: Another
"""
ARM = "processor\t: 0\nFeatures\t: fp asimd asimddp i8mm\n"


def test_calls_take_turns_and_warming_up_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    now, order = [0.0], []
    monkeypatch.setattr(timing.time, "process_time", lambda: now[0])

    def call(name: str, taken: float) -> None:
        order.append(name)
        now[0] += taken * (10 if len(order) <= 2 else 1)

    found = timing.interleaved({"a": lambda: call("a", 1.0), "b": lambda: call("b", 2.0)}, 3)
    assert order == list("ab" + "ab" + "ba" + "ab")
    assert found == {"a": [1.0] * 3, "b": [2.0] * 3}


def test_nothing_to_time() -> None:
    assert timing.interleaved({}, 3) == {}


@pytest.fixture
def cpuinfo(tmp_path, monkeypatch):
    path = tmp_path / "cpuinfo"
    monkeypatch.setattr(timing, "_CPUINFO", path)
    monkeypatch.delenv(timing.ISA_LIMIT, raising=False)
    return path


@pytest.mark.parametrize(
    ("text", "name", "sets"),
    [(INTEL, "A Processor", "AVX2, AVX-512, VNNI, AMX"), (ARM, None, "dot product, int8 matrices")],
)
def test_what_linux_tells(cpuinfo, text, name, sets):
    cpuinfo.write_text(text)
    assert timing.processor() == (name or platform.processor() or "unknown processor")
    assert timing.instruction_sets() == sets


def test_a_limit_is_told(cpuinfo, monkeypatch):
    cpuinfo.write_text(INTEL)
    monkeypatch.setenv(timing.ISA_LIMIT, "AVX512_CORE_VNNI")
    assert timing.instruction_sets().endswith("AMX, ONEDNN_MAX_CPU_ISA=AVX512_CORE_VNNI")


@pytest.mark.usefixtures("cpuinfo")
def test_other_systems(monkeypatch):
    monkeypatch.setattr(platform, "processor", lambda: "")
    assert timing.processor() == "unknown processor"
    assert timing.instruction_sets() == ""
