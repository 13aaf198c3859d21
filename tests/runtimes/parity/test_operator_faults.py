"""Operators that do nearly what they should, in a graph with normalisations and resizing."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from support.exported_packs import Known, exported
from support.planted_faults import Edit, attribute_of_all, edited, other_operator
from support.references import accused
from support.small_models import source_of


@pytest.fixture(scope="module")
def gen2res(tmp_path_factory: pytest.TempPathFactory) -> Known:
    folder = tmp_path_factory.mktemp("gen2res")
    return exported(folder, source_of("gen2res", folder), ((50, 90), (33, 42)))


def test_nothing_is_accused_before(gen2res: Known) -> None:
    report = gen2res.run()
    assert report.ok, accused(report)


@pytest.mark.parametrize(
    "plant",
    [
        partial(attribute_of_all, "InstanceNormalization", "epsilon", 1e-4),
        partial(attribute_of_all, "Resize", "mode", "linear"),
        partial(other_operator, "Sigmoid", "HardSigmoid"),
    ],
    ids=["wrong epsilon", "wrong resize mode", "hard sigmoid"],
)
def test_a_changed_operator(plant: Edit, gen2res: Known, tmp_path: Path) -> None:
    pack = gen2res.copy(tmp_path)
    edited(pack, "denoise", plant)
    assert accused(gen2res.run(pack)).startswith("conversion: denoise, call 0, eps")
