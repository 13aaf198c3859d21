"""Where numbers come from: the device, the versions, and the sources that were run."""

from __future__ import annotations

import hashlib
import platform
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

__all__ = ["describe", "exact_float32"]

PACKAGES = ("torch", "triton", "numpy")
SOURCES = ("kernels", "core/models")  # whose hash tells whether numbers are of these very kernels


def describe(root: Path, device: str) -> dict[str, str]:
    """Words by name. root: the clone."""
    found = {
        "device": torch.cuda.get_device_name() if device == "cuda" else f"CPU ({platform.machine()})",
        "python": platform.python_version(),
        **{name: _version(name) for name in PACKAGES},
        "sources": _digest(root),
        "date": datetime.now(UTC).date().isoformat(),
    }
    if device == "cuda":
        facts = torch.cuda.get_device_properties(0)
        found |= {
            "capability": f"{facts.major}.{facts.minor}",
            "memory": f"{facts.total_memory / 2**30:.0f} GiB",
            "multiprocessors": str(facts.multi_processor_count),
            "cuda": str(torch.version.cuda),
        }
    return found


def exact_float32() -> None:
    """Let float32 be float32: without TF32 in matrix products and convolutions, which cuDNN would use unasked."""
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "none"


def _digest(root: Path) -> str:
    digest = hashlib.sha256()
    for folder in SOURCES:
        for path in sorted((root / folder).rglob("*.py")):
            digest.update(path.relative_to(root).as_posix().encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]
