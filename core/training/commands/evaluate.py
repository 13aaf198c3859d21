"""`pocketprior evaluate`: measure the trained systems on held-back photos, as one page of tables.

    pocketprior evaluate --data DATA --checkpoints checkpoints -o docs/results.md

Every system is measured whose run folder is in --checkpoints: PSNR, SSIM, HaarPSI, NIQE and SWD, against the damaged
input and baselines. Gen2Res is constrained to each held-back album, which takes minutes for each; finished ones are
reused.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ...degradations import TASKS

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    add = parser.add_argument
    add("--data", type=Path, required=True, help="folder of photos with a manifest.csv")
    add("--checkpoints", type=Path, default=Path("checkpoints"), help="folder of run folders (%(default)s)")
    add("--work", type=Path, default=Path(".cache/evaluate"), help="folder of the runs for albums (%(default)s)")
    add("--side", type=int, default=320, help="side of the centre squares, pixels (%(default)s)")
    add("--task", choices=TASKS, default="noise", help="damage of the album photos (%(default)s)")
    add("-o", "--out", type=Path, required=True, help="the page, such as docs/results.md")


def run(args: argparse.Namespace) -> int:
    """Measure every system whose checkpoint is there and write the page."""
    from ..runs import evaluate

    count = evaluate(args.data, args.out, runs=args.checkpoints, work=args.work, side=args.side, task=args.task)
    print(f"{args.out}: {count} tables")
    return 0
