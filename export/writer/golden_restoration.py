"""Golden restorations: what the checkpoint makes of a photo, and how far the packed graphs are from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from ...core.arrays import Image
from ...core.errors import GraphError
from ...core.models.deploy.rewrite import eager
from ...core.pack.manifest import Golden, Manifest, PackedFile
from ...core.photo.io import read
from ...core.restore.restorer import GoldenSettings, Restorer
from ...core.restore.selftest import verify, write_golden
from ..limits import COARSE_SLACK, FLOAT_SLACK, ROUNDING_SLACK
from ..systems.source import Damage, ModelGraph
from ..targets import BASE_TARGET, target_of

__all__ = ["add_golden", "golden_photo", "settle"]

_SIDE = 96  # pixels; the packed restoration is a crop of this size
_SEED = 2024
_AMOUNTS = {"photo": 1.0, "less": 0.5, "more": 1.5}  # where graphs take one; a quarter of the crop for the others


def golden_photo(path: Path, damage: Damage) -> Image:
    """The centre of a clean photo, damaged with a fixed seed: (96, 96, 3) uint8, or less of a smaller photo."""
    pixels = read(path).pixels
    y, x = (max(0, (side - _SIDE) // 2) for side in pixels.shape[:2])
    square = pixels[y : y + _SIDE, x : x + _SIDE].astype(np.float32) / np.iinfo(pixels.dtype).max
    damaged = damage(square.astype(np.float32), np.random.default_rng(_SEED))
    return np.round(damaged * 255).astype(np.uint8)


def add_golden(folder: Path, manifest: Manifest, graphs: Mapping[str, ModelGraph], photo: Image) -> Manifest:
    """Record what the checkpoint makes of `photo` and how far the float32 ONNX graphs are from it; the manifest.

    Raises GraphError where they differ by more than rounding.
    """
    reference = Restorer(manifest, {n: eager(g.module, list(g.inputs), *g.outputs) for n, g in graphs.items()})
    files: dict[str, PackedFile] = {}
    for name, amount in (_AMOUNTS if manifest.takes_amount else {"photo": 1.0}).items():
        part = photo if amount == 1 else photo[: _SIDE // 2, : _SIDE // 2]
        settings: GoldenSettings = {"seed": _SEED, "strength": 1.0, "amount": amount}
        restored = reference(part, **settings)
        files[name] = write_golden(folder, f"golden/{name}.npz", photo=part, restored=restored, **settings)
    golden = {name: Golden(file, 255, "not measured yet") for name, file in files.items()}
    replace(manifest, golden=golden).save(folder)
    found = max(check.difference for check in verify(folder).goldens)
    _check_close(BASE_TARGET, {"fp32"}, found)
    reason = "float32 graphs differ from PyTorch by rounding only"
    golden = {name: Golden(file, max(1, found), reason) for name, file in files.items()}
    replace(manifest, golden=golden, parity=_parity({BASE_TARGET: found})).save(folder)
    return Manifest.load(folder)


def settle(folder: Path, manifest: Manifest, made_by: Mapping[str, str]) -> Manifest:
    """Measure how far the golden restorations of every target are from the checkpoint's, and set their tolerance.

    The manifest is saved with the tolerances, and with the facts `made_by` in the field of that name. Raises GraphError
    for graphs that differ by more than their precision explains.
    """
    loose = {name: replace(golden, tolerance=255) for name, golden in manifest.golden.items()}
    facts = {**manifest.made_by, **made_by}
    replace(manifest, golden=loose, made_by=facts).save(folder)
    checks = {target: verify(folder, target_of(target).runtime).goldens for target in manifest.precision}
    largest = {target: max(check.difference for check in own) for target, own in checks.items()}
    for target, run in manifest.precision.items():
        _check_close(target, set(run.values()), largest[target])
    golden: dict[str, Golden] = {}
    for name, before in loose.items():
        found = max(check.difference for own in checks.values() for check in own if check.name == name)
        reason = (
            f"the graphs were {found} levels from PyTorch float32 when they were made; processors round differently"
        )
        golden[name] = replace(before, tolerance=found + ROUNDING_SLACK, reason=reason)
    parity = {**manifest.parity, **_parity(largest)}
    replace(manifest, golden=golden, made_by=facts, parity=parity).save(folder)
    return Manifest.load(folder)


def _parity(differences: Mapping[str, int]) -> dict[str, dict[str, float]]:
    """Grey levels by target, as the manifest has them."""
    return {target: {"golden_max_level_error": float(found)} for target, found in differences.items()}


def _check_close(target: str, labels: set[str], found: int) -> None:
    exact = labels <= {"fp32"}
    most = FLOAT_SLACK if exact else COARSE_SLACK
    if found > most:
        advice = "the model cannot be packed: report it, with its configuration" if exact else "choose finer precisions"
        raise GraphError(
            f"the {target} graphs ({', '.join(sorted(labels))}) are {found} grey levels from PyTorch, at most {most} "
            f"are allowed; {advice}"
        )
