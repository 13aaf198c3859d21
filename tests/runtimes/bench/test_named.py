from __future__ import annotations

from argparse import ArgumentTypeError
from pathlib import Path

import pytest

from pocketprior.runtimes.bench.named import Named, named

PARSED = named("sigma", "FFDNet=ffdnet.onnx:sigma=25")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("FFDNet=a/b.onnx", Named("FFDNet", Path("a/b.onnx"), "")),
        ("FFDNet blind=b.onnx:sigma=estimated", Named("FFDNet blind", Path("b.onnx"), "estimated")),
        ("x=C:/b=c.onnx:sigma=2.5", Named("x", Path("C:/b=c.onnx"), "2.5")),
    ],
)
def test_names_paths_and_options(text, expected):
    assert PARSED(text) == expected


@pytest.mark.parametrize("text", ["b.onnx", "=b.onnx", "FFDNet="])
def test_anything_else_shows_an_example(text):
    with pytest.raises(ArgumentTypeError, match=f"'{text}' was given; .* FFDNet=ffdnet.onnx:sigma=25"):
        PARSED(text)
