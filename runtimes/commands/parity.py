"""`pocketprior parity run` and `pocketprior parity table`."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace, _SubParsersAction
from pathlib import Path

from ...core.arguments import add_pack, chosen_pack, whole_number
from ...core.files import write_text
from ..options import ARITHMETIC

__all__ = ["add_arguments", "run"]


def add_arguments(parser: ArgumentParser) -> _SubParsersAction[ArgumentParser]:
    """Declare the commands and their options; returns the sub-parsers, to which others may be added."""
    kinds = parser.add_subparsers(metavar="run | record | table", required=True)
    parser = kinds.add_parser("run", help="compare a pack with a reference", allow_abbrev=False)
    parser.set_defaults(act=_run)
    add_pack(parser)
    parser.add_argument("--task", help="one of a pack whose tasks have graphs of their own (the first)")
    parser.add_argument(
        "--against", type=Path, metavar="REFERENCE", help="made by 'parity record' (the pack's golden restorations)"
    )
    parser.add_argument("--runtime", default="onnxruntime", metavar="NAME", help="what runs the pack (%(default)s)")
    parser.add_argument("--precision", metavar="LABEL", help="of the files, such as fp16 (the pack's own)")
    parser.add_argument("--arithmetic", choices=ARITHMETIC, help="of numbers other than integers (the pack's own)")
    parser.add_argument("--float", type=Path, dest="floats", metavar="PACK", help="pack that it was quantized from")
    parser.add_argument("--layers", action="store_true", help="find the first layer over its limit")
    parser.add_argument("--threads", type=whole_number, help="for one graph call (the runtime's own choice)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the report as JSON")
    parser.add_argument("--junit", type=Path, metavar="FILE", help="write the report as JUnit XML")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write the report as one page with images")
    parser = kinds.add_parser("table", help="packs in all runtimes and precisions, on a page", allow_abbrev=False)
    parser.set_defaults(act=_table)
    parser.add_argument("packs", type=Path, nargs="+", metavar="PACK", help="folders of packs")
    parser.add_argument("--against", type=Path, nargs="+", default=[], metavar="REFERENCE", help="of their checkpoints")
    parser.add_argument("--threads", type=whole_number, help="for one graph call (the runtime's own choice)")
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="PAGE", help="page with marks for the table")
    return kinds


def run(args: Namespace) -> int:
    """Run the chosen command: 0, or 1 where a pack exceeds a limit."""
    return int(args.act(args))


def _run(args: Namespace) -> int:
    from ..parity import CompareOptions, compare
    from ..parity.formats import as_json, as_junit, as_text
    from ..parity.html_report import as_html

    options = CompareOptions(**{name: getattr(args, name) for name in CompareOptions._fields})
    report = compare(chosen_pack(args), options)
    print(as_text(report))
    for path, write in ((args.json, as_json), (args.junit, as_junit), (args.html, as_html)):
        if path is not None:
            write_text(path, write(report))
    return 0 if report.ok else 1


def _table(args: Namespace) -> int:
    """Fill the page; 1 where a pack exceeds a limit, or could not be run."""
    from ..parity.formats import fill, measured, table_text

    rows = list(measured(args.packs, args.against, args.threads))
    fill(args.out, table_text(rows))
    held = [row.report is not None and row.report.ok for row in rows]
    print(f"{args.out}: {len(rows)} rows, {sum(held)} held")
    return 0 if rows and all(held) else 1
