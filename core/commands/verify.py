"""`pocketprior verify PACK`: check the files of a pack and its golden restorations."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from ..arguments import add_pack, chosen_pack
from ..restore.selftest import VerifyReport, verify

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    add_pack(parser)
    parser.add_argument("--runtime", default="onnxruntime", metavar="NAME", help="what runs the graphs (%(default)s)")
    parser.add_argument("--json", action="store_true", help="print the report for programs")


def run(args: argparse.Namespace) -> int:
    """Check the pack and print the report; returns 1 if any check fails."""
    folder = chosen_pack(args)
    report = verify(folder, args.runtime)
    if args.json:
        print(json.dumps({"path": str(folder), "ok": report.ok, **asdict(report)}, indent=1))
    else:
        print("\n".join(_lines(folder, report)))
    return 0 if report.ok else 1


def _lines(folder: Path, report: VerifyReport) -> list[str]:
    files = [f"FAIL  {check.problem}" if check.problem else f"ok    {check.file}" for check in report.files]
    goldens = [
        f"{'ok  ' if check.difference <= check.tolerance else 'FAIL'}  golden '{check.name}', {check.form}, in "
        f"{report.runtime}: {check.difference} grey levels of difference, {check.tolerance} allowed"
        for check in report.goldens
    ]
    skipped = [] if report.goldens else ["FAIL  no golden restoration was compared: file checks failed"]
    verdict = "is what was packed" if report.ok else "differs from what was packed; copy or export it again"
    return [*files, *goldens, *skipped, f"{folder} {verdict}"]
