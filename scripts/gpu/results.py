"""What the parts of the command share: what they know, what they do, and the results they leave."""

from __future__ import annotations

import json
import platform
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple, TypeAlias

import torch
import triton

from pocketprior.core.files import write_text
from pocketprior.core.markdown import table

__all__ = ["Item", "Part", "Results", "Row", "Setup", "environment"]

Row: TypeAlias = Mapping[str, str | int | float]


@dataclass(frozen=True)
class Setup:
    """What the items of a part know."""

    root: Path  # the clone
    out: Path  # where results go
    ops: tuple[str, ...]
    photos: Path  # what the part `train` trains on
    stage: str  # SYSTEM:STAGE that it trains
    minutes: float  # for how long
    dry_run: bool  # on a CPU, at sizes that measure nothing

    @property
    def device(self) -> str:
        """What runs things; a dry run needs no GPU."""
        return "cpu" if self.dry_run else "cuda"


class Item(NamedTuple):
    """One piece of work: `run` yields result rows; those before an exception are kept."""

    name: str
    run: Callable[[], Iterable[Row]]


@dataclass
class Part:
    """What became of one part."""

    rows: list[Row] = field(default_factory=list)
    errors: dict[str, str] = field(default_factory=dict)  # item -> traceback


@dataclass
class Results:
    """All parts of a run, and where it ran."""

    environment: dict[str, str]
    parts: dict[str, Part] = field(default_factory=dict)

    def save(self, folder: Path) -> None:
        """Replace results.json and results.md in `folder`."""
        tree = {"environment": self.environment, **{name: vars(part) for name, part in self.parts.items()}}
        write_text(folder / "results.json", json.dumps(tree, indent=1, allow_nan=False) + "\n")
        lines = [", ".join(f"{name} {value}" for name, value in self.environment.items())]
        for name, part in self.parts.items():
            lines += [f"## {name}", _table(part.rows) if part.rows else "No results."]
            lines += [f"failed: {item}: {error.strip().splitlines()[-1]}" for item, error in part.errors.items()]
        write_text(folder / "results.md", "\n\n".join(["# Results of scripts/gpu/run", *lines]) + "\n")


def _table(rows: Sequence[Row]) -> str:
    """A column for every name that occurs in the rows."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    lines = [[_cell(row.get(name, "")) for name in names] for row in rows]
    return table([names, *lines], 1)


def _cell(value: str | float) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def environment(root: Path, device: str) -> dict[str, str]:
    """Return where numbers come from: the device, the versions, the commit and the date."""
    commit = subprocess.run(
        ["git", "-C", root, "describe", "--always", "--dirty"], capture_output=True, text=True, check=False
    )
    found = {
        "device": torch.cuda.get_device_name() if device == "cuda" else f"CPU ({platform.machine()}), a dry run",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "triton": triton.__version__,
        "commit": commit.stdout.strip() or "unknown",
        "date": datetime.now(UTC).date().isoformat(),
    }
    return found | ({"cuda": str(torch.version.cuda)} if device == "cuda" else {})
