from __future__ import annotations

import json
import math

import pytest

from pocketprior.runtimes.bench.gates import Gate
from pocketprior.runtimes.bench.photos import DAMAGES, BenchPhoto
from pocketprior.runtimes.bench.quality import BM3D, DTPM, INPUT, NLM, PREDICTOR, Measurement, Method
from pocketprior.runtimes.bench.report import Facts, Report, describe, machine, versions

FACTS = Facts("pocketprior bench quality", "tiny", 4, "ab12", "a machine", "numpy 2", "2 of set", "these same photos")
GATES = [Gate("it works", 1.5, "at least 1", True)]
RIVALS = {damage.name: [Method(NLM, lambda image: image, f"h {i}", "1")] for i, damage in enumerate(DAMAGES)}


def measurements(bm3d_photos):
    found = []
    for photo, value in (("a", 20.0), ("b", 30.0)):
        for damage in DAMAGES:
            for method in (INPUT, NLM, PREDICTOR, DTPM, *([BM3D] if photo in bm3d_photos else [])):
                values = {"PSNR": value, "SSIM": 0.5, "HaarPSI": 0.25, "NIQE": 3.0, "SWD": 0.125}
                found.append(Measurement(photo, damage.name, method, values))
    return found


def test_page_with_a_subset_for_bm3d():
    page = Report(FACTS, measurements({"a"}), GATES, RIVALS).as_markdown()
    everywhere, subset = page.split("## With BM3D: 1 photos (a)")
    assert "| noise 15    | predictor alone | 25.00 | 0.5000 |  0.2500 | 3.00 | 0.1250 |" in everywhere
    assert "BM3D  " not in everywhere.split("## All photos")[1]
    assert "| mixed       | BM3D            | 20.00 |" in subset
    assert "- pass: it works: +1.5000, required at least 1" in page
    assert "| JPEG 40  | fastNlMeans | h 5      |" in page
    assert page.endswith("|\n")
    assert page.count("mean of all") == 4 + 5


def test_page_without_bm3d():
    page = Report(FACTS, measurements(()), GATES, RIVALS).as_markdown()
    assert "With BM3D" not in page
    assert "## All photos" in page


def test_rows_of_a_table_are_aligned():
    page = Report(FACTS, measurements(()), GATES, RIVALS).as_markdown()
    tables = [block for block in page.split("\n\n") if block.startswith("|")]
    assert [len({len(line) for line in table.splitlines()}) for table in tables] == [1, 1]


def test_json_holds_everything_and_no_infinity():
    found = [*measurements(()), Measurement("c", "mixed", INPUT, {"PSNR": math.inf})]
    tree = json.loads(Report(FACTS, found, GATES, RIVALS).as_json())
    assert tree["manifest_sha256"] == "ab12"
    assert tree["gates"] == [{"claim": "it works", "value": 1.5, "limit": "at least 1", "passed": True}]
    assert len(tree["measurements"]) == len(found)
    assert tree["measurements"][-1] == {"photo": "c", "damage": "mixed", "method": INPUT, "values": {"PSNR": None}}


def test_describe():
    photos = [BenchPhoto(name, None) for name in ("bsd/1", "bsd/2", "mc/1")]
    assert describe(photos) == "2 of bsd, 1 of mc"


def test_facts_name_the_processor_and_the_packages():
    assert "cores" in machine()
    assert all(word in versions() for word in ("numpy ", "OpenCV ", "bm3d "))


def test_a_machine_without_proc(monkeypatch):
    def missing(*_, **__):
        raise FileNotFoundError

    monkeypatch.setattr("pathlib.Path.read_text", missing)
    assert machine().partition(",")[0] != ""


@pytest.mark.parametrize("banned", ["/tmp", "/home", "20"])
def test_no_paths_and_no_dates_in_what_a_run_adds(banned):
    assert banned not in machine().partition(",")[2]
