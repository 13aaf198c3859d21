"""Limits catch what they are for, and a pack may say its own."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pocketprior.core.pack.manifest import LimitOverride, Manifest
from pocketprior.runtimes.parity.limits import (
    CLASSES,
    DROP,
    SHARPEST,
    Limit,
    breach,
    drop_of,
    limit_of,
    sharpened,
    twice,
)
from pocketprior.runtimes.parity.measures import Difference

LIMIT = Limit(40, 0.25, 0.002, "a test")
FINE = Difference(max_abs=0.1, rmse=0.005, psnr_db=46, shift=0.001, broken=0, count=100)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({}, ""),
        ({"broken": 2}, "2 of 100 values are not finite"),
        ({"psnr_db": 39.9}, "39.9 dB, at least 40.0 dB"),
        ({"max_abs": 0.3}, "one value is off by 0.3"),
        ({"shift": -0.01}, "a channel is shifted by -0.01"),
    ],
)
def test_what_is_more_than_allowed(change: dict[str, float], words: str) -> None:
    found = breach(replace(FINE, **change), LIMIT, picture=True)
    assert found.startswith(words)
    assert bool(found) == bool(words)


def test_only_pictures_are_held_to_a_shift() -> None:
    assert breach(replace(FINE, shift=1), LIMIT, picture=False) == ""


def test_one_level_of_brightness_is_seen_in_every_class() -> None:
    level = 1 / 255
    shifted = Difference(max_abs=level, rmse=level, psnr_db=48.1, shift=level, broken=0, count=100)
    assert all(breach(shifted, limit, picture=True) for limit in CLASSES.values())


def test_every_class_has_its_reason() -> None:
    assert all(len(limit.reason) > 20 for limit in CLASSES.values())


def test_a_pack_says_its_own(manifest: Manifest) -> None:
    told = replace(
        manifest,
        limits={"coded": LimitOverride("sold as such", psnr_db=42.0), "task": LimitOverride("so", drop_db=0.3)},
    )
    limit = limit_of("coded", told)
    assert limit == CLASSES["coded"]._replace(psnr_db=42, reason="sold as such")
    assert limit_of("fp32", told) == CLASSES["fp32"]
    assert (drop_of(manifest), drop_of(told)) == (DROP, 0.3)


@pytest.mark.parametrize(("rounding", "psnr_db"), [(0, SHARPEST), (1e-9, SHARPEST), (1e-6, 100), (1e-4, 90)])
def test_the_rounding_of_float32_sharpens_its_limit(rounding: float, psnr_db: float) -> None:
    assert sharpened(CLASSES["fp32"], rounding).psnr_db == pytest.approx(psnr_db)


def test_two_within_a_limit_of_a_third() -> None:
    assert twice(LIMIT)[:3] == (pytest.approx(33.9), 0.5, 0.004)
