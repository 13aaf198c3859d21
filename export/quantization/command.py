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

from ...core.arguments import size_in_bytes
from ...core.errors import UsageError
from ...core.pack.manifest import LimitOverride, Manifest
from ...core.photo.listing import released_photos
from ..place import check_place
from . import plan as plans
from .files import EMITTERS, assembled, bare, check_packages, coreml_files, filed, openvino_files, write_onnx
from .layers import layers_of, load_graphs
from .levels import LEVELS
from .memory import Memory
from .plan import Plan, as_coreml, as_nncf, as_onnx
from .report import Row, best_uniform, measure, table
from .samples import Sample, samples
from .search import OBJECTIVES, Found, fingerprint, search
from .variant import FloatPack, Reference, open_float, reference, settle, uniform_levels

__all__ = ["Draft", "Groups", "Offer", "add_arguments", "run"]

LABEL = "mixed"  # the precision of graphs whose layers differ
USUAL_DB = 40.0  # what parity expects of fewer bits, unless the pack says otherwise
SIDE = 192  # pixels of the squares that are looked at
PHOTOS = 10  # per group: calibration, search, and held back
PROBE = (4, 128)  # photos of the search on which layers are measured one at a time, and the side of their squares


class Groups(NamedTuple):
    """Photos that give the ranges of 8 bits, those on which a plan is searched for, and those that judge it.

    probe: small squares of some photos of the search.
    """

    calibration: list[Sample]
    search: list[Sample]
    held_back: list[Sample]
    probe: list[Sample]


class Offer(NamedTuple):
    """Levels of the layers in IR, and whether NNCF finds the scales of the integers."""

    levels: Mapping[str, str]
    nncf: bool = False


class Draft(NamedTuple):
    """A pack that is being made: its folder, the level of each layer and its label, what the float pack restores."""

    pack: FloatPack
    levels: Mapping[str, str]
    label: str
    folder: Path
    judge: Reference


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("pack", type=Path, metavar="PACK", help="folder of a pack with float32 graphs")
    parser.add_argument("--data", type=Path, required=True, help="clean photos; of a data folder its 'val' photos")
    parser.add_argument("-o", "--out", type=Path, required=True, help="folder of the new pack; must not exist")
    parser.add_argument("--budget-db", type=float, default=40.0, metavar="DB", help=_BUDGET)
    parser.add_argument(
        "--max-size", type=size_in_bytes, metavar="SIZE", help="of all graphs of one runtime, such as 4MB"
    )
    parser.add_argument("--objective", choices=OBJECTIVES, default="size", help=_OBJECTIVE)
    chosen = parser.add_mutually_exclusive_group()
    chosen.add_argument("--plan", type=Path, metavar="FILE", help="take this plan instead of searching for one")
    chosen.add_argument("--level", choices=LEVELS[1:], help="one level for every layer that can have it")
    parser.add_argument("--to", type=_targets, default=("onnx",), metavar="TARGETS", help=_TO)
    parser.add_argument("--photos", type=_count, default=PHOTOS, help="of each of the three groups (%(default)s)")
    parser.add_argument("--side", type=_count, default=SIDE, help="of the squares looked at, in pixels (%(default)s)")
    parser.add_argument("--probe", type=_count, nargs=2, default=PROBE, metavar=("PHOTOS", "SIDE"), help=_PROBE)
    parser.add_argument("--search", type=Path, metavar="FOLDER", help="of the measurements (OUT.search); goes on there")
    parser.add_argument("--compare", action="store_true", help="measure packs at one level throughout as well")
    parser.add_argument("--json", action="store_true", help="print the measurements for programs")


_TO = f"comma-separated, of: {', '.join(EMITTERS)} (default: onnx)"
_BUDGET = "PSNR to the float pack that the worst photo keeps (%(default)s)"
_PROBE = f"on which layers are measured one at a time ({PROBE[0]} {PROBE[1]})"
_OBJECTIVE = "smallest graphs, or the most integer arithmetic (%(default)s)"


def run(args: argparse.Namespace) -> int:
    """Search, write, measure; 1 where nothing meets the budget, and the pack is not written."""
    check_place(args.out)
    manifest = Manifest.load(args.pack)
    if "coreml" in args.to:
        check_packages(manifest)
    groups = _groups(args, manifest.tasks[0])
    folder = args.search or args.out.with_name(f"{args.out.name}.search")
    folder.mkdir(parents=True, exist_ok=True)
    if args.plan is not None:
        plans.check(plans.load(args.plan), layers_of(load_graphs(args.pack, manifest), manifest))
    pack = open_float(args.pack, groups.calibration)
    levels = _levels(args, pack, groups, folder / "measurements.jsonl")
    if levels is None:
        return 1
    if isinstance(levels, Plan):
        _write_plan(folder, pack, levels)
    return _finish(args, pack, levels, reference(args.pack, groups.held_back))


def _levels(args: argparse.Namespace, pack: FloatPack, groups: Groups, measurements: Path) -> Plan | str | None:
    """A plan, or the one level of all; None where there is no plan, which is said."""
    if args.level is not None:
        return str(args.level)
    if args.plan is not None:
        return plans.load(args.plan)
    probe, truth = reference(args.pack, groups.probe), reference(args.pack, groups.search)
    memory = Memory(measurements, fingerprint(pack, probe, truth))
    found = search(pack, probe, truth, args.budget_db, args.objective, memory)
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
        draft = Draft(pack, levels, label, Path(temporary) / args.out.name, judge)
        draft.folder.mkdir()
        manifest = write_onnx(pack, levels, draft.folder, label)
        rows = [measure("fp32", args.pack, judge, "onnxruntime"), measure(label, draft.folder, judge, "onnxruntime")]
        made = [rows[1]]
        if "openvino" in args.to:
            found, shipped = _add_openvino(draft, manifest, args.budget_db)
            rows, made, manifest = [*rows, *found], [*made, shipped], Manifest.load(draft.folder)
        if "coreml" in args.to:
            row = _add_coreml(draft, manifest)
            rows, made, manifest = [*rows, row], [*made, row], Manifest.load(draft.folder)
        if args.budget_db < USUAL_DB:
            limit = LimitOverride(
                f"made under a budget of {args.budget_db:g} dB for the worst photo", psnr_db=args.budget_db
            )
            manifest = dataclasses.replace(manifest, limits={**manifest.limits, "coded": limit})
        settle(draft.folder, manifest, {"plan": chosen.hash} if isinstance(chosen, Plan) else {})
        rows += _uniform(pack, judge) if args.compare else []
        _print(args, rows, chosen)
        problem = _problem(args, made)
        if problem:
            _log(f"there is no plan: {problem}")
            return 1
        draft.folder.rename(args.out)
    return 0


def _add_openvino(draft: Draft, manifest: Manifest, budget_db: float) -> tuple[list[Row], Row]:
    """Add the IR that is fastest here of those that keep the budget, 16 bits without integers where these do not pay.

    What was measured, the float pack and the offers; and that which was added.
    """
    rows: dict[str, Row] = {}
    floats = dict.fromkeys(draft.levels, "fp32")
    for name, offer in {"fp32": Offer(floats), "bf16": Offer(floats), **_offers(draft)}.items():
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            written = openvino_files(draft.pack, offer.levels, folder, name, offer.nncf)
            assembled(draft.pack, folder, filed(bare(draft.pack.manifest), "openvino", written))
            try:
                rows[name] = measure(name, folder, draft.judge, "openvino")
            except UsageError as error:  # a processor without bf16
                _log(f"{name} was not measured: {error}")
    offers = {name: row for name, row in rows.items() if name not in ("fp32", "bf16")}
    fitting = {name: row for name, row in offers.items() if row.worst_db >= budget_db}
    best = min(fitting or offers, key=lambda name: offers[name].seconds or 0.0)
    _log(f"OpenVINO: {best} is the fastest here" + (" of those that keep the budget" if fitting else "; none fits"))
    offer = _offers(draft)[best]
    written = openvino_files(draft.pack, offer.levels, draft.folder, best, offer.nncf)
    assembled(draft.pack, draft.folder, filed(manifest, "openvino", written))
    return [*rows.values()], rows[best]


def _add_coreml(draft: Draft, manifest: Manifest) -> Row:
    """Add Core ML packages whose arithmetic beside integers is in float16, as Apple's processors have it."""
    label = f"{draft.label}+fp16"
    written = coreml_files(draft.pack, draft.levels, draft.folder, label)
    assembled(draft.pack, draft.folder, filed(manifest, "coreml", written))
    return measure(label, draft.folder, draft.judge, "coreml")


def _offers(draft: Draft) -> dict[str, Offer]:
    """By the precision that the IR would have: the levels as they are, and without integers if they have some."""
    same = {draft.label: Offer(draft.levels), f"{draft.label}+bf16": Offer(draft.levels)}
    if "int8" not in draft.levels.values():
        return same
    without = {layer: "w8" if level == "int8" else level for layer, level in draft.levels.items()}
    nncf = {
        f"{name}-nncf{rest}": Offer(draft.levels, True) for name, rest in ((draft.label, ""), (draft.label, "+bf16"))
    }
    return {**same, **nncf, "w8+bf16": Offer(without)}


def _problem(args: argparse.Namespace, made: Sequence[Row]) -> str:
    """What the pack misses in one of its runtimes, and by how much; '' for nothing."""
    for row in made:
        if row.worst_db < args.budget_db:
            return (
                f"on photos that the search did not see the worst keeps {row.worst_db:.2f} dB in {row.runtime}, "
                f"{args.budget_db - row.worst_db:.2f} dB less than asked for; give more --photos, or lower --budget-db"
            )
        if args.max_size is not None and row.bytes > args.max_size:
            return (
                f"at {args.budget_db:g} dB the graphs for {row.runtime} have {row.bytes / 1e6:.3f} MB, "
                f"{(row.bytes - args.max_size) / 1e6:.3f} MB more than --max-size allows; allow more, or lower "
                "--budget-db"
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
    calibration, looked_at, held_back = (paths[first::3][: args.photos] for first in range(3))
    photos, side = args.probe
    return Groups(
        *(samples(group, task, args.side) for group in (calibration, looked_at, held_back)),
        probe=samples(looked_at[:photos], task, side),
    )


def _targets(text: str) -> tuple[str, ...]:
    given = tuple(text.split(","))
    if not set(given) <= set(EMITTERS) or "onnx" not in given or len(given) != len(set(given)):
        raise argparse.ArgumentTypeError(f"'{text}' was given; give onnx, and others of: {', '.join(EMITTERS)}")
    return given


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' was given; give a whole number from 1")
    return int(text)


def _log(text: str) -> None:
    print(f"pocketprior: {text}", file=sys.stderr)
