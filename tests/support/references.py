"""Recordings for tests: of small trained-like models in PyTorch, and of tiny packs without it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pocketprior.core.pack.manifest import Manifest
from pocketprior.core.restore.reference import (
    REFERENCE_FORMAT,
    ReferenceCall,
    ReferenceCase,
    ReferenceHeader,
    ReferenceWriter,
    facts_of,
    record_calls,
)
from pocketprior.core.restore.restorer import GoldenSettings, Restorer
from pocketprior.core.restore.tiles import smallest_tile
from pocketprior.runtimes.parity.findings import ParityReport
from pocketprior.runtimes.parity.images import forms_of
from support import packs

__all__ = ["CHECKPOINT", "accused", "deep", "known_pack", "record_pack"]

CHECKPOINT = "the checkpoint of a tiny pack"
Size = tuple[int, int]  # (height, width)
Shots = Sequence[
    tuple[Size, int, float] | tuple[Size, int, float, float]
]  # size, seed, strength, amount if it is not 1


def deep(height: int, width: int, seed: int) -> NDArray:  # type: ignore[type-arg]
    """A photo of 16 bits with highlights that reach white."""
    photo = packs.photo(height, width, np.uint16, seed=seed)
    photo[: height // 4] = 65535
    return photo


def known_pack(folder: Path, tiny: packs.Tiny = packs.DTPM) -> Manifest:
    """A tiny pack that says what it was made from."""
    manifest = packs.build(folder, tiny)
    manifest = replace(manifest, made_by={"checkpoint": CHECKPOINT})
    manifest.save(folder)
    return manifest


def record_pack(folder: Path, path: Path, shots: Shots) -> None:
    """What a tiny pack makes of photos in ONNX Runtime, as if PyTorch had made it."""
    manifest, writer = Manifest.load(folder), ReferenceWriter()
    restorers = {form: Restorer.from_pack(folder, graphs=form, threads=1) for form in forms_of(manifest)}
    cases = [_case(manifest, restorers, writer, *shot) for shot in shots]
    environment = {"device": "a tiny pack in ONNX Runtime"}
    writer.save(path, ReferenceHeader(REFERENCE_FORMAT, CHECKPOINT, facts_of(manifest), environment, tuple(cases)))


def _case(
    manifest: Manifest,
    restorers: dict[str, Restorer],
    writer: ReferenceWriter,
    size: Size,
    seed: int,
    strength: float,
    amount: float = 1.0,
) -> ReferenceCase:
    photo, tile = deep(*size, seed), _tile(manifest, size)
    calls, pictures = {}, {}
    settings = GoldenSettings(seed=seed, strength=strength, amount=amount)
    for form, restorer in restorers.items():
        picture, made = record_calls(restorer, photo, **settings, tile=tile)
        calls[form] = tuple(ReferenceCall(c.graph, writer.keys(c.inputs), writer.keys(c.outputs), {}, {}) for c in made)
        pictures[form] = writer.key(picture)
    key = writer.key(photo)
    return ReferenceCase(f"{size} {seed}", **settings, tile=tile, photo=key, calls=calls, pictures=pictures)


def _tile(manifest: Manifest, size: Size) -> int | None:
    if manifest.window(manifest.receptive_field) is not None:
        return None
    least = smallest_tile(manifest.radius(("fused",)), manifest.size.minimum)
    return max(least, 4 * (max(size) // 8))


def accused(report: ParityReport) -> str:
    """Stage, graph, place and problem that a report points at."""
    assert report.first is not None
    source, check = report.first
    return f"{source.name}: {check}: {check.problem}"
