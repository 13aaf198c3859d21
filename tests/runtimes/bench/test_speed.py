from __future__ import annotations

import numpy as np
import packs

from pocketprior.runtimes.bench.speed import contestants, made_photo, race


def test_made_photo_has_the_size_that_was_asked_for():
    photo = made_photo(0.012)
    assert (photo.shape, photo.dtype) == ((95, 127, 3), np.uint8)
    assert np.array_equal(photo, made_photo(0.012))


def test_race_takes_turns_and_leaves_the_first_round_out():
    order = []
    methods = {name: lambda image, name=name: order.append(name) or image for name in "ab"}
    timings = race(methods, made_photo(0.0001), rounds=3)
    assert order == ["a", "b"] * 4
    assert [timing.method for timing in timings] == ["a", "b"]
    assert all(0 < timing.fastest <= timing.median <= timing.slowest for timing in timings)
    assert str(timings[0]).startswith("a ")


def test_contestants_are_the_forms_of_the_pack(built_pack, tmp_path):
    assert list(contestants(built_pack)) == ["DTPM, split", "DTPM, fused", "predictor alone", "fastNlMeans"]
    packs.build(tmp_path, graphs=("encode", "fused"), golden=False)
    found = contestants(tmp_path)
    assert list(found) == ["DTPM, fused", "fastNlMeans"]
    image = packs.photo(16, 24)
    assert all(method(image).shape == image.shape for method in found.values())
