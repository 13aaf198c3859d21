"""The processor that something was measured on, in words for a page; never the name of the computer."""

from __future__ import annotations

import os
import platform
from pathlib import Path

__all__ = ["ISA_LIMIT", "instruction_sets", "processor"]

ISA_LIMIT = (
    "ONEDNN_MAX_CPU_ISA"  # of the environment: the newest instructions that oneDNN, and OpenVINO with it, may use
)
_CPUINFO = Path("/proc/cpuinfo")

# What decides how fast networks run: flag of the Linux kernel -> its usual name.
_SETS = {
    "avx2": "AVX2",
    "avx512f": "AVX-512",
    "avx512_vnni": "VNNI",
    "avx512_bf16": "bf16",
    "amx_int8": "AMX",
    "asimddp": "dot product",
    "i8mm": "int8 matrices",
}


def processor() -> str:
    """The name of the processor, as far as the system knows it."""
    return _field("model name") or platform.processor() or "unknown processor"


def instruction_sets() -> str:
    """'AVX2, AVX-512, VNNI', and the limit that the environment sets; '' where the system does not list them."""
    flags = (_field("flags") or _field("Features")).split()
    names = [name for flag, name in _SETS.items() if flag in flags]
    limit = [f"{ISA_LIMIT}={os.environ[ISA_LIMIT]}"] if ISA_LIMIT in os.environ else []
    return ", ".join([*names, *limit])


def _field(name: str) -> str:
    """A line of the first core in Linux's list; '' elsewhere."""
    try:
        lines = _CPUINFO.read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.partition(":")[0].strip() == name), "")
