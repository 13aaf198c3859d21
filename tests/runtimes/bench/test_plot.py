from __future__ import annotations

import re

from pocketprior.runtimes.bench.methods import BM3D, DTPM, NLM
from pocketprior.runtimes.bench.quality import Measurement, QualityResults
from pocketprior.runtimes.bench.quality_report import quality_speed_plot


def results(*rows):
    return QualityResults(
        [Measurement(photo, damage, method, {"PSNR": 30.0, "SWD": 0.1}) for photo, damage, method in rows]
    )


def texts(svg):
    return re.findall(r"<text[^>]*>([^<]*)</text>", svg)


def test_only_methods_that_restored_everything_are_drawn():
    rows = [("p", "a", DTPM), ("p", "b", DTPM), ("p", "a", "net"), ("p", "b", "net"), ("p", "a", BM3D)]
    rows += [("p", "clean", NLM), ("p", "a", NLM), ("p", "b", NLM)]
    words = texts(quality_speed_plot(results(*rows), {"net": 0.1, DTPM: 1.0, BM3D: 0.01, NLM: 0.5}, {"net"}))
    assert [words.count(name) for name in (DTPM, "net", NLM, BM3D)] == [2, 2, 2, 0]
    assert words[:3] == ["ours", "networks of others", "classical"]
    assert {"PSNR, higher is better", "SWD, lower is better"} <= set(words)


def test_undamaged_photos_alone():
    words = texts(quality_speed_plot(results(("p", "clean", DTPM)), {DTPM: 1.0}, ()))
    assert words.count(DTPM) == 2
