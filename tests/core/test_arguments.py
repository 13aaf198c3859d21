from __future__ import annotations

from argparse import ArgumentTypeError
from pathlib import Path

import pytest

from pocketprior.core.arguments import NamedPath, named_path, natural_number, percentage, whole_number

PARSED = named_path("sigma", "FFDNet=ffdnet.onnx:sigma=25")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("FFDNet=a/b.onnx", NamedPath("FFDNet", Path("a/b.onnx"), "")),
        ("FFDNet blind=b.onnx:sigma=estimated", NamedPath("FFDNet blind", Path("b.onnx"), "estimated")),
        ("x=C:/b=c.onnx:sigma=2.5", NamedPath("x", Path("C:/b=c.onnx"), "2.5")),
    ],
)
def test_names_paths_and_options(text, expected):
    assert PARSED(text) == expected


@pytest.mark.parametrize("text", ["b.onnx", "=b.onnx", "FFDNet="])
def test_anything_else_shows_an_example(text):
    with pytest.raises(ArgumentTypeError, match=f"FFDNet=ffdnet.onnx:sigma=25, got '{text}'"):
        PARSED(text)


def test_whole_numbers():
    assert whole_number("12") == 12
    assert natural_number("0") == 0
    for kind, least in ((whole_number, 1), (natural_number, 0)):
        for text in (str(least - 1), "1.5", "x", ""):
            with pytest.raises(ArgumentTypeError, match=f"expected a whole number from {least}, got '{text}'"):
                kind(text)


def test_a_percentage():
    assert percentage("100") == 100
    for text in ("0", "101", "x"):
        with pytest.raises(ArgumentTypeError, match=f"expected a whole number from 1 to 100, got '{text}'"):
            percentage(text)
