"""`pocketprior parity`: exit codes, files, and that neither help nor a run loads torch."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from pocketprior.core.cli import main
from support.planted_faults import after, edited
from support.references import known_pack, record_pack


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("parity")
    known_pack(folder / "pack")
    record_pack(folder / "pack", folder / "known.npz", [((33, 42), 6, 0.5)])
    return folder / "pack", folder / "known.npz"


@pytest.fixture
def call(kept: tuple[Path, Path]) -> Callable[..., int]:
    return lambda *words: main(["parity", "run", str(kept[0]), "--against", str(kept[1]), "--threads", "1", *words])


def test_what_holds(call: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = {name: tmp_path / f"report.{name}" for name in ("json", "junit", "html")}
    assert call(*(word for name, file in files.items() for word in (f"--{name}", str(file)))) == 0
    assert "all within their limits" in capsys.readouterr().out
    assert json.loads(files["json"].read_text())["ok"] is True
    assert ElementTree.parse(files["junit"]).getroot().tag == "testsuites"
    assert files["html"].read_text().startswith("<!doctype html>")


def test_what_breaks(tmp_path: Path, kept: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    known_pack(tmp_path / "pack")
    edited(tmp_path / "pack", "denoise", lambda model: after(model, "v", "Mul", np.float32([1.001])))
    assert main(["parity", "run", str(tmp_path / "pack"), "--against", str(kept[1])]) == 1
    assert "FAIL  first at the error source 'conversion': denoise, call 0, v" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["--runtime", "coreml"], 1, "has no graphs for coreml"),
        (["--runtime", "abacus"], 2, "unknown runtime 'abacus'"),
        (["--precision", "int3"], 2, "unknown precision of onnx 'int3'"),
        (["--arithmetic", "fp16"], 2, "fp32 arithmetic, got CPU and fp16"),
        (["--threads", "0"], 2, "got '0'"),
        (["--against", "nowhere.npz"], 1, "nowhere.npz cannot be read"),
        (["--json", "no/where.json"], 2, "cannot be written"),
    ],
)
def test_what_is_wrong_with_a_call(
    words: list[str], code: int, told: str, call: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(*words) == code
    assert told in capsys.readouterr().err


def test_the_pack_is_named_or_the_default(call: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["parity", "run"]) == 2
    assert "--default" in capsys.readouterr().err
    assert call("--default") == 2


def test_a_table(kept: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "page.md"
    page.write_text("<!-- table -->\n<!-- /table -->\n")
    assert main(["parity", "table", str(kept[0]), "--against", str(kept[1]), "-o", str(page)]) == 0
    assert "2 rows, 2 held" in capsys.readouterr().out
    assert page.read_text().count("tiny-cleanup") == 2


@pytest.mark.parametrize("words", [["--help"], ["run", "--help"], ["record", "--help"], ["table", "--help"]])
def test_help(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["parity", *words]) == 0
    assert "usage" in capsys.readouterr().out


def test_a_run_never_loads_torch(kept: tuple[Path, Path]) -> None:
    code = (
        "import sys; from pocketprior.core.cli import main; code = main(sys.argv[1:]); "
        "print(code, [name for name in ('torch', 'onnx', 'openvino') if name in sys.modules])"
    )
    command = [sys.executable, "-c", code, "parity", "run", str(kept[0]), "--against", str(kept[1])]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.splitlines()[-1] == "0 []"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--gain", "0"], "expected a gain above 0, got 0"),
        (["--side", "none"], "got 'none'"),
        (["--device", "abacus"], "invalid choice"),
    ],
)
def test_what_is_wrong_with_a_recording(words: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["parity", "record", "model.safetensors", "--photos", "a", "-o", "b.npz", *words]) == 2
    assert told in capsys.readouterr().err


def test_the_python_of_the_guide(kept: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("openvino")
    guide = (Path(__file__).parents[3] / "docs/parity.md").read_text(encoding="utf-8")
    code = guide.split("```python\n")[1].split("```")[0]
    exec(code.replace("PACK", str(kept[0])).replace("reference.npz", str(kept[1])), {})
    assert capsys.readouterr().out == "True None\n"
