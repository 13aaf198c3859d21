"""Fifty runs of packs that are as they should be, of varied photos, seeds, sizes and settings: nothing is accused."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from pocketprior.runtimes.parity.comparison import CompareOptions, compare
from support import packs, system_packs
from support.references import accused, known_pack, record_pack

RUNS = 50
SYSTEMS = {
    "dtpm": packs.DTPM,
    "adjustable": packs.ADJUSTABLE,
    "diffir": system_packs.DIFFIR,
    "gen2res": system_packs.GEN2RES,
    "ancestral": system_packs.ANCESTRAL,
}
STRENGTHS = (0.0, 0.25, 0.5, 1.0)
AMOUNTS = (0.3, 0.8, 1.0)
MORE = (1.4, 2.0)  # of what takes them


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("clean")
    for name, tiny in SYSTEMS.items():
        known_pack(root / name, tiny)
    return root


@pytest.mark.parametrize("number", range(RUNS))
def test_nothing_is_accused(number: int, folder: Path, tmp_path: Path) -> None:
    draw = random.Random(number)
    system = [*SYSTEMS][number % len(SYSTEMS)]
    sizes = (draw.randint(1, 70), draw.randint(8, 150))
    amounts = (*AMOUNTS, *MORE) if system == "adjustable" else AMOUNTS
    shots = [
        (size, draw.randrange(2**64), draw.choice(STRENGTHS[1:]), draw.choice(amounts)) for size in (sizes, sizes[::-1])
    ]
    shots.append(((17, 23), number, draw.choice(STRENGTHS), draw.choice(amounts)))
    record_pack(folder / system, tmp_path / "known.npz", shots)
    runtime = "openvino" if number % 10 == 9 else "onnxruntime"
    report = compare(folder / system, CompareOptions(runtime, against=tmp_path / "known.npz", threads=1))
    assert report.ok, accused(report)
    assert report.compared > 10


@pytest.mark.parametrize("system", SYSTEMS)
def test_nothing_is_accused_without_a_recording(system: str, folder: Path) -> None:
    report = compare(folder / system, CompareOptions(threads=1))
    assert report.ok, accused(report)
    assert report.reference.startswith("the golden photos in")
