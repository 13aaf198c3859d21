"""The options that every command which trains has: how it uses the machine, and for how long."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ..errors import UsageError
from .threads import Threads, parse_threads

__all__ = ["add_options", "options"]


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare them."""
    parser.add_argument("--workers", type=int, default=1, help="processes that draw batches (default 1)")
    parser.add_argument("--threads", default="auto", help="number of threads; 'auto' (default): as many as cores idle")
    parser.add_argument("--minutes", type=float, help="save and leave after so long; the same command goes on")


def options(args: argparse.Namespace) -> dict[str, Any]:
    """What `loop.train` takes of them. Raises UsageError for numbers that make no sense."""
    if args.workers < 0:
        raise UsageError(f"{args.workers} workers were given; choose 0 (draw in the training process) or more")
    if args.minutes is not None and not args.minutes > 0:
        raise UsageError(f"{args.minutes:g} minutes were given; choose a number above 0")
    threads = Threads(parse_threads(args.threads), Path(args.out))
    return {"workers": args.workers, "minutes": args.minutes, "threads": threads}
