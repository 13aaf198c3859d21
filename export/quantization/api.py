"""The public function `quantize`: a float pack becomes a smaller one under a budget on the restored image."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from ...core.errors import UnknownNameError, UsageError
from ...core.pack.manifest import LimitOverride, Manifest
from ...core.photo.listing import released_photos
from ..limits import LEAST_PHOTOS, QUANTIZED_DB
from ..targets import BASE_TARGET, TARGETS, WEIGHT_PRECISIONS, Offer, Target, target_of, targets_of
from ..targets.calibration import DamagedPhoto, FloatPack, damaged_photos, open_float
from ..targets.weights import layers_of, load_graphs, uniform_precisions
from ..writer.golden_restoration import settle
from ..writer.pack import assembled, bare, check_place, filed, new_pack
from .pack_quality import FloatResults, PackQuality, float_results, measure_pack
from .plan import PrecisionPlan, check_plan, load_plan
from .search import OBJECTIVES, Measurements, fingerprint, search, write_onnx_pack

__all__ = ["QuantizeOptions", "QuantizedPack", "quantize"]

_LABEL = "mixed"  # the precision of graphs whose layers differ


@dataclass(frozen=True)
class QuantizeOptions:
    """How a pack is quantized. Raises UnknownNameError and UsageError for what does not exist or fit together."""

    targets: Sequence[str] = (BASE_TARGET,)  # this one and others of TARGETS
    budget_db: float = QUANTIZED_DB  # PSNR to the float pack that the worst photo keeps
    max_bytes: int | None = None  # of all graphs of one runtime
    objective: str = "size"  # smallest graphs, or "speed": the most integer arithmetic
    plan: Path | None = None  # take this plan instead of searching
    precision: str | None = None  # one precision for every layer that can have it, instead of a plan
    photos: int = 10  # of each group: calibration, search and proof
    side: int = 192  # of their square crops, pixels
    probe: tuple[int, int] = (4, 128)  # photos on which layers are measured one at a time, and the side of their crops
    search: Path | None = None  # folder of the measurements, which an interrupted search resumes; None for OUT.search
    compare: bool = False  # measure packs at one precision throughout as well

    def __post_init__(self) -> None:
        targets_of(self.targets)
        if BASE_TARGET not in self.targets or len(self.targets) != len(set(self.targets)):
            given, known = ",".join(self.targets), ", ".join(TARGETS)
            raise UsageError(f"'{given}' was given; give {BASE_TARGET}, and others of: {known}")
        if self.objective not in OBJECTIVES:
            raise UnknownNameError("objective", self.objective, OBJECTIVES)
        if self.precision is not None and self.precision not in WEIGHT_PRECISIONS[1:]:
            raise UnknownNameError("precision", self.precision, WEIGHT_PRECISIONS[1:])
        if self.plan is not None and self.precision is not None:
            raise UsageError("a plan and one precision for all layers were given; give one of them")
        if min(self.photos, self.side, *self.probe) < 1:
            raise UsageError("expected numbers of photos and sides of crops of 1 or more")


class QuantizedPack(NamedTuple):
    """What `quantize` made."""

    rows: Sequence[PackQuality]  # the float pack, the new one, then other runtimes and what it was compared with
    plan: PrecisionPlan | None  # None for one precision throughout
    problem: str  # why no pack was written, "" if it was


def quantize(pack: Path, folder: Path, data: Path, options: QuantizeOptions | None = None) -> QuantizedPack:
    """Quantize a float32 pack so that the worst photo keeps the budget; no pack is written if none does.

    Args:
        pack: Folder of a pack with float32 graphs.
        folder: Of the new pack; it must not exist.
        data: Folder of clean photos; of a data folder its `val` photos are taken.
        options: How; None for the defaults.

    Returns:
        What was measured on photos that neither calibration nor search saw, the plan, and what went wrong.

    Raises:
        UsageError: The pack or the photos are not what quantization needs.
        PackError: The pack is damaged.
        MissingExtraError: The toolchain of a target is not installed.
    """
    options = options or QuantizeOptions()
    check_place(folder)
    manifest = Manifest.load(pack)
    for target in targets_of(options.targets):
        target.check(manifest)
    calibration, looked_at, held_back, probed = _groups(data, manifest.tasks[0], options)
    measurements = options.search or folder.with_name(f"{folder.name}.search")
    measurements.mkdir(parents=True, exist_ok=True)
    plan = load_plan(options.plan) if options.plan else None
    if plan is not None:
        check_plan(plan, layers_of(load_graphs(pack, manifest), manifest))
    floats = open_float(pack, calibration)
    if plan is None and options.precision is None:
        probe, truth = float_results(pack, probed), float_results(pack, looked_at)
        known = Measurements(measurements / "measurements.jsonl", fingerprint(floats, probe, truth))
        plan, best_db = search(floats, probe, truth, options.budget_db, options.objective, known)
        if plan is None:
            problem = (
                f"the worst photo keeps {best_db:.1f} dB at best, {options.budget_db - best_db:.1f} dB less than "
                f"the {options.budget_db:g} dB that were asked for; lower --budget-db"
            )
            return QuantizedPack([], None, problem)
    if plan is not None:
        _write_plan(measurements, floats, plan)
    judge = float_results(pack, held_back)
    with new_pack(folder) as place:
        made = _made(floats, plan, options, judge, place)
        if made.problem:
            shutil.rmtree(place)
    return made


def _made(
    floats: FloatPack, plan: PrecisionPlan | None, options: QuantizeOptions, judge: FloatResults, folder: Path
) -> QuantizedPack:
    """Write the pack into the new folder and measure it on the photos held back."""
    label, base = options.precision or _LABEL, target_of(BASE_TARGET)
    precisions = uniform_precisions(floats.layers, label) if plan is None else dict(plan.levels)
    folder.mkdir()
    manifest = write_onnx_pack(floats, precisions, folder, label)
    rows = [measure_pack("fp32", floats.folder, judge, base), measure_pack(label, folder, judge, base)]
    shipped = [rows[1]]
    for target in targets_of(options.targets):
        if target.name == BASE_TARGET:
            continue
        offers = target.offers(label, precisions) if target.offers else {label: Offer(precisions, target.emit)}
        found = _measured(floats, target, offers, judge) if len(offers) > 1 else {}
        measured = {name: row for name, row in found.items() if name in offers}
        best = _fastest(target.name, measured, options.budget_db) if measured else next(iter(offers))
        written = offers[best].emit(floats, offers[best].precisions, folder, best)
        manifest = assembled(floats.folder, folder, filed(manifest, target.name, written))
        found = found or {best: measure_pack(best, folder, judge, target)}
        rows += found.values()
        shipped.append(found[best])
    if options.budget_db < QUANTIZED_DB:
        reason = f"made under a budget of {options.budget_db:g} dB for the worst photo"
        limit = LimitOverride(reason, psnr_db=options.budget_db)
        manifest = replace(manifest, limits={**manifest.limits, "coded": limit})
    settle(folder, manifest, {"plan": plan.hash} if plan else {})
    for precision in WEIGHT_PRECISIONS[1:] if options.compare else ():
        with tempfile.TemporaryDirectory() as temporary:
            write_onnx_pack(floats, uniform_precisions(floats.layers, precision), Path(temporary), precision)
            rows.append(measure_pack(f"all {precision}", Path(temporary), judge, base))
    return QuantizedPack(rows, plan, _problem(options, shipped))


def _measured(
    pack: FloatPack, target: Target, offers: Mapping[str, Offer], judge: FloatResults
) -> dict[str, PackQuality]:
    """The float baselines of a target and its offers, each measured in a folder of its own."""
    rows: dict[str, PackQuality] = {}
    floats = Offer({layer.name: "fp32" for layer in pack.layers}, target.emit)
    for name, offer in {**dict.fromkeys(target.baselines, floats), **offers}.items():
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            written = offer.emit(pack, offer.precisions, folder, name)
            assembled(pack.folder, folder, filed(bare(pack.manifest), target.name, written))
            try:
                rows[name] = measure_pack(name, folder, judge, target)
            except UsageError as error:  # a processor without bf16
                print(f"pocketprior: {name} was not measured: {error}", file=sys.stderr)
    return rows


def _fastest(target: str, rows: Mapping[str, PackQuality], budget_db: float) -> str:
    fitting = {name: row for name, row in rows.items() if row.worst_db >= budget_db}
    best = min(fitting or rows, key=lambda name: rows[name].seconds or 0.0)
    how = " of those that keep the budget" if fitting else "; none keeps the budget"
    print(f"pocketprior: {target}: {best} is the fastest here{how}", file=sys.stderr)
    return best


def _problem(options: QuantizeOptions, shipped: Sequence[PackQuality]) -> str:
    """What the pack misses in one of its runtimes, and by how much; "" for nothing."""
    for row in shipped:
        if row.worst_db < options.budget_db:
            return (
                f"the worst photo that the search did not see keeps {row.worst_db:.2f} dB in {row.runtime}, "
                f"{options.budget_db - row.worst_db:.2f} dB less than asked for; give more --photos, or lower "
                "--budget-db"
            )
        if options.max_bytes is not None and row.bytes > options.max_bytes:
            return (
                f"at {options.budget_db:g} dB the graphs for {row.runtime} have {row.bytes / 1e6:.3f} MB, "
                f"{(row.bytes - options.max_bytes) / 1e6:.3f} MB more than --max-size allows; allow more, or lower "
                "--budget-db"
            )
    return ""


def _write_plan(folder: Path, pack: FloatPack, plan: PrecisionPlan) -> None:
    (folder / "plan.json").write_text(plan.text(), encoding="utf-8")
    for target in targets_of(TARGETS):
        if target.plan:
            toolchain, form = target.plan(pack, plan.levels)
            text = json.dumps({"plan": plan.hash, toolchain: form}, indent=1, sort_keys=True)
            (folder / f"{toolchain}.json").write_text(text + "\n", encoding="utf-8")


def _groups(data: Path, task: str, options: QuantizeOptions) -> list[list[DamagedPhoto]]:
    """Photos to calibrate on, to search on, to judge a plan by, dealt in turn; small crops of some of the search."""
    paths = released_photos(data, split="val")
    if len(paths) < LEAST_PHOTOS:
        raise UsageError(
            f"'{data}' has {len(paths)} photos to quantize with; expected at least {LEAST_PHOTOS}, one each for "
            "calibration, search and proof"
        )
    groups = [paths[first::3][: options.photos] for first in range(3)]
    photos, side = options.probe
    probed = damaged_photos(groups[1][:photos], task, side)
    return [*(damaged_photos(group, task, options.side) for group in groups), probed]
