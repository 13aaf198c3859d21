"""`scripts/gpu --collect DIR`: puts what came back in its place, and the numbers into docs/kernels.md."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from ...core.errors import UsageError
from ...core.files import atomic_output
from ...core.pack.systems import SYSTEMS
from .leg import hashes
from .page import FOLDER, write_measured
from .pieces import join
from .recording import REFERENCES
from .results import Results, StageResult
from .stage import stage_module
from .training import PIECES

__all__ = ["collect"]

FORMAT = 1
MARK = "-gpu"  # ends the names of run folders that came back


def collect(folder: Path, root: Path, *, dry_run: bool = False) -> list[Path]:
    """Put the results in `folder` into the clone `root`; the paths that were written.

    benchmarks/gpu/STAGE.json, where rows of the same device and sources are kept unless they were measured again;
    checkpoints/references/SYSTEM.npz; runs/RUN-gpu with the run that was trained; the tables of docs/kernels.md. Raises
    UsageError for files that are not those that the results name, and for a dry run unless one is expected.
    """
    results = Results.load(folder)
    if results.dry_run != dry_run:
        what = "of a dry run: they say nothing" if results.dry_run else "real; collect them without --dry-run"
        raise UsageError(f"the results in {folder} are {what}")
    found = hashes(folder)
    wrong = sorted(name for name, digest in results.files.items() if found.get(name) != digest)
    if wrong:
        raise UsageError(f"{folder / wrong[0]} is missing or not the file that was written; copy the folder again")
    (root / FOLDER).mkdir(parents=True, exist_ok=True)
    written = [_keep(root / FOLDER / f"{name}.json", name, stage, results) for name, stage in results.stages.items()]
    for name in (f"{system}.npz" for system in SYSTEMS if f"{system}.npz" in results.files):
        with atomic_output(root / REFERENCES / name, overwrite=True) as temporary:
            shutil.copyfile(folder / name, temporary)
        written.append(root / REFERENCES / name)
    pieces = [folder / name for name in sorted(results.files) if name.startswith(PIECES)]
    if pieces:
        run = pieces[0].name.removeprefix(PIECES).rpartition("-")[0].removesuffix(MARK)
        written += join(pieces, root / "runs" / f"{run}{MARK}")
    write_measured(root)
    return written


def _keep(path: Path, name: str, stage: StageResult, results: Results) -> Path:
    """Write the rows of a stage, whose types are looked at, with those that are still true."""
    module = stage_module(name)
    known = {f.name for f in fields(module.ROW)}
    wrong = [row for row in stage.rows if set(row) != known]
    if wrong:
        raise UsageError(f"a result of '{name}' has the fields {sorted(wrong[0])}, expected {sorted(known)}")
    rows = [*_still_true(path, results), *stage.rows]
    tree = {
        "format": FORMAT,
        "dry_run": results.dry_run,
        "environment": results.environment,
        "rows": list({tuple(row[field] for field in module.KEY): row for row in rows}.values()),
        "left_out": stage.left_out | ({name: stage.reason} if stage.reason else {}),
        "errors": stage.errors,
    }
    with atomic_output(path, overwrite=True) as temporary:
        temporary.write_text(json.dumps(tree, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    return path


def _still_true(path: Path, results: Results) -> list[dict[str, Any]]:
    """Rows that were collected before, if they are of the same device, versions and sources."""
    if not path.exists():
        return []
    before = json.loads(path.read_text(encoding="utf-8"))
    same = _origin(before["environment"]) == _origin(results.environment) and before["dry_run"] == results.dry_run
    return before["rows"] if same else []


def _origin(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name != "date"}
