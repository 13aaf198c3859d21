"""Runs the stages one after the other, each within its share of the time, and keeps what they found."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from ...core.errors import UsageError
from .pieces import FILE_BYTES, FILES
from .results import NAME, Results, StageResult
from .stage import STAGES, stage_module

__all__ = ["SPOILT", "hashes", "run"]

SPOILT = 3  # exit status of a process after which the device needs a new one
RESERVE_S = 10.0  # for the last words
GRACE_S = 30.0  # by which an item may outlast its stage before it is stopped
INTERPRETED = "verify"  # the stage that, without a GPU, runs kernels in Triton's interpreter


def run(
    command: Sequence[str], out: Path, *, minutes: float, stages: Sequence[str], dry_run: bool, deadline: str
) -> int:
    """Run `stages` in about `minutes`; 1 if one of them failed, else 0.

    command: what starts the process of a stage, whose name and then `deadline` with a time are added. Results are in
    `out` after every item. Raises UsageError when `out` holds something else.
    """
    out.mkdir(parents=True, exist_ok=True)
    strangers = sorted({path.name for path in out.iterdir()} - {NAME})
    if strangers:
        raise UsageError(f"{out} holds {strangers[0]}; give a new folder for results")
    results = Results(dry_run=dry_run, minutes=minutes, stages={name: StageResult() for name in stages})
    results.save(out)
    start, whole = time.time(), sum(STAGES[name] for name in stages)
    used = 0.0
    for name in stages:
        used += STAGES[name]
        end = start + (60 * minutes - RESERVE_S) * used / whole
        _report(name, _stage([*command, name, deadline, f"{end:.1f}"], name, out, end))
    results = Results.load(out)
    _check_size(out)
    return 1 if any(stage.state == "failed" for stage in results.stages.values()) else 0


def hashes(folder: Path) -> dict[str, str]:
    """sha256 of every file beside the results."""
    paths = sorted(path for path in folder.iterdir() if path.name != NAME)
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def _stage(command: Sequence[str], name: str, out: Path, end: float) -> StageResult:
    """Run one stage, in as many processes as it takes."""
    start = time.time()
    least = stage_module(name).LEAST_S
    if end - start < least:
        return _ended(name, out, start, skipped=f"{max(0.0, end - start):.0f} s were left, it needs {least:.0f} s")
    while True:
        before = _stage_of(out, name).finished
        status = _wait(command, _environment(name, Results.load(out).dry_run), end + GRACE_S - time.time())
        stage = _accounted(name, out, status)
        if stage.complete or stage.finished == before or time.time() > end:
            return _ended(name, out, start)


def _environment(name: str, dry_run: bool) -> Mapping[str, str]:
    rest = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    return rest | ({"TRITON_INTERPRET": "1"} if dry_run and name == INTERPRETED else {})


def _wait(command: Sequence[str], environment: Mapping[str, str], seconds: float) -> int:
    """The exit status, negative for a process that was stopped; after so many seconds it is."""
    with subprocess.Popen(command, env=environment) as process:
        try:
            return process.wait(max(1.0, seconds))
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()
        except KeyboardInterrupt:
            process.kill()
            raise


def _accounted(name: str, out: Path, status: int) -> StageResult:
    """Put down what a process left unsaid: the item at which it ended, or that it never came to one."""
    results = Results.load(out)
    stage = results.stages[name]
    if stage.running:
        stage.errors[stage.running] = f"its process ended with status {status}, or was stopped for taking too long"
        stage.running = ""
        stage.finished += 1
    elif status not in (0, SPOILT):
        stage.errors[name] = f"the process of the stage ended with status {status}; its words are on stderr"
    results.save(out)
    return stage


def _ended(name: str, out: Path, start: float, skipped: str = "") -> StageResult:
    results = Results.load(out)
    stage = results.stages[name]
    stage.seconds = round(time.time() - start, 1)
    stage.reason = skipped
    stage.state = "skipped" if skipped else "failed" if stage.errors else "done"
    if not (skipped or stage.complete):
        stage.left_out["the items after these"] = "the time was over"
    results.files = hashes(out)
    results.save(out)
    return stage


def _check_size(out: Path) -> None:
    files = list(out.iterdir())
    large = [path.name for path in files if path.stat().st_size > FILE_BYTES]
    if large or len(files) > FILES:
        raise UsageError(
            f"{out} holds {len(files)} files, too large: {', '.join(large) or 'none'}; at most {FILES} of "
            f"{FILE_BYTES / 2**20:.0f} MiB can be counted on to come back"
        )


def _stage_of(out: Path, name: str) -> StageResult:
    return Results.load(out).stages[name]


def _report(name: str, stage: StageResult) -> None:
    found = stage.reason or f"{len(stage.rows)} results, {len(stage.left_out)} left out, {len(stage.errors)} failed"
    print(f"{name}: {stage.state} in {stage.seconds:.0f} s: {found}", file=sys.stderr)
    for item, error in stage.errors.items():
        print(f"{name}: {item}: {error.strip().splitlines()[-1]}", file=sys.stderr)
