from __future__ import annotations

import json
import math

import pytest

from pocketprior.core.degradations.fixed import DAMAGES
from pocketprior.core.metrics.baselines import NULLS
from pocketprior.runtimes.bench.methods import BM3D, DTPM, INPUT, NLM, PREDICTOR, BenchMethod, versions
from pocketprior.runtimes.bench.quality import Gate, Measurement, QualityResults
from pocketprior.runtimes.bench.quality_report import QualityReport, describe, machine
from pocketprior.runtimes.bench.trials import BenchPhoto

FACTS = {
    "command": "pocketprior bench quality",
    "pack": "tiny",
    "steps": 4,
    "manifest_sha256": "ab12",
    "machine": "a machine",
    "versions": "numpy 2",
    "photos": "2 of set",
    "validation": "these same photos",
}
GATES = [Gate("it works", 1.5, "at least 1", True)]
METHODS = {damage.name: [BenchMethod(NLM, lambda image: image, f"h {i}", "1")] for i, damage in enumerate(DAMAGES)}


def results(bm3d_photos=(), methods=(INPUT, NLM, PREDICTOR, DTPM), photos=(("a", 20.0), ("b", 30.0))):
    found = []
    for photo, value in photos:
        for damage in DAMAGES:
            for method in (*methods, *([BM3D] if photo in bm3d_photos else [])):
                values = {"PSNR": value, "SSIM": 0.5, "HaarPSI": 0.25, "NIQE": 3.0, "SWD": 0.125}
                found.append(Measurement(photo, damage.name, method, values))
    return QualityResults(found, METHODS)


def test_page_with_a_subset_for_bm3d():
    page = QualityReport(FACTS, results({"a"}), GATES).as_markdown()
    everywhere, subset = page.split("## With BM3D: 1 photos (a)")
    assert "| noise 15        | predictor alone | 25.00 | 0.5000 |  0.2500 | 3.00 | 0.1250 |" in everywhere
    assert "BM3D  " not in everywhere.split("## All photos")[1]
    assert "| mixed           | BM3D            | 20.00 |" in subset
    assert "- pass: it works: +1.5000, required at least 1" in page
    assert "| JPEG 40       | fastNlMeans | h 6      |" in page
    assert page.endswith("|\n")
    assert page.count("| mean of damages |") == 4 + 5
    assert "](" not in page


def test_page_without_bm3d_or_settings():
    page = QualityReport(FACTS, QualityResults(results().measurements), []).as_markdown()
    assert "With BM3D" not in page
    assert "## All photos" in page
    assert "## Gates" not in page
    assert "## Settings" not in page
    assert "## Null opponents" not in page


def test_methods_without_some_damages_have_no_mean():
    some = [Measurement("a", "noise 15", "FFDNet", results().measurements[0].values)]
    page = QualityReport(FACTS, QualityResults(results().measurements + some), []).as_markdown()
    assert page.count("FFDNet") == 1


def test_rows_of_a_table_are_aligned():
    page = QualityReport(FACTS, results(), GATES).as_markdown()
    tables = [block for block in page.split("\n\n") if block.startswith("|")]
    assert [len({len(line) for line in table.splitlines()}) for table in tables] == [1, 1]


def test_verdicts_over_null_opponents():
    """Ours is better in SWD, worse in HaarPSI and equal in NIQE; in PSNR there is no verdict."""
    photos = [(f"p{i}", 20.0) for i in range(8)]
    found = results(methods=(DTPM,), photos=photos).measurements
    for name in NULLS:
        for m in found[: 8 * len(DAMAGES)]:
            sign = 1 if m.photo in ("p0", "p3") else -1
            values = {"PSNR": 19.0, "SSIM": 0.5, "HaarPSI": 0.26, "NIQE": 3.0 + 0.1 * sign, "SWD": 0.135}
            found.append(Measurement(m.photo, m.damage, name, values))
    gains = {damage.name: {name: 0.3 + i for i, name in enumerate(NULLS)} for damage in DAMAGES}
    page = QualityReport(FACTS, QualityResults(found, {}, gains), []).as_markdown()
    rows = [line for line in page.split("## Null opponents")[1].splitlines() if line.startswith("| JPEG 20 ")]
    (row,) = [line for line in rows if "unsharp mask" in line]
    cells = [cell.strip() for cell in row.split("|")[3:-1]]
    assert cells[:2] == ["0.30", "+1.00 (+1.00 to +1.00)"]
    assert cells[2] == "-0.0100 (-0.0100 to -0.0100) worse"
    assert cells[3].startswith("+0.05 (-0.0")
    assert cells[3].endswith(")")
    assert cells[4] == "-0.0100 (-0.0100 to -0.0100) better"
    assert page.count("| all synthetic |") == 2


def test_a_plot_is_shown():
    assert "](cleanup.svg)" in QualityReport(FACTS, results(), [], "cleanup.svg").as_markdown()


def test_json_holds_everything_and_no_infinity():
    found = [*results().measurements, Measurement("c", "mixed", INPUT, {"PSNR": math.inf})]
    gains = {"mixed": {"unsharp mask": 0.25}}
    tree = json.loads(QualityReport(FACTS, QualityResults(found, METHODS, gains), GATES).as_json())
    assert tree["manifest_sha256"] == "ab12"
    assert tree["gates"] == [{"claim": "it works", "value": 1.5, "limit": "at least 1", "passed": True}]
    assert len(tree["measurements"]) == len(found)
    assert tree["measurements"][-1] == {"photo": "c", "damage": "mixed", "method": INPUT, "values": {"PSNR": None}}
    assert tree["gains"] == gains


def test_describe():
    photos = [BenchPhoto(name, None) for name in ("bsd/1", "bsd/2", "mc/1")]
    assert describe(photos) == "2 of bsd, 1 of mc"


def test_facts_name_the_processor_and_the_packages():
    assert "cores" in machine()
    assert all(word in versions() for word in ("numpy ", "OpenCV ", "bm3d "))


@pytest.mark.parametrize("banned", ["/tmp", "/home", "20"])
def test_no_paths_and_no_dates_in_what_a_run_adds(banned):
    assert banned not in machine().partition(";")[2]
