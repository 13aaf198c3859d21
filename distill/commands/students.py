"""`pocketprior bench students`: the page that compares few-step students with their teachers."""

from __future__ import annotations

import argparse
from pathlib import Path

from ...core.errors import UsageError
from ...core.files import write_text

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("--data", type=Path, required=True, help="folder of photos with a manifest.csv")
    parser.add_argument("--checkpoints", type=Path, default=Path("checkpoints"), help="teachers (%(default)s)")
    parser.add_argument(
        "--students", type=Path, default=Path("checkpoints/students"), help="folder of their run folders (%(default)s)"
    )
    parser.add_argument("--task", default="cleanup", help="of the DTPM (%(default)s)")
    parser.add_argument("--side", type=int, default=320, help="of the centre squares, pixels (%(default)s)")
    parser.add_argument("--photos", type=int, default=0, help="number of held-back photos; 0 (default) for all")
    parser.add_argument("-o", "--out", type=Path, required=True, help="the page, such as docs/distillation.md")


def run(args: argparse.Namespace) -> int:
    """Measure every student and its teacher, and write the page."""
    from ..students import students_page

    if not args.out.parent.is_dir():
        raise UsageError(f"the folder of '{args.out}' does not exist; make it, or choose another -o")
    names = ("task", "side", "photos") if args.photos else ("task", "side")
    chosen = {name: getattr(args, name) for name in names}
    options = " ".join(f"--{name} {value}" for name, value in chosen.items())
    made_by = f"pocketprior bench students --data DATA --students STUDENTS {options} -o OUT"
    write_text(args.out, students_page(args.data, args.checkpoints, args.students, **chosen, made_by=made_by))
    print(f"wrote {args.out}")
    return 0
