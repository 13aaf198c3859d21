"""Every threshold of this layer catches a planted breach; a pack may have its own."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pocketprior.core.pack.manifest import LimitOverride, Manifest
from pocketprior.runtimes.limits import (
    NLM_GATE,
    PARITY_LIMITS,
    SHARPEST_DB,
    TASK_DROP_DB,
    TEXTURE_GATES,
    GateLimit,
    ParityLimit,
    doubled,
    limit_of,
    sharpened,
    task_drop_db,
)
from pocketprior.runtimes.parity.findings import ArrayDifference, breach

LIMIT = ParityLimit(40, 0.25, 0.002, "a test")
FINE = ArrayDifference(max_abs=0.1, rmse=0.005, psnr_db=46, shift=0.001, broken=0, count=100)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({}, ""),
        ({"broken": 2}, "2 of 100 values are not finite"),
        ({"psnr_db": 39.9}, "39.9 dB, expected at least 40.0 dB"),
        ({"max_abs": 0.3}, "one value is off by 0.3"),
        ({"shift": -0.01}, "a channel is shifted by -0.01"),
    ],
)
def test_what_is_more_than_allowed(change: dict[str, float], words: str) -> None:
    found = breach(replace(FINE, **change), LIMIT, image=True)
    assert found.startswith(words)
    assert bool(found) == bool(words)


@pytest.mark.parametrize("name", PARITY_LIMITS)
@pytest.mark.parametrize(
    ("measure", "factor"), [("psnr_db", 0.999), ("max_abs", 1.001), ("shift", 1.001), ("shift", -1.001)]
)
def test_a_breach_of_every_number_of_every_class(name: str, measure: str, factor: float) -> None:
    limit = PARITY_LIMITS[name]
    at_the_limit = ArrayDifference(limit.max_abs, 0.0, limit.psnr_db, limit.shift, broken=0, count=100)
    assert breach(at_the_limit, limit, image=True) == ""
    beyond = replace(at_the_limit, **{measure: factor * getattr(limit, measure)})
    assert breach(beyond, limit, image=True)


def test_only_images_are_held_to_a_shift() -> None:
    assert breach(replace(FINE, shift=1), LIMIT, image=False) == ""


def test_one_grey_level_of_brightness_is_seen_in_every_class() -> None:
    level = 1 / 255
    shifted = ArrayDifference(max_abs=level, rmse=level, psnr_db=48.1, shift=level, broken=0, count=100)
    assert all(breach(shifted, limit, image=True) for limit in PARITY_LIMITS.values())


@pytest.mark.parametrize("gate", [NLM_GATE, *TEXTURE_GATES], ids=lambda gate: f"{gate.metric} {gate.word}")
def test_a_breach_of_every_gate(gate: GateLimit) -> None:
    assert gate.allows(gate.bound) == (gate.word == "at least")
    assert gate.allows(gate.bound - 1e-6) == (gate.word == "below")
    assert gate.allows(gate.bound + 1e-6) == (gate.word == "at least")


def test_every_limit_has_its_reason() -> None:
    assert all(len(limit.reason) > 20 for limit in (*PARITY_LIMITS.values(), NLM_GATE, *TEXTURE_GATES))


def test_a_pack_has_its_own(manifest: Manifest) -> None:
    limits = {"coded": LimitOverride("sold as such", psnr_db=42.0), "task": LimitOverride("so", drop_db=0.3)}
    own = replace(manifest, limits=limits)
    assert limit_of("coded", own) == PARITY_LIMITS["coded"]._replace(psnr_db=42, reason="sold as such")
    assert limit_of("fp32", own) == PARITY_LIMITS["fp32"]
    assert (task_drop_db(manifest), task_drop_db(own)) == (TASK_DROP_DB, 0.3)


@pytest.mark.parametrize(("rounding", "psnr_db"), [(0, SHARPEST_DB), (1e-9, SHARPEST_DB), (1e-6, 100), (1e-4, 90)])
def test_the_rounding_of_float32_sharpens_its_limit(rounding: float, psnr_db: float) -> None:
    assert sharpened(PARITY_LIMITS["fp32"], rounding).psnr_db == pytest.approx(psnr_db)


def test_two_within_a_limit_of_a_third() -> None:
    assert doubled(LIMIT)[:3] == (pytest.approx(33.9), 0.5, 0.004)
