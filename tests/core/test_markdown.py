import re
import xml.etree.ElementTree as ElementTree

import pytest

from pocketprior.core import markdown as module
from pocketprior.core.markdown import Panel, Point, scatter, table


def test_columns_are_aligned_left_then_right() -> None:
    assert table([["name", "n"], ["a", "10"], ["long one", "5"]], left=1).splitlines() == [
        "| name     |  n |",
        "| -------- | -: |",
        "| a        | 10 |",
        "| long one |  5 |",
    ]


NS = "{http://www.w3.org/2000/svg}"
POINTS = [Point("slow & good", 0.1, 32.0, "ours"), Point("fast", 10.0, 28.0, "theirs")]


def parsed(panels):
    return ElementTree.fromstring(scatter(panels, "MPix/s"))


def words(svg):
    return [text.text for text in svg.iter(f"{NS}text")]


def test_everything_is_named():
    svg = parsed([Panel("PSNR", "dB", POINTS, {"twice": 1.0}), Panel("SWD", "SWD", POINTS)])
    for word, times in (
        ("slow & good", 2),
        ("fast", 2),
        ("PSNR", 1),
        ("dB", 1),
        ("MPix/s", 2),
        ("ours", 1),
        ("twice", 1),
    ):
        assert words(svg).count(word) == times
    assert svg.attrib["width"] == str(2 * module._WIDTH)


def test_points_lie_where_their_numbers_are():
    """Halfway between 0.1 and 10 on a logarithmic axis is 1; higher is further up."""
    svg = parsed([Panel("t", "y", [*POINTS, Point("middle", 1.0, 30.0, "ours")])])
    (_, first, last) = svg.findall(f".//{NS}circle")
    x, y = (([float(mark.attrib[name]) for mark in (first, last)]) for name in ("cx", "cy"))
    squares = [r for r in svg.iter(f"{NS}rect") if r.attrib["width"] == str(2 * module._MARK)]
    square = squares[-1].attrib
    right, low = (float(square[name]) + module._MARK for name in ("x", "y"))
    assert x[1] == pytest.approx((x[0] + right) / 2, abs=0.11)
    assert y[1] == pytest.approx((y[0] + low) / 2, abs=0.11)
    assert y[0] < low


def test_labels_do_not_overlap_where_points_crowd():
    crowd = [Point(f"method number {i}", 1 + 0.01 * i, 30 + 0.02 * i, "ours") for i in range(8)]
    places = [(100 + i, 150 - i) for i in range(8)]
    taken: list[module._Rect] = []
    for point, place in zip(crowd, places, strict=True):
        taken.append(module._label_box(*place, point.label, taken))
    assert not any(module._overlap(a, b) for i, a in enumerate(taken) for b in taken[:i])
    far = [Point("far", 90.0, 20.0, "ours"), Point("high", 0.1, 40.0, "ours")]
    assert len(parsed([Panel("t", "y", [*crowd, *far])]).findall(f".//{NS}path")) > 1


@pytest.mark.parametrize(
    ("low", "high", "marks"), [(0.9, 11, [1, 2, 5, 10]), (0.005, 12, [0.01, 0.03, 0.1, 0.3, 1, 3, 10])]
)
def test_marks_of_the_logarithmic_axis_are_round(low, high, marks):
    assert module._decades(low, high) == pytest.approx(marks)


@pytest.mark.parametrize(("span", "step", "digits"), [(4.4, 1, 0), (0.05, 0.01, 2), (30, 5, 0), (0.9, 0.2, 1)])
def test_steps_of_the_upright_axis_are_round(span, step, digits):
    assert module._step(span) == (pytest.approx(step), digits)


def test_equal_values_still_have_an_axis():
    svg = parsed([Panel("t", "y", [Point("a", 1.0, 5.0, "s"), Point("b", 1.0, 5.0, "s")])])
    assert not any(re.search("nan|inf", value) for element in svg.iter() for value in element.attrib.values())


@pytest.mark.parametrize("panels", [[], [Panel("t", "y", [])], [Panel("t", "y", [Point("a", 0.0, 1.0, "s")])]])
def test_what_cannot_be_drawn_is_refused(panels):
    with pytest.raises(ValueError, match=r"plot needs|logarithmic axis"):
        scatter(panels, "x")


def test_panels_wrap():
    svg = ElementTree.fromstring(scatter([Panel(name, "y", POINTS) for name in "abcd"], "x", columns=2))
    places = [group.attrib["transform"] for group in svg.iter(f"{NS}g")]
    low = module._LEGEND + module._HEIGHT
    assert places == [f"translate({x} {y})" for y in (module._LEGEND, low) for x in (0, module._WIDTH)]
    assert (svg.attrib["width"], svg.attrib["height"]) == (str(2 * module._WIDTH), str(low + module._HEIGHT))
