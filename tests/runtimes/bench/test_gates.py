from __future__ import annotations

import pytest

from pocketprior.core.degradations.fixed import DAMAGES
from pocketprior.runtimes.bench.methods import DTPM, NLM, PREDICTOR
from pocketprior.runtimes.bench.quality import Measurement, gates

GOOD = {
    NLM: {"PSNR": 27.0, "HaarPSI": 0.7, "NIQE": 5.0, "SWD": 0.1},
    PREDICTOR: {"PSNR": 28.0, "HaarPSI": 0.8, "NIQE": 5.0, "SWD": 0.1},
    DTPM: {"PSNR": 27.0, "HaarPSI": 0.795, "NIQE": 4.9, "SWD": 0.09},
}


def measurements(**changes):
    """GOOD for every damage, with changes like dtpm_NIQE=5.0."""
    names = {"nlm": NLM, "predictor": PREDICTOR, "dtpm": DTPM}
    table = {method: dict(values) for method, values in GOOD.items()}
    for change, value in changes.items():
        method, metric = change.split("_")
        table[names[method]][metric] = value
    return [Measurement("p", damage.name, method, values) for damage in DAMAGES for method, values in table.items()]


def test_all_hold_at_their_limits():
    assert [gate.passed for gate in gates(measurements())] == [True] * 5


@pytest.mark.parametrize(
    ("change", "failing"),
    [
        ({"nlm_PSNR": 27.1}, 0),
        ({"dtpm_NIQE": 5.0}, 1),
        ({"dtpm_SWD": 0.1}, 2),
        ({"dtpm_PSNR": 26.9}, 3),
        ({"dtpm_HaarPSI": 0.78}, 4),
    ],
)
def test_each_fails_alone(change, failing):
    results = gates(measurements(**change))
    assert [i for i, gate in enumerate(results) if not gate.passed] == [failing]
    assert str(results[failing]).startswith("FAIL: ")


def test_the_first_looks_at_plain_noise_only():
    changed = [
        Measurement(m.photo, m.damage, m.method, dict(m.values) | {"PSNR": 99.0})
        if m.method == NLM and not m.damage.startswith("noise")
        else m
        for m in measurements()
    ]
    assert gates(changed)[0].passed
    assert "noise 15, noise 25, noise 50: +1.0000, required at least 1 dB" in str(gates(changed)[0])


def test_gates_without_their_numbers_are_left_out():
    alone = [m for m in measurements() if m.method != NLM and m.damage == "JPEG 10"]
    assert [gate.claim.split(",")[0] for gate in gates(alone)] == ["NIQE", "SWD", "PSNR", "HaarPSI"]
    quick = [Measurement(m.photo, m.damage, m.method, {"PSNR": 30.0, "SWD": 0.1}) for m in alone]
    assert [gate.claim.split(",")[0] for gate in gates(quick)] == ["SWD", "PSNR"]
    assert gates([m for m in measurements() if m.method != NLM and m.damage == "clean"]) == []
