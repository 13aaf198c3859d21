"""Float32 that is float32, and where it was computed."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version

import torch

from ...core.errors import UsageError

__all__ = ["device_of", "environment", "exact"]


def device_of(name: str) -> torch.device:
    """The device "cpu", "cuda", or with "auto" a GPU if there is one. Raises UsageError for a missing GPU."""
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise UsageError("--device cuda was given, but PyTorch finds no CUDA device; choose cpu or auto")
    return torch.device("cuda" if available and name != "cpu" else "cpu")


@contextmanager
def exact() -> Iterator[None]:
    """Deterministic, without TF32 in matrix products and convolutions, which cuDNN uses by default."""
    flags = ((torch.backends.cuda.matmul, "allow_tf32"), (torch.backends.cudnn, "allow_tf32"))
    before = [getattr(owner, name) for owner, name in flags], torch.backends.cudnn.deterministic
    try:
        for owner, name in flags:
            setattr(owner, name, False)
        torch.backends.cudnn.deterministic = True
        yield
    finally:
        for (owner, name), value in zip(flags, before[0], strict=True):
            setattr(owner, name, value)
        torch.backends.cudnn.deterministic = before[1]


def environment(device: torch.device) -> dict[str, str]:
    """The device and versions; no date, so that a repeated recording has the same bytes."""
    found = {
        "device": f"CPU ({platform.machine()})",
        "arithmetic": "float32, TF32 off",
        "python": platform.python_version(),
        **_versions("pocketprior", "torch", "numpy"),
    }
    if device.type == "cuda":
        facts = torch.cuda.get_device_properties(device)
        found |= {
            "device": torch.cuda.get_device_name(device),
            "capability": f"{facts.major}.{facts.minor}",
            "cuda": str(torch.version.cuda),
            **_versions("triton"),
        }
    return found


def _versions(*packages: str) -> dict[str, str]:
    """Versions of the packages that are installed: `scripts/gpu` runs in a clone that is not."""
    found: dict[str, str] = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
