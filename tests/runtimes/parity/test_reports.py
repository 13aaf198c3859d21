"""Reports for people, for programs and for continuous integration."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from pocketprior.runtimes.parity.comparison import CompareOptions, compare
from pocketprior.runtimes.parity.findings import ErrorBudget, ParityReport
from pocketprior.runtimes.parity.formats import as_json, as_junit, as_text
from pocketprior.runtimes.parity.html_report import as_html, distance, heat_map, histogram, waterfall, worst_spots
from support import packs
from support.planted_faults import after, edited

Known = tuple[Path, Path]


@pytest.fixture(scope="module")
def held(kept: Known) -> ParityReport:
    return compare(kept[0], CompareOptions(against=kept[1], threads=1))


@pytest.fixture
def broken(known: Known) -> ParityReport:
    edited(known[0], "predict", lambda model: after(model, "base", "Add", np.float32([0.01])))
    return compare(known[0], CompareOptions(against=known[1], threads=1))


def test_text_of_what_holds(held: ParityReport) -> None:
    text = as_text(held)
    assert "reference: recorded on a tiny pack in ONNX Runtime" in text
    assert "runtime      not measured: onnxruntime is what other runtimes are compared with" in text
    assert text.splitlines()[-1] == f"ok    {held.compared} arrays were compared, all within their limits"
    assert "unexplained rest" in text
    assert all(len(line) < 200 for line in text.splitlines())


def test_text_of_what_broke(broken: ParityReport) -> None:
    text = as_text(broken).splitlines()
    assert text[-1].startswith("FAIL  first at the error source 'conversion': predict, call 0, base, split, ")
    assert any(line.startswith("conversion   BREACH") for line in text)
    assert any(line.strip().startswith("and ") for line in text)


def test_text_of_nothing(held: ParityReport) -> None:
    assert as_text(replace(held, sources=())).splitlines()[-1] == "FAIL  nothing was compared"


def test_json(held: ParityReport, broken: ParityReport) -> None:
    tree = json.loads(as_json(held))
    assert tree["ok"] is True
    assert tree["first"] is None
    assert [stage["name"] for stage in tree["stages"] if stage["status"] == "not measured"] == [
        *("kernel", "runtime", "precision", "quantization", "task", "steps")
    ]
    tree = json.loads(as_json(broken))
    assert tree["ok"] is False
    assert tree["first"]["stage"] == "conversion"
    assert tree["first"]["graph"] == "predict"
    assert tree["first"]["max_abs"] == pytest.approx(0.01, rel=1e-3)


def test_junit(held: ParityReport, broken: ParityReport) -> None:
    root = ElementTree.fromstring(as_junit(held))
    suites = {suite.get("name"): suite for suite in root}
    assert not root.findall(".//failure")
    assert suites["kernel"].find(".//skipped") is not None
    for suite in root:
        assert int(suite.get("tests")) == len(suite.findall("testcase"))
    failures = ElementTree.fromstring(as_junit(broken)).findall("testsuite[@name='conversion']//failure")
    assert failures
    assert "dB" in failures[0].get("message", "")


def test_junit_of_nothing(held: ParityReport) -> None:
    assert len(ElementTree.fromstring(as_junit(replace(held, sources=()))).findall(".//failure")) == 1


class Page(HTMLParser):
    """The tags of a page, the addresses in it, and whether every tag is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in ("img", "meta", "rect"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag != "rect":
            assert self.open.pop() == tag


def test_html_needs_nothing_else(broken: ParityReport) -> None:
    page = Page(as_html(broken))
    assert not page.open
    assert page.tags.count("svg") == 1 + sum(image.found.rmse > 0 for image in broken.images)
    assert page.addresses
    assert all(address.startswith("data:image/png;base64,") for address in page.addresses)
    assert "script" not in page.tags
    assert "link" not in page.tags


def test_html_shows_the_pictures(broken: ParityReport) -> None:
    first = next(address for address in Page(as_html(broken)).addresses)
    shown = np.asarray(Image.open(BytesIO(base64.b64decode(first.partition(",")[2]))))
    worst = min(broken.images, key=lambda image: image.found.psnr_db)
    np.testing.assert_array_equal(shown, (worst.reference // 257).astype(np.uint8))


def test_names_are_escaped(held: ParityReport) -> None:
    evil = "<script>alert('&')</script>"
    picture = replace(held.images[0], case=evil)
    report = replace(held, pack=evil, reference=evil, notes=(evil,), environment={evil: evil}, images=(picture,))
    text = as_html(report)
    assert "<script" not in text
    assert "&lt;script&gt;" in text
    ElementTree.fromstring(as_junit(replace(report, pack="\x00 <&>")))


def test_heat() -> None:
    reference = packs.photo(40, 50, np.uint16)
    restored = reference.copy()
    restored[33, 20, 1] ^= 0x8000
    distances = distance(restored, reference)
    assert np.argwhere(distances).tolist() == [[33, 20]]
    assert heat_map(distances)[33, 20].tolist() == [255, 255, 255]
    assert worst_spots(distances, 1)[0][:2] == (32, 16)
    assert heat_map(np.zeros((2, 2))).max() == 0
    assert histogram(np.zeros((2, 2))) == "<p>No pixel differs.</p>"


def test_a_waterfall_ends_where_the_sum_is() -> None:
    drawn = ElementTree.fromstring(waterfall(ErrorBudget({"conversion": 3.0, "runtime": 4.0}, total=5.0, rest=0.0)))
    bars = [(float(bar.get("x")), float(bar.get("width"))) for bar in drawn.findall("rect")]
    assert bars[1][0] == pytest.approx(bars[0][0] + bars[0][1], abs=0.2)
    assert bars[-1][0] + bars[-1][1] == pytest.approx(bars[1][0] + bars[1][1], abs=0.2)
