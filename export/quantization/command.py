"""`pocketprior quantize PACK`: a plan for fewer bits under one budget on the image, and the pack that it makes."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from ...core.commands.restore import size_in_bytes
from ...core.errors import UsageError
from ...core.manifest import Manifest
from ...core.photo_list import released_photos
from ..place import check_place
from . import plan as plans
from .layers import layers_of, load_graphs
from .levels import LEVELS
from .memory import Memory
from .plan import Plan, as_coreml, as_nncf, as_onnx
from .report import Row, best_uniform, measure, table
from .samples import Sample, samples
from .search import OBJECTIVES, Found, fingerprint, search
from .variant import FloatPack, Reference, add_ir, open_float, reference, settle, uniform_levels, write_onnx

__all__ = ["Groups", "add_arguments", "run"]

LABEL = "mixed"  # the precision of graphs whose layers differ
SIDE = 192  # pixels of the squares that are looked at
PHOTOS = 10  # per group: calibration, search, and held back


class Groups(NamedTuple):
    """Photos that give the ranges of 8 bits, those on which a plan is searched for, and those that judge it."""

    calibration: list[Sample]
    search: list[Sample]
    held_back: list[Sample]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("pack", type=Path, metavar="PACK", help="folder of a pack with float32 graphs")
    parser.add_argument("--data", type=Path, required=True, help="clean photos; of a data folder its 'val' photos")
    parser.add_argument("-o", "--out", type=Path, required=True, help="folder of the new pack; must not exist")
    parser.add_argument("--budget-db", type=float, default=40.0, metavar="DB", help=_BUDGET)
    parser.add_argument("--max-size", type=size_in_bytes, metavar="SIZE", help="of all graphs, such as 4MB")
    parser.add_argument("--objective", choices=OBJECTIVES, default="size", help=_OBJECTIVE)
    chosen = parser.add_mutually_exclusive_group()
    chosen.add_argument("--plan", type=Path, metavar="FILE", help="take this plan instead of searching for one")
    chosen.add_argument("--level", choices=LEVELS[1:], help="one level for every layer that can have it")
    parser.add_argument("--to", choices=("onnx", "onnx,openvino"), default="onnx", help="graphs (default: %(default)s)")
    parser.add_argument("--photos", type=_count, default=PHOTOS, help="of each of the three groups (%(default)s)")
    parser.add_argument("--side", type=_count, default=SIDE, help="of the squares looked at, in pixels (%(default)s)")
    parser.add_argument("--search", type=Path, metavar="FOLDER", help="of the measurements (OUT.search); goes on there")
    parser.add_argument("--compare", action="store_true", help="measure packs at one level throughout as well")
    parser.add_argument("--json", action="store_true", help="print the measurements for programs")


_BUDGET = "PSNR to the float pack that the worst photo keeps (%(default)s)"
_OBJECTIVE = "smallest graphs, or the most integer arithmetic (%(default)s)"


def run(args: argparse.Namespace) -> int:
    """Search, write, measure; 1 where nothing meets the budget, and the pack is not written."""
    check_place(args.out)
    manifest = Manifest.load(args.pack)
    groups = _groups(args, manifest.tasks[0])
    folder = args.search or args.out.with_name(f"{args.out.name}.search")
    folder.mkdir(parents=True, exist_ok=True)
    if args.plan is not None:
        plans.check(plans.load(args.plan), layers_of(load_graphs(args.pack, manifest), manifest))
    pack = open_float(args.pack, groups.calibration)
    truth = reference(args.pack, groups.search)
    memory = Memory(folder / "measurements.jsonl", fingerprint(pack, truth))
    levels = _levels(args, pack, truth, memory)
    if levels is None:
        return 1
    if isinstance(levels, Plan):
        _write_plan(folder, pack, levels)
    return _finish(args, pack, levels, reference(args.pack, groups.held_back))


def _levels(args: argparse.Namespace, pack: FloatPack, truth: Reference, memory: Memory) -> Plan | str | None:
    """A plan, or the one level of all; None where there is no plan, which is said."""
    if args.level is not None:
        return str(args.level)
    if args.plan is not None:
        return plans.load(args.plan)
    found = search(pack, truth, args.budget_db, args.objective, memory)
    if isinstance(found, Found):
        return found.plan
    _log(
        f"there is no plan: the worst photo keeps {found.best_db:.1f} dB at best, {args.budget_db - found.best_db:.1f} "
        f"dB less than the {args.budget_db:g} dB that were asked for; lower --budget-db"
    )
    return None


def _finish(args: argparse.Namespace, pack: FloatPack, chosen: Plan | str, judge: Reference) -> int:
    """Write the pack, measure it on the photos held back, and put it in its place if it keeps the budget."""
    levels = uniform_levels(pack.layers, chosen) if isinstance(chosen, str) else dict(chosen.levels)
    label = chosen if isinstance(chosen, str) else LABEL
    with tempfile.TemporaryDirectory(prefix=f".{args.out.name}-", dir=args.out.parent) as temporary:
        draft = Path(temporary) / args.out.name
        draft.mkdir()
        manifest = write_onnx(pack, levels, draft, label)
        rows = [measure("fp32", args.pack, judge, "onnxruntime"), measure(label, draft, judge, "onnxruntime")]
        runtimes = ["onnxruntime"]
        if args.to != "onnx":
            rows.append(_add_openvino(args, pack, levels, draft, judge))
            manifest, runtimes = Manifest.load(draft), ["onnxruntime", "openvino"]
        settle(draft, manifest, {"plan": chosen.hash} if isinstance(chosen, Plan) else {}, runtimes)
        rows += _uniform(pack, judge) if args.compare else []
        _print(args, rows, chosen)
        problem = _problem(args, rows[1])
        if problem:
            _log(f"there is no plan: {problem}")
            return 1
        draft.rename(args.out)
    return 0


def _add_openvino(
    args: argparse.Namespace, pack: FloatPack, levels: Mapping[str, str], draft: Path, judge: Reference
) -> Row:
    """Add the IR that is fastest here of those that keep the budget: bf16 without integers where they do not pay."""
    label = args.level or LABEL
    without = {layer: "w8" if level == "int8" else level for layer, level in levels.items()}
    offers = {label: levels, f"{label}+bf16": levels}
    offers |= {"w8+bf16": without} if without != levels else {}
    rows: dict[str, Row] = {}
    for name, kept in offers.items():
        with tempfile.TemporaryDirectory() as folder:
            add_ir(
                pack, kept, Path(folder), write_onnx(pack, dict.fromkeys(levels, "fp32"), Path(folder), "fp32"), name
            )
            try:
                rows[name] = measure(name, Path(folder), judge, "openvino")
            except UsageError as error:  # a processor without bf16
                _log(f"{name} was not measured: {error}")
    fitting = [row for row in rows.values() if row.worst_db >= args.budget_db]
    best = min(fitting or rows.values(), key=lambda row: row.seconds)
    for row in rows.values():
        _log(f"OpenVINO {row.name}: worst {row.worst_db:.1f} dB, {row.seconds:.2f} CPU s per megapixel")
    _log(f"OpenVINO: {best.name} is shipped, the fastest here of those that keep the budget")
    manifest = Manifest.load(draft)
    add_ir(pack, offers[best.name], draft, manifest, best.name)
    return best


def _problem(args: argparse.Namespace, row: Row) -> str:
    """What the pack misses, and by how much; '' for nothing."""
    if row.worst_db < args.budget_db:
        return (
            f"on photos that the search did not see the worst keeps {row.worst_db:.1f} dB, "
            f"{args.budget_db - row.worst_db:.1f} dB less than asked for; give more --photos, or lower --budget-db"
        )
    if args.max_size is not None and row.bytes > args.max_size:
        return (
            f"at {args.budget_db:g} dB the graphs have {row.bytes / 1e6:.3f} MB, "
            f"{(row.bytes - args.max_size) / 1e6:.3f} MB more than --max-size allows; allow more, or lower --budget-db"
        )
    return ""


def _uniform(pack: FloatPack, judge: Reference) -> list[Row]:
    rows: list[Row] = []
    for level in LEVELS[1:]:
        with tempfile.TemporaryDirectory() as folder:
            write_onnx(pack, uniform_levels(pack.layers, level), Path(folder), level)
            rows.append(measure(f"all {level}", Path(folder), judge, "onnxruntime"))
    return rows


def _write_plan(folder: Path, pack: FloatPack, plan: Plan) -> None:
    """The plan, and what it says to each toolchain."""
    by_digest = {plan.weights[layer]: level for layer, level in plan.levels.items()}
    (folder / "plan.json").write_text(plan.text(), encoding="utf-8")
    emitted = {
        "onnx": as_onnx(pack.models, by_digest),
        "nncf": as_nncf(pack.models, by_digest),
        "coreml": as_coreml(plan),
    }
    for toolchain, said in emitted.items():
        text = json.dumps({"plan": plan.hash, toolchain: said}, indent=1, sort_keys=True)
        (folder / f"{toolchain}.json").write_text(text + "\n", encoding="utf-8")


def _print(args: argparse.Namespace, rows: Sequence[Row], chosen: Plan | str) -> None:
    if args.json:
        print(json.dumps({"rows": [dataclasses.asdict(row) for row in rows]}, indent=1))
        return
    print(table(rows))
    if isinstance(chosen, Plan):
        print(f"plan {chosen.hash[:16]}: {_counted(chosen)}")
    uniform = {row.name: row for row in rows if row.name.startswith("all ")}
    best = best_uniform(uniform, args.budget_db)
    if best:
        saved = 1 - rows[1].bytes / uniform[best].bytes
        print(f"best uniform pack at {args.budget_db:g} dB: {best}; {rows[1].name} is {100 * saved:.1f} % smaller")


def _counted(plan: Plan) -> str:
    used = [(level, sum(other == level for other in plan.levels.values())) for level in LEVELS]
    return ", ".join(f"{count} layers {level}" for level, count in used if count)


def _groups(args: argparse.Namespace, task: str) -> Groups:
    """Three groups of photos, dealt out in turn."""
    paths = released_photos(args.data, split="val")
    if len(paths) < 3:
        raise UsageError(f"'{args.data}' has {len(paths)} photos to quantize with; three groups need 3 at least")
    return Groups(*(samples(paths[first::3][: args.photos], task, args.side) for first in range(3)))


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' was given; give a whole number from 1")
    return int(text)


def _log(text: str) -> None:
    print(f"pocketprior: {text}", file=sys.stderr)
