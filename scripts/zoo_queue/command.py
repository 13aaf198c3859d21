"""`scripts/zoo`: starts the training queue in the background, stops it, prints its state."""

from __future__ import annotations

import argparse
import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from pocketprior.core.errors import PocketPriorError, UsageError

from .queue import Place, Status, read_models, status, work

__all__ = ["main"]

PATIENCE = 600.0  # seconds that `stop` waits for the state to be saved


def main(root: Path, arguments: Sequence[str]) -> int:
    """Run one of the actions for the clone `root`; returns an exit code."""
    args = _parser(root).parse_args(arguments)
    lock = _Lock(args.state)
    try:
        if args.action == "start":
            return _start(root, args, lock)
        if args.action == "stop":
            return _stop(lock)
        models = read_models(args.models)
        place = Place(args.state, args.weights, args.data or "", args.threads)
        if args.action == "table":
            print(_table(status(models, place), lock.running()))
            return 0
        if not args.data:
            raise UsageError("no photos were given; add --data FOLDER or set POCKETPRIOR_DATA")
        with lock:
            for run in work(models, place):
                lock.note(run)
        return 0
    except PocketPriorError as error:
        print(f"zoo: error: {error}", file=sys.stderr)
        return error.exit_code


def _parser(root: Path) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "zoo", description="Train the models of the zoo, in order, for as long as it takes."
    )
    parser.add_argument(
        "action",
        choices=("start", "stop", "table", "work"),
        help="start or resume in the background, stop (the state is saved), print a table of the runs, "
        "or work in the foreground",
    )
    parser.add_argument("--data", default=os.environ.get("POCKETPRIOR_DATA"), help="photos (or set POCKETPRIOR_DATA)")
    parser.add_argument(
        "--state",
        type=Path,
        default=Path(os.environ.get("POCKETPRIOR_ZOO", root / ".zoo")),
        help="folder of the runs (default .zoo in the clone, or POCKETPRIOR_ZOO)",
    )
    parser.add_argument("--models", type=Path, default=root / "zoo", help="folder of the NAME.toml files")
    parser.add_argument(
        "--weights", type=Path, default=root / "checkpoints" / "zoo", help="folder of the checkpoints in 16 bits"
    )
    parser.add_argument("--nice", type=int, default=15, help="priority in the background (default %(default)s, low)")
    parser.add_argument("--threads", default="auto", help="as in `pocketprior train`")
    return parser


class _Lock:
    """Held by the one process that works on a state folder; the system releases it when that process ends.

    The file holds the process id and the name of the current run.
    """

    def __init__(self, state: Path) -> None:
        self._path = state / "lock"

    def __enter__(self) -> _Lock:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self._path.open("a+")
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UsageError(f"the queue of {self._path.parent} is running; stop it first") from None
        self.note("")
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def note(self, run: str) -> None:
        """Name the current run."""
        self._file.seek(0)
        self._file.truncate()
        self._file.write(f"{os.getpid()} {run}")
        self._file.flush()

    def running(self) -> tuple[int, str] | None:
        """The id of the process that holds the lock, and its run; None when no process does."""
        if not self._path.exists():
            return None
        with self._path.open("r+") as file:
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                process, _, run = file.read().partition(" ")
                return int(process or 0), run
        return None


def _start(root: Path, args: argparse.Namespace, lock: _Lock) -> int:
    if running := lock.running():
        print(f"the queue is running (process {running[0]}, {running[1]})")
        return 0
    read_models(args.models)
    if not args.data:
        raise UsageError("no photos were given; add --data FOLDER or set POCKETPRIOR_DATA")
    args.state.mkdir(parents=True, exist_ok=True)
    log = args.state / "log.txt"
    options = [f"--{name}={getattr(args, name)}" for name in ("data", "state", "models", "weights", "threads")]
    with log.open("a") as file:
        worker = subprocess.Popen(
            ["nice", "-n", str(args.nice), sys.executable, str(root / "scripts" / "zoo"), "work", *options],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
    worker.returncode = 0  # it outlives this process, which does not wait for it
    print(f"started; its output goes to {log}")
    return 0


def _stop(lock: _Lock) -> int:
    running = lock.running()
    if not running:
        print("the queue is not running")
        return 0
    os.kill(running[0], signal.SIGTERM)
    end = time.monotonic() + PATIENCE
    while lock.running():
        if time.monotonic() > end:
            print(f"process {running[0]} has not stopped after {PATIENCE:.0f} s", file=sys.stderr)
            return 1
        time.sleep(0.2)
    print(f"stopped at {running[1]}; 'start' resumes there")
    return 0


def _table(rows: Sequence[Status], running: tuple[int, str] | None) -> str:
    lines = [("run", "Mpx seen", "hours", "validation", "latest image")]
    for row in rows:
        name = f"{row.run} *" if running and running[1] == row.run else row.run
        lines.append((name, f"{row.mpx:.0f}", f"{row.hours:.2f}", row.validation, row.image))
    widths = [max(len(line[i]) for line in lines) for i in range(5)]
    text = "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )
    return f"{text}\n{'* is being trained' if running else 'the queue is not running'}"
