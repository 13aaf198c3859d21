"""The worked example of CONTRIBUTING.md is carried out as written: on a copy of the package, with its own test."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from pathlib import Path

import pytest

from pocketprior.runtimes import RUNTIMES

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


def example() -> tuple[str, str, str]:
    """The module, the tuple and the test, in the order of the page."""
    module, names, test = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    return module, names, test


def promised(names: str) -> tuple[str, ...]:
    return ast.literal_eval(names.removeprefix("RUNTIMES = "))


def copy_package(folder: Path) -> None:
    """The Python files of the package, laid out as the wheel lays them out; it works without the compiled library."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    for target, source in project["tool"]["scikit-build"]["wheel"]["packages"].items():
        shutil.copytree(ROOT / source, folder / target, ignore=shutil.ignore_patterns("__pycache__", "native", "packs"))


def replace_line(path: Path, start: str, line: str) -> None:
    """Put `line` in place of the one line of the file that begins with `start`."""
    text, found = re.subn(rf"^{re.escape(start)}.*\n", line, path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert found == 1
    path.write_text(text, encoding="utf-8")


def test_the_page_lists_the_runtimes_that_there_are() -> None:
    _, names, _ = example()
    *known, added = promised(names)
    assert tuple(known) == RUNTIMES, "CONTRIBUTING.md shows another tuple than runtimes/__init__.py has"
    assert added not in RUNTIMES


def test_the_example_works(tmp_path: Path) -> None:
    module, names, test = example()
    added = promised(names)[-1]
    copy_package(tmp_path / "site")
    runtimes = tmp_path / "site/pocketprior/runtimes"
    (runtimes / f"{added}.py").write_text(module, encoding="utf-8")
    replace_line(runtimes / "__init__.py", "RUNTIMES = ", names)
    (tmp_path / f"test_{added}.py").write_text(test, encoding="utf-8")
    # -S: without the hooks of an editable install, which would find the package before the copy.
    paths = (tmp_path / "site", ROOT / "tests", sysconfig.get_path("purelib"), sysconfig.get_path("platlib"))
    done = subprocess.run(
        [sys.executable, "-S", "-m", "pytest", "-p", "no:cacheprovider", "-W", "error", "-q", str(tmp_path)],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(map(str, paths))},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "1 passed" in done.stdout, done.stdout + done.stderr


def named_files() -> list[str]:
    """The files that the page names, without those that the example adds and those that only show a pattern."""
    added = promised(example()[1])[-1]
    named = re.findall(r"`((?:core|runtimes|tests|scripts)/[\w./]+)`", PAGE)
    return sorted({place for place in named if added not in place} - {"core/x.py", "tests/core/test_x.py"})


@pytest.mark.parametrize("place", named_files())
def test_the_files_that_the_page_names_exist(place: str) -> None:
    assert (ROOT / place).exists()
