"""Photos that a quantizer looks at: really damaged, each with the seed of its place in the list, and restored."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...core.arrays import Image
from ...core.degradations import TASKS, Window
from ...core.pack.manifest import Manifest
from ...core.photo.io import read
from ...core.restore.restorer import FORMS, Graph, Restorer

__all__ = ["Feed", "Sample", "calls", "digest", "forms_of", "samples"]

Feed = dict[str, NDArray[np.float32]]  # the inputs of one call of a graph

AMOUNTS = (1.0, 1.0, 1.0, 2.0)  # in turn, where the graphs take one: above 1 the arrays inside them have larger values
ANY_DAMAGE = "noise"  # stands for the task of a model that restores whatever it is given: noise, which all remove


@dataclass(frozen=True)
class Sample:
    """clean, damaged: (H, W, 3) uint16, so that 8 bits hide nothing; seed: of the damage and of the restoration."""

    name: str
    clean: Image
    damaged: Image
    seed: int


def samples(paths: Sequence[Path], task: str, side: int) -> list[Sample]:
    """The centre of each photo, at most `side` pixels wide and high, damaged by `task`, in the order of `paths`."""
    return [_sample(path, task, side, seed) for seed, path in enumerate(paths)]


def digest(chosen: Sequence[Sample]) -> str:
    """sha256 (hex) of what was looked at: pixels before and after the damage, and seeds."""
    together = hashlib.sha256()
    for sample in chosen:
        together.update(f"{sample.seed} {sample.clean.shape} ".encode())
        together.update(sample.clean.tobytes() + sample.damaged.tobytes())
    return together.hexdigest()


def forms_of(manifest: Manifest) -> list[str]:
    """The forms of the restoration that a pack has."""
    return [form for form, graph in zip(FORMS[1:], ("fused", "denoise"), strict=True) if graph in manifest.graphs]


def calls(manifest: Manifest, folder: Path, chosen: Sequence[Sample]) -> dict[str, list[Feed]]:
    """The inputs of every graph, by name, while the samples are restored: states of real sampling at every level."""
    feeds: dict[str, list[Feed]] = {name: [] for name in manifest.graphs}
    for form in forms_of(manifest):
        opened = Restorer.from_pack(folder, graphs=form, threads=1)
        kept = {name: _kept(graph, feeds[name]) for name, graph in opened.graphs.items()}
        restorer = Restorer(manifest, kept)
        for number, sample in enumerate(chosen):
            amount = AMOUNTS[number % len(AMOUNTS)] if manifest.takes_amount else 1.0
            restorer(sample.damaged, seed=sample.seed, amount=amount)
    return feeds


def _kept(graph: Graph, feeds: list[Feed]) -> Graph:
    def call(**inputs: np.ndarray) -> Mapping[str, np.ndarray]:
        feeds.append({name: array.copy() for name, array in inputs.items()})
        return graph(**inputs)

    return call  # type: ignore[return-value]


def _sample(path: Path, task: str, side: int, seed: int) -> Sample:
    pixels = read(path).pixels
    y, x = (max(0, (edge - side) // 2) for edge in pixels.shape[:2])
    height, width = (min(side, edge) for edge in pixels.shape[:2])
    square = Window(pixels, y, x, height, width)
    damaged = TASKS.get(task, TASKS[ANY_DAMAGE]).damage(square, np.random.default_rng(seed))
    clean, spoilt = (
        np.round(np.clip(picture, 0, 1) * 65535).astype(np.uint16) for picture in (square.pixels(), damaged)
    )
    return Sample(path.stem, clean, spoilt, seed)
