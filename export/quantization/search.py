"""The search for a plan: every layer at every precision measured once on the image, then solved, made and measured."""

from __future__ import annotations

import hashlib
import json
import math
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import onnxruntime
from tqdm import tqdm

from ...core.errors import UnknownNameError, UsageError
from ...core.restore.restorer import graph_names
from ..limits import MARGIN_DB, SEARCH_ROUNDS
from ..targets.calibration import FloatPack, forms_of, photos_digest
from ..targets.onnx import onnx_files
from ..targets.weights import WeightLayer, layer_bytes, offered
from ..writer.entries import assembled, bare, filed
from .plan import PLAN_FORMAT, PrecisionPlan
from .report import FloatResults, errors
from .solve import Choice, Choices, decibels, least_error, mean_square, predicted, solve

if TYPE_CHECKING:
    from ...core.pack.manifest import Manifest

__all__ = [
    "OBJECTIVES",
    "FoundPlan",
    "Measurements",
    "NoPlan",
    "fingerprint",
    "search",
    "sensitivity",
    "together",
    "write_onnx_pack",
]

OBJECTIVES = ("size", "speed")
_ALLOWED = {"size": ("fp16", "w8", "w4"), "speed": ("fp32", "int8")}
_DIGITS = 6  # of a measured number: one that was read back equals one that was just measured


class FoundPlan(NamedTuple):
    """A plan that keeps the budget on the photos of the search."""

    plan: PrecisionPlan
    worst_db: float  # PSNR to the float pack of the worst photo of the search


class NoPlan(NamedTuple):
    """Nothing keeps the budget."""

    best_db: float  # PSNR of the worst photo in the best case, measured or predicted


class Measurements:
    """Lists of numbers by name in a text file: an interrupted search continues where it stopped.

    One JSON line each, after a first line that says what was measured. Raises UsageError for a file of another search.
    """

    def __init__(self, path: Path, about: str) -> None:
        self.path = path
        self.known: dict[str, list[float]] = {}
        lines = _whole_lines(path)
        if lines and json.loads(lines[0]) != {"about": about}:
            raise UsageError(
                f"'{path}' has measurements of another pack, other photos or other versions; remove it to start anew"
            )
        for line in lines[1:]:
            self.known |= json.loads(line)
        # A line that a kill cut off is written again.
        path.write_text("".join(f"{line}\n" for line in lines or [json.dumps({"about": about})]), encoding="utf-8")

    def __call__(self, name: str, measure: Callable[[], Sequence[float]]) -> list[float]:
        """The numbers of that name, which are measured and kept unless they are known."""
        if name not in self.known:
            self.known[name] = [float(f"{number:.{_DIGITS}g}") for number in measure()]
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({name: self.known[name]}) + "\n")
                file.flush()
                os.fsync(file.fileno())
        return self.known[name]


def _whole_lines(path: Path) -> list[str]:
    if not path.exists():
        return []
    *whole, _ = path.read_text(encoding="utf-8").split("\n")
    return whole


def fingerprint(pack: FloatPack, *looked_at: FloatResults) -> str:
    """sha256 (hex) of everything that a measurement depends on."""
    files = {name: spec.files["onnx"]["fp32"].sha256 for name, spec in pack.manifest.graphs.items()}
    about = [str(PLAN_FORMAT), onnxruntime.__version__, *sorted(f"{n} {s}" for n, s in files.items())]
    about += [photos_digest(results.photos) for results in looked_at] + [repr(sorted(pack.values.items()))]
    return hashlib.sha256("\n".join(about).encode()).hexdigest()


def search(
    pack: FloatPack,
    probe: FloatResults,
    truth: FloatResults,
    budget_db: float,
    objective: str,
    measurements: Measurements,
) -> FoundPlan | NoPlan:
    """The cheapest plan found under which every photo of `truth` keeps `budget_db` and MARGIN_DB.

    Args:
        pack: The float pack.
        probe: Photos on which layers are measured one at a time; a few small ones do, as the plan is measured on
            `truth`.
        truth: The photos of the search.
        budget_db: Least PSNR to the float pack, dB.
        objective: "size", or "speed" for as much integer arithmetic as possible.
        measurements: What is known already; it is extended.

    Raises:
        UnknownNameError: The objective does not exist.
    """
    if objective not in OBJECTIVES:
        raise UnknownNameError("objective", objective, OBJECTIVES)
    choices = sensitivity(pack, probe, objective, measurements)
    wanted = mean_square(budget_db + MARGIN_DB)
    kept: tuple[float, dict[str, str], float] | None = None  # limit, precisions and error of the best plan
    limit, failed, best = wanted, math.inf, -math.inf
    for _ in range(SEARCH_ROUNDS):
        precisions = solve(choices, limit)
        if precisions is None or (kept and precisions == kept[1]):
            break
        worst = max(together(pack, precisions, truth, measurements))
        best = max(best, decibels(worst))
        if worst <= wanted:
            kept = limit, precisions, worst
        else:
            failed = limit
        limit = _next_limit(limit, wanted / worst, kept[0] if kept else None, failed)
    if kept is None:
        return NoPlan(best if best > -math.inf else decibels(least_error(choices, math.inf)))
    expected = max(predicted(choices, kept[1]))
    looked_at = photos_digest([*probe.photos, *truth.photos])
    return FoundPlan(_plan(pack, looked_at, kept[1], budget_db, objective, expected), decibels(kept[2]))


def _next_limit(limit: float, room: float, kept: float | None, failed: float) -> float:
    """Tighter until a plan keeps the budget, then between the loosest limit that did and the tightest that did not.

    `room` is the allowed error over that of the plan of `limit`.
    """
    if kept is None:
        return limit * min(0.9, room)
    if failed < math.inf:
        return math.sqrt(kept * failed)
    return limit * max(1.1, room)


def sensitivity(pack: FloatPack, truth: FloatResults, objective: str, measurements: Measurements) -> Choices:
    """What each layer alone costs at each precision: bytes or float operations, and the error of every photo."""
    choices: dict[str, dict[str, Choice]] = {}
    for layer in tqdm(pack.layers, desc="layers, one at a time", unit="layer", disable=None):
        choices[layer.name] = {
            precision: Choice(
                _cost(pack, layer, precision, objective), _single(pack, layer, precision, truth, measurements)
            )
            for precision in offered(layer)
            if precision in _ALLOWED[objective]
        }
    return choices


def together(
    pack: FloatPack, precisions: Mapping[str, str], truth: FloatResults, measurements: Measurements
) -> list[float]:
    """The error of every photo under a whole plan, in the worse of the forms that the pack has."""
    name = hashlib.sha256(repr(sorted(precisions.items())).encode()).hexdigest()

    def measure() -> list[float]:
        with tempfile.TemporaryDirectory() as folder:
            write_onnx_pack(pack, precisions, Path(folder), "plan")
            found = [errors(Path(folder), truth, form=form) for form in forms_of(pack.manifest)]
            return [max(each) for each in zip(*found, strict=True)]

    return measurements(f"plan {name}", measure)


def write_onnx_pack(
    pack: FloatPack, precisions: Mapping[str, str], folder: Path, label: str, graphs: Sequence[str] | None = None
) -> Manifest:
    """Write a pack of ONNX graphs into the folder, which must exist; its manifest. As `onnx_files`."""
    written = onnx_files(pack, precisions, folder, label, graphs)
    return assembled(pack.folder, folder, filed(bare(pack.manifest), "onnx", written))


def _single(
    pack: FloatPack, layer: WeightLayer, precision: str, truth: FloatResults, measurements: Measurements
) -> list[float]:
    if precision == "fp32":
        return [0.0] * len(truth.photos)

    def measure() -> list[float]:
        # The form in which the pack is run, if it has the layer: both forms restore the same.
        form = next(f for f in forms_of(pack.manifest) if set(layer.graphs) & set(graph_names(pack.manifest, f)))
        graphs = [name for name in layer.graphs if name in graph_names(pack.manifest, form)]
        precisions = {other.name: precision if other is layer else "fp32" for other in pack.layers}
        with tempfile.TemporaryDirectory() as folder:
            write_onnx_pack(pack, precisions, Path(folder), "layer", graphs)
            return errors(Path(folder), truth, form=form)

    return measurements(f"{layer.name} {precision}", measure)


def _cost(pack: FloatPack, layer: WeightLayer, precision: str, objective: str) -> float:
    if objective == "size":
        return float(layer_bytes(layer, precision) * len(layer.graphs))
    return 0.0 if precision == "int8" else float(pack.operations[layer.name])


def _plan(
    pack: FloatPack, looked_at: str, precisions: Mapping[str, str], budget_db: float, objective: str, expected: float
) -> PrecisionPlan:
    return PrecisionPlan(
        format=PLAN_FORMAT,
        made_for=fingerprint(pack),
        samples=looked_at,
        objective=objective,
        budget_db=float(budget_db),
        expected_db=round(decibels(expected), 3),
        levels=dict(precisions),
        weights={layer.name: layer.digest for layer in pack.layers},
    )
