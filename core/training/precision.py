"""The precision that a machine trains in: bf16 only where its processor or GPU computes in it.

Emulated bf16 is three to four times slower than fp32.
"""

from __future__ import annotations

import os
import platform

import torch

__all__ = ["PRECISIONS", "resolve"]

PRECISIONS = ("auto", "bf16", "fp32")
LIMITS = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")  # environment variables that limit the instructions oneDNN uses
WITHOUT_BF16 = ("SSE41", "AVX", "AVX2", "AVX2_VNNI", "AVX2_VNNI_2", "AVX512_CORE", "AVX512_CORE_VNNI")  # such limits


def resolve(wanted: str, device: torch.device) -> str:
    """ "bf16" or "fp32": `wanted` itself, or for "auto" what `device` computes in natively.

    A limit on oneDNN's instructions counts: with ONEDNN_MAX_CPU_ISA=AVX512_CORE_VNNI a CPU with AMX has no native bf16.
    """
    if wanted != "auto":
        return wanted
    return "bf16" if _native(device) else "fp32"


def _native(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "xpu":
        return torch.xpu.is_bf16_supported(including_emulation=False)
    if device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    if any(os.environ.get(name, "").upper() in WITHOUT_BF16 for name in LIMITS):
        return False
    if platform.machine().lower() in ("x86_64", "amd64"):
        return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())  # on Arm it asks for the bf16 instructions
