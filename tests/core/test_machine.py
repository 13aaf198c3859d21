from __future__ import annotations

import platform

import pytest

from pocketprior.core import machine

INTEL = """\
processor\t: 0
model name\t: A Processor
flags\t\t: fpu avx2 avx512f avx512_vnni amx_int8

processor\t: 1
model name\t: Another
"""
ARM = "processor\t: 0\nFeatures\t: fp asimd asimddp i8mm\n"


@pytest.fixture
def cpuinfo(tmp_path, monkeypatch):
    path = tmp_path / "cpuinfo"
    monkeypatch.setattr(machine, "_CPUINFO", path)
    monkeypatch.delenv(machine.ISA_LIMIT, raising=False)
    return path


@pytest.mark.parametrize(
    ("text", "name", "sets"),
    [(INTEL, "A Processor", "AVX2, AVX-512, VNNI, AMX"), (ARM, None, "dot product, int8 matrices")],
)
def test_what_linux_tells(cpuinfo, text, name, sets):
    cpuinfo.write_text(text)
    assert machine.processor() == (name or platform.processor() or "unknown processor")
    assert machine.instruction_sets() == sets


def test_a_limit_is_told(cpuinfo, monkeypatch):
    cpuinfo.write_text(INTEL)
    monkeypatch.setenv(machine.ISA_LIMIT, "AVX512_CORE_VNNI")
    assert machine.instruction_sets().endswith("AMX, ONEDNN_MAX_CPU_ISA=AVX512_CORE_VNNI")


@pytest.mark.usefixtures("cpuinfo")
def test_other_systems(monkeypatch):
    monkeypatch.setattr(platform, "processor", lambda: "")
    assert machine.processor() == "unknown processor"
    assert machine.instruction_sets() == ""
