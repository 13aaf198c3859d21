"""What the layer offers to Python, and commands whose help needs none of its libraries."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import pocketprior.export as layer

COMMANDS = sorted(path.stem for path in Path(layer.__file__).parent.glob("commands/[a-z]*.py"))
DECLARE = """
import argparse, importlib, sys
for library in ("torch", "onnx", "onnxruntime", "coremltools", "openvino", "accelerate"):
    sys.modules[library] = None
for name in sys.argv[1:]:
    parser = argparse.ArgumentParser()
    importlib.import_module(f"pocketprior.export.commands.{name}").add_arguments(parser)
    parser.format_help()
"""


@pytest.mark.parametrize("name", layer.__all__)
def test_public_functions_are_documented_and_annotated(name: str) -> None:
    function = getattr(layer, name)
    assert inspect.isfunction(function)
    text = inspect.getdoc(function) or ""
    assert "Args:" in text
    assert "Raises:" in text
    signature = inspect.signature(function)
    assert all(p.annotation is not p.empty for p in signature.parameters.values())
    assert "Namespace" not in str(signature)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'exprot'"):
        _ = layer.exprot


def test_help_needs_no_libraries() -> None:
    assert len(COMMANDS) == 7
    done = subprocess.run([sys.executable, "-c", DECLARE, *COMMANDS], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
