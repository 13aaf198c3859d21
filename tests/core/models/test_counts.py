"""Sizes and costs of every configuration whose numbers are known from a paper, its code, or arithmetic on its design.

Published figures are rounded; the tolerance of 1 % is that of the specification.
"""

from __future__ import annotations

from importlib import import_module

import pytest

from pocketprior.core.errors import UnknownNameError
from pocketprior.core.models.counts import ModelCosts, count
from pocketprior.core.pack.systems import SYSTEMS

STAGE_TWO = ("cpen_s2", "denoiser", "dirformer")  # the parts of DiffIR that restore

# model: (parts that are added up, parameters or None, MACs at 256 x 256 or None)
PUBLISHED: dict[str, list[tuple[tuple[str, ...], float | None, float | None]]] = {
    "dtpm:paper": [
        (("denoiser",), 55.7e6, 47.0e9),
        (("adapters",), 3.2e6, None),
        (("denoiser", "adapters"), None, 50.6e9),
        (("predictor",), 17.1e6, 16.0e9),  # NAFNet of width 32, as published
    ],
    "dtpm:base": [
        (("denoiser",), 14.1e6, 11.9e9),
        (("denoiser", "adapters"), 14.1e6 + 0.8e6, 13.0e9),
    ],
    "diffir:deblur": [
        (("cpen_s1",), 1.073e6, None),
        (("cpen_s2",), 1.045e6, 3.74e9),
        (("denoiser",), 0.197e6, 0.0002e9),
        (("dirformer",), 25.669e6, 117.3e9),
        (STAGE_TWO, 26.91e6, 121.0e9),
    ],
    "diffir:sr": [(STAGE_TWO, 24.97e6, 722.5e9)],
    "gen2res:paper": [(("denoiser",), 131.7e6, 277.4e9)],
}


@pytest.fixture(scope="module")
def costs() -> dict[str, ModelCosts]:
    """Of every configuration there is."""
    sizes = {system: import_module(f"pocketprior.core.models.{system}").CONFIGS for system in SYSTEMS}
    names = [f"{system}:{size}" for system, configs in sizes.items() for size in configs]
    return {name: count(name) for name in names}


@pytest.mark.parametrize("name", PUBLISHED)
def test_costs_are_those_of_the_paper(name: str, costs: dict[str, ModelCosts]) -> None:
    for parts, parameters, macs in PUBLISHED[name]:
        if parameters is not None:
            assert sum(costs[name].parameters[p] for p in parts) == pytest.approx(parameters, rel=0.01), parts
        if macs is not None:
            # 0.0002 G is rounded to one digit.
            tolerance = 0.25 if macs < 1e6 else 0.01
            assert sum(costs[name].macs_256[p] for p in parts) == pytest.approx(macs, rel=tolerance), parts


def test_inpainting_has_as_many_parameters_as_its_paper_rounds_to(costs: dict[str, ModelCosts]) -> None:
    assert round(sum(costs["diffir:inpainting"].parameters[p] for p in STAGE_TWO) / 1e6) == 26


@pytest.mark.parametrize(("size", "budget"), [("tiny", 25), ("mobile", 70), ("large", 250)])
def test_sizes_stay_in_their_budgets(size: str, budget: int, costs: dict[str, ModelCosts]) -> None:
    """kMAC per pixel, all parts and one denoising step; the default's weights, twice in 16 bits, fit 8 MB."""
    assert sum(costs[f"dtpm:{size}"].macs_256.values()) <= budget * 1000 * 256**2
    assert 4 * sum(costs["dtpm:mobile"].parameters.values()) <= 8e6


def test_every_part_of_every_configuration_has_both_numbers(costs: dict[str, ModelCosts]) -> None:
    assert costs.keys() > PUBLISHED.keys()
    for parameters, macs in costs.values():
        assert parameters.keys() == macs.keys()
        assert min(*parameters.values(), *macs.values()) > 0


@pytest.mark.parametrize(
    ("name", "valid"), [("dtpm:huge", "dtpm:tiny, dtpm:mobile"), ("dtpm", "dtpm:mobile"), ("sd:xl", "dtpm:SIZE")]
)
def test_unknown_model_lists_the_valid_ones(name: str, valid: str) -> None:
    with pytest.raises(UnknownNameError, match=valid):
        count(name)
