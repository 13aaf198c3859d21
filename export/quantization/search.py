"""The search for a plan: every layer at every precision measured once on the image, then solved, made and measured.

The cheapest choice of precisions under bounds on the error of every photo is a multiple-choice knapsack:

    minimise    sum_l cost(l, p_l)
    such that   sum_l error_i(l, p_l) <= limit      for every photo i

with one precision p_l per layer. Errors are mean squared differences on the image, measured one layer at a time; that
they add up is the model (rounding errors are nearly uncorrelated), and its result is measured afterwards. It is solved
as an integer program by branch and bound: the cost found is within a relative gap of 1e-3 of the least there is.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnxruntime
from tqdm import tqdm

from ...core.errors import UsageError
from ...core.pack.manifest import Manifest
from ...core.restore.restorer import graph_names
from ..limits import MARGIN_DB, SEARCH_ROUNDS
from ..targets import BASE_TARGET
from ..targets.calibration import FloatPack, forms_of, photos_digest
from ..targets.onnx import onnx_files
from ..targets.weights import WeightLayer, layer_bytes, offered
from ..writer.pack import assembled, bare, filed
from .pack_quality import FloatResults, decibels, errors, mean_square
from .plan import PLAN_FORMAT, PrecisionPlan

__all__ = [
    "OBJECTIVES",
    "Choice",
    "Measurements",
    "fingerprint",
    "least_error",
    "predicted",
    "search",
    "sensitivity",
    "solve",
    "together",
    "write_onnx_pack",
]

_ALLOWED = {"size": ("fp16", "w8", "w4"), "speed": ("fp32", "int8")}
OBJECTIVES = tuple(_ALLOWED)
_DIGITS = 6  # of a measured number: one that was read back equals one that was just measured
_GAP = 1e-3  # relative, to the least cost
_BISECTIONS = 24


class Choice(NamedTuple):
    """A layer at a precision: its cost, and its error on every photo."""

    cost: float
    errors: Sequence[float]


Choices = Mapping[str, Mapping[str, Choice]]  # layer -> precision -> its cost and errors


class Measurements:
    """Lists of numbers by name in a text file: an interrupted search continues where it stopped.

    One JSON line each, after a first line that says what was measured. Raises UsageError for a file of another search.
    """

    def __init__(self, path: Path, about: str) -> None:
        self.path = path
        self.known: dict[str, list[float]] = {}
        lines = path.read_text(encoding="utf-8").split("\n")[:-1] if path.exists() else []
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


def fingerprint(pack: FloatPack, *looked_at: FloatResults) -> str:
    """sha256 (hex) of everything that a measurement depends on."""
    files = {name: spec.files[BASE_TARGET]["fp32"].sha256 for name, spec in pack.manifest.graphs.items()}
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
) -> tuple[PrecisionPlan | None, float]:
    """The cheapest plan found under which every photo of `truth` keeps `budget_db` and MARGIN_DB to the float pack.

    Layers are measured one at a time on `probe`; a few small photos do, as the plan is measured on `truth`. The
    objective is "size", or "speed" for as much integer arithmetic as possible; `measurements` are extended. Returns the
    plan, None if nothing keeps the budget, and the PSNR of the worst photo; without a plan at best, maybe predicted.
    """
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
        return None, best if best > -math.inf else decibels(least_error(choices))
    plan = PrecisionPlan(
        format=PLAN_FORMAT,
        made_for=fingerprint(pack),
        samples=photos_digest([*probe.photos, *truth.photos]),
        objective=objective,
        budget_db=float(budget_db),
        expected_db=round(decibels(max(predicted(choices, kept[1]))), 3),
        levels=kept[1],
        weights={layer.name: layer.digest for layer in pack.layers},
    )
    return plan, decibels(kept[2])


def _next_limit(limit: float, room: float, kept: float | None, failed: float) -> float:
    """Tighter until a plan keeps the budget, then between the loosest limit that did and the tightest that did not."""
    if kept is None:
        return limit * min(0.9, room)
    if failed < math.inf:
        return math.sqrt(kept * failed)
    return limit * max(1.1, room)


def predicted(choices: Choices, precisions: Mapping[str, str]) -> list[float]:
    """The error of every photo that the model expects of a plan."""
    chosen = [choices[layer][precision].errors for layer, precision in precisions.items()]
    return [math.fsum(errors) for errors in zip(*chosen, strict=True)]


def solve(choices: Choices, limit: float) -> dict[str, str] | None:
    """The precision of each layer; None if no plan keeps every photo within `limit`."""
    # HiGHS comes with scipy, which takes a second to load.
    from scipy.optimize import Bounds, LinearConstraint, milp

    # A choice that breaks the limit by itself is in no plan; without these the numbers of the program stay small.
    pairs = [
        (layer, precision) for layer in choices for precision, c in choices[layer].items() if max(c.errors) <= limit
    ]
    if {layer for layer, _ in pairs} != set(choices):
        return None
    costs = np.array([choices[layer][precision].cost for layer, precision in pairs])
    one_each = np.array([[float(layer == of) for of, _ in pairs] for layer in choices])
    errors = np.array([choices[layer][precision].errors for layer, precision in pairs]).T / limit
    found = milp(
        costs / max(costs.max(), 1.0),
        constraints=[LinearConstraint(one_each, 1, 1), LinearConstraint(errors, -np.inf, 1)],
        integrality=np.ones(len(pairs)),
        bounds=Bounds(0, 1),
        options={"mip_rel_gap": _GAP},
    )
    if found.x is None:
        return None
    return {layer: precision for (layer, precision), taken in zip(pairs, found.x, strict=True) if taken > 0.5}


def least_error(choices: Choices) -> float:
    """The smallest limit on the error at which there is a plan."""
    cheapest = {layer: min(own, key=lambda precision: own[precision].cost) for layer, own in choices.items()}
    low, high = -150.0, math.log10(max(*predicted(choices, cheapest), 1e-15)) * 10  # decibels below 1
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if solve(choices, mean_square(-middle)) is None else (low, middle)
    return mean_square(-high)


def sensitivity(pack: FloatPack, truth: FloatResults, objective: str, measurements: Measurements) -> Choices:
    """What each layer alone costs at each precision: bytes or float operations, and the error of every photo."""
    choices: dict[str, dict[str, Choice]] = {}
    for layer in tqdm(pack.layers, desc="layers, one at a time", unit="layer", disable=None):
        choices[layer.name] = {}
        for precision in (precision for precision in offered(layer) if precision in _ALLOWED[objective]):
            cost = _cost(pack, layer, precision, objective)
            choices[layer.name][precision] = Choice(cost, _single(pack, layer, precision, truth, measurements))
    return choices


def _cost(pack: FloatPack, layer: WeightLayer, precision: str, objective: str) -> float:
    if objective == "size":
        return float(layer_bytes(layer, precision) * len(layer.graphs))
    return 0.0 if precision == "int8" else float(pack.operations[layer.name])


def _single(
    pack: FloatPack, layer: WeightLayer, precision: str, truth: FloatResults, measurements: Measurements
) -> list[float]:
    if precision == "fp32":
        return [0.0] * len(truth.photos)
    # The form in which the pack is run, if it has the layer: both forms restore the same.
    form = next(f for f in forms_of(pack.manifest) if set(layer.graphs) & set(graph_names(pack.manifest, f)))
    graphs = [name for name in layer.graphs if name in graph_names(pack.manifest, form)]
    precisions = {other.name: precision if other is layer else "fp32" for other in pack.layers}
    return measurements(f"{layer.name} {precision}", lambda: _worst(pack, precisions, truth, [form], graphs))


def together(
    pack: FloatPack, precisions: Mapping[str, str], truth: FloatResults, measurements: Measurements
) -> list[float]:
    """The error of every photo under a whole plan, in the worse of the forms that the pack has."""
    name = hashlib.sha256(repr(sorted(precisions.items())).encode()).hexdigest()
    return measurements(f"plan {name}", lambda: _worst(pack, precisions, truth, forms_of(pack.manifest)))


def _worst(
    pack: FloatPack,
    precisions: Mapping[str, str],
    truth: FloatResults,
    forms: Sequence[str],
    graphs: Sequence[str] | None = None,
) -> list[float]:
    """The error of every photo, in the worst of some forms; `graphs` as in `onnx_files`."""
    with tempfile.TemporaryDirectory() as folder:
        write_onnx_pack(pack, precisions, Path(folder), "measured", graphs)
        found = [errors(Path(folder), truth, form) for form in forms]
    return [max(each) for each in zip(*found, strict=True)]


def write_onnx_pack(
    pack: FloatPack, precisions: Mapping[str, str], folder: Path, label: str, graphs: Sequence[str] | None = None
) -> Manifest:
    """Write a pack of ONNX graphs into the folder, which must exist; its manifest. As `onnx_files`."""
    written = onnx_files(pack, precisions, folder, label, graphs)
    return assembled(pack.folder, folder, filed(bare(pack.manifest), BASE_TARGET, written))
