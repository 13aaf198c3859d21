"""The search for a plan: every layer at every level measured once on the image, then solved, made and measured."""

from __future__ import annotations

import hashlib
import math
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import onnxruntime
from tqdm import tqdm

from ...core.errors import UnknownNameError
from ...core.restore.restorer import graph_names
from .files import write_onnx
from .layers import Layer
from .levels import layer_bytes, offered
from .memory import Memory
from .plan import FORMAT, Plan
from .samples import digest, forms_of
from .solve import Choice, Choices, decibels, least_error, mean_square, predicted, solve
from .variant import FloatPack, Reference, errors

__all__ = ["OBJECTIVES", "Found", "NoPlan", "fingerprint", "search", "sensitivity", "together"]

OBJECTIVES = ("size", "speed")
ALLOWED = {"size": ("fp16", "w8", "w4"), "speed": ("fp32", "int8")}
MARGIN_DB = 0.5  # kept on the photos of the search, for those that it does not see
ROUNDS = 8  # of solving with another limit, where layers together did not do as their sum


class Found(NamedTuple):
    """A plan, and the PSNR to the float pack of the worst photo of the search, in dB."""

    plan: Plan
    worst_db: float


class NoPlan(NamedTuple):
    """Nothing met the budget; the best that the worst photo had, or could be expected to have, in dB."""

    best_db: float


def fingerprint(pack: FloatPack, *looked_at: Reference) -> str:
    """sha256 (hex) of everything that a measurement depends on."""
    files = {name: spec.files["onnx"]["fp32"].sha256 for name, spec in pack.manifest.graphs.items()}
    about = [str(FORMAT), onnxruntime.__version__, *sorted(f"{n} {s}" for n, s in files.items())]
    about += [digest(reference.samples) for reference in looked_at] + [repr(sorted(pack.values.items()))]
    return hashlib.sha256("\n".join(about).encode()).hexdigest()


def search(
    pack: FloatPack, probe: Reference, truth: Reference, budget_db: float, objective: str, memory: Memory
) -> Found | NoPlan:
    """A plan under which every sample of `truth` keeps `budget_db` and MARGIN_DB, as cheap as it can be.

    probe: samples on which layers are measured one at a time; a few small ones do, since the plan is measured on
    `truth`. objective: "size", or "speed" for as much integer arithmetic as can be. Raises UnknownNameError for
    another.
    """
    if objective not in OBJECTIVES:
        raise UnknownNameError("objective", objective, OBJECTIVES)
    choices = sensitivity(pack, probe, objective, memory)
    wanted = mean_square(budget_db + MARGIN_DB)
    kept: tuple[float, dict[str, str], float] | None = None  # limit, levels and error of the best plan
    limit, failed, best = wanted, math.inf, -math.inf
    for _ in range(ROUNDS):
        levels = solve(choices, limit)
        if levels is None or (kept and levels == kept[1]):
            break
        worst = max(together(pack, levels, truth, memory))
        best = max(best, decibels(worst))
        if worst <= wanted:
            kept = limit, levels, worst
        else:
            failed = limit
        limit = _next_limit(limit, wanted / worst, kept[0] if kept else None, failed)
    if kept is None:
        return NoPlan(best if best > -math.inf else decibels(least_error(choices, math.inf)))
    expected = max(predicted(choices, kept[1]))
    looked_at = digest([*probe.samples, *truth.samples])
    return Found(_plan(pack, looked_at, kept[1], budget_db, objective, expected), decibels(kept[2]))


def _next_limit(limit: float, room: float, kept: float | None, failed: float) -> float:
    """Tighter until a plan keeps the budget, then between the loosest limit that did and the tightest that did not.

    room: the error that is allowed over the one that the plan of `limit` has.
    """
    if kept is None:
        return limit * min(0.9, room)
    if failed < math.inf:
        return math.sqrt(kept * failed)
    return limit * max(1.1, room)


def sensitivity(pack: FloatPack, truth: Reference, objective: str, memory: Memory) -> Choices:
    """What each layer costs at each level, alone: bytes or float operations, and the error of every sample."""
    choices: dict[str, dict[str, Choice]] = {}
    for layer in tqdm(pack.layers, desc="layers, one at a time", unit="layer", disable=None):
        allowed = [level for level in offered(layer) if level in ALLOWED[objective]]
        choices[layer.name] = {
            level: Choice(_cost(pack, layer, level, objective), _alone(pack, layer, level, truth, memory))
            for level in allowed
        }
    return choices


def together(pack: FloatPack, levels: Mapping[str, str], truth: Reference, memory: Memory) -> list[float]:
    """The error of every sample under a whole plan, in the worse of the forms that the pack has."""
    name = hashlib.sha256(repr(sorted(levels.items())).encode()).hexdigest()
    forms = forms_of(pack.manifest)

    def measure() -> list[float]:
        with tempfile.TemporaryDirectory() as folder:
            write_onnx(pack, levels, Path(folder), "plan")
            found = [errors(Path(folder), truth, form=form) for form in forms]
            return [max(each) for each in zip(*found, strict=True)]

    return memory(f"plan {name}", measure)


def _alone(pack: FloatPack, layer: Layer, level: str, truth: Reference, memory: Memory) -> list[float]:
    if level == "fp32":
        return [0.0] * len(truth.samples)

    def measure() -> list[float]:
        # The form in which the pack is run, if it has the layer: both forms restore the same.
        form = next(f for f in forms_of(pack.manifest) if set(layer.graphs) & set(graph_names(pack.manifest, f)))
        graphs = [name for name in layer.graphs if name in graph_names(pack.manifest, form)]
        levels = {other.name: level if other is layer else "fp32" for other in pack.layers}
        with tempfile.TemporaryDirectory() as folder:
            write_onnx(pack, levels, Path(folder), "layer", graphs)
            return errors(Path(folder), truth, form=form)

    return memory(f"{layer.name} {level}", measure)


def _cost(pack: FloatPack, layer: Layer, level: str, objective: str) -> float:
    if objective == "size":
        return float(layer_bytes(layer, level) * len(layer.graphs))
    return 0.0 if level == "int8" else float(pack.operations[layer.name])


def _plan(
    pack: FloatPack, looked_at: str, levels: Mapping[str, str], budget_db: float, objective: str, expected: float
) -> Plan:
    return Plan(
        format=FORMAT,
        made_for=fingerprint(pack),
        samples=looked_at,
        objective=objective,
        budget_db=float(budget_db),
        expected_db=round(decibels(expected), 3),
        levels=dict(levels),
        weights={layer.name: layer.digest for layer in pack.layers},
    )
