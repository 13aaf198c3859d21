"""What a run of the stages found, as one JSON file that is replaced whole after every item."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ...core.errors import UsageError
from ...core.files import atomic_output

__all__ = ["NAME", "Results", "StageResult"]

NAME = "results.json"
FORMAT = 1


@dataclass
class StageResult:
    """What became of one stage."""

    state: str = "waiting"  # waiting, running, done, failed, skipped
    reason: str = ""  # why it was skipped
    seconds: float = 0.0
    running: str = ""  # the item in flight
    finished: int = 0  # items that need not be run again
    complete: bool = False  # whether the last item was reached
    rows: list[dict[str, Any]] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)  # item -> why
    errors: dict[str, str] = field(default_factory=dict)  # item -> traceback


@dataclass
class Results:
    """All stages of a run, and where it ran."""

    format: int = FORMAT
    dry_run: bool = False  # on a CPU, at sizes that say nothing
    minutes: float = 0.0
    environment: dict[str, str] = field(default_factory=dict)
    stages: dict[str, StageResult] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)  # the other files beside this one -> sha256

    def save(self, folder: Path) -> None:
        """Replace `folder`/results.json."""
        text = json.dumps(asdict(self), indent=1, allow_nan=False) + "\n"
        with atomic_output(folder / NAME, overwrite=True) as temporary:
            temporary.write_text(text, encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Results:
        """Read `folder`/results.json. Raises UsageError where there is none that this version wrote."""
        path = folder / NAME
        try:
            tree = json.loads(path.read_text(encoding="utf-8"))
            tree["stages"] = {name: StageResult(**stage) for name, stage in tree["stages"].items()}
            results = cls(**tree)
        except OSError as error:
            raise UsageError(f"{path} cannot be read ({error.strerror}); give a folder of scripts/gpu") from None
        except (ValueError, TypeError, KeyError) as error:
            raise UsageError(f"{path} is not what scripts/gpu writes: {error}") from None
        if results.format != FORMAT:
            raise UsageError(f"{path} has format {results.format}, this version reads format {FORMAT}")
        return results
