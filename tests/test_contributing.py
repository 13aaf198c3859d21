"""The worked examples of CONTRIBUTING.md are carried out as written: on a copy of the package, with their own tests."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from PIL import Image

from pocketprior.core.degradations import TASKS
from pocketprior.runtimes import RUNTIMES

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


def example(name: str) -> list[str]:
    """The Python blocks of the section 'Example: NAME', in order."""
    (section,) = re.findall(rf"^## Example: {name}\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    return re.findall(r"^```python\n(.*?)^```", section, re.MULTILINE | re.DOTALL)


MODULE, NAMES, RUNTIME_TEST = example("a runtime")
TASK, ENTRY, TASK_TEST = example("a task")
QUICK = ("steps=1", "save_every=1", "batch=1", "crop=16", "precision=fp32")


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


def insert_before(path: Path, start: str, block: str) -> None:
    """Put `block` before the one line of the file that begins with `start`."""
    replaced, found = re.subn(
        rf"^(?={re.escape(start)})", lambda _: block, path.read_text(encoding="utf-8"), flags=re.M
    )
    assert found == 1
    path.write_text(replaced, encoding="utf-8")


def run(folder: Path, *arguments: str) -> str:
    """What `python -m ARGUMENTS` prints in `folder`, with the copy of the package in its folder `site`."""
    # -S: without the hooks of an editable install, which would find the package before the copy.
    libraries = [path for path in sys.path if Path(path).name == "site-packages"]
    paths = (folder / "site", ROOT / "tests", *libraries)
    done = subprocess.run(
        [sys.executable, "-S", "-W", "error", "-m", *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(map(str, paths))},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def run_test(folder: Path, name: str, test: str) -> None:
    (folder / f"test_{name}.py").write_text(test, encoding="utf-8")
    assert "1 passed" in run(folder, "pytest", "-p", "no:cacheprovider", "-W", "error", "-q", str(folder))


def test_the_page_lists_the_runtimes_that_there_are() -> None:
    *known, added = promised(NAMES)
    assert tuple(known) == RUNTIMES, "CONTRIBUTING.md shows another tuple than runtimes/__init__.py has"
    assert added not in RUNTIMES


def test_the_runtime_works(tmp_path: Path) -> None:
    added = promised(NAMES)[-1]
    copy_package(tmp_path / "site")
    runtimes = tmp_path / "site/pocketprior/runtimes"
    (runtimes / f"{added}.py").write_text(MODULE, encoding="utf-8")
    replace_line(runtimes / "__init__.py", "RUNTIMES = ", NAMES)
    run_test(tmp_path, added, RUNTIME_TEST)


@pytest.fixture(scope="module")
def with_task(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a copy of the package to which the task was added, in one file."""
    folder = tmp_path_factory.mktemp("task")
    copy_package(folder / "site")
    tasks = folder / "site/pocketprior/core/degradations/tasks.py"
    insert_before(tasks, "# Super-resolution", f"{TASK}\n\n")
    insert_before(tasks, '    "cleanup": Task(cleanup),', ENTRY)
    return folder


def test_the_task_works(with_task: Path) -> None:
    assert re.findall(r'"(\w+)"', ENTRY)[0] not in TASKS
    run_test(with_task, "deadpixels", TASK_TEST)


def test_the_task_can_be_trained(with_task: Path) -> None:
    (command,) = re.findall(r"^pocketprior train .*deadpixels.*$", PAGE, re.MULTILINE)
    (with_task / "photos").mkdir()
    Image.effect_noise((256, 256), 40).convert("RGB").save(with_task / "photos/noise.png")
    run(
        with_task,
        *command.replace("PHOTOS", "photos").split(),
        *(part for setting in QUICK for part in ("--set", setting)),
    )
    assert (with_task / "runs/deadpixels/model.safetensors").is_file()


def named_files() -> list[str]:
    """The files that the page names, without those that the example adds and those that only show a pattern."""
    added = promised(NAMES)[-1]
    named = re.findall(r"`((?:core|runtimes|tests|scripts)/[\w./]+)`", PAGE)
    shown = {place for place in named if added not in place and "SYSTEM" not in place}
    return sorted(shown - {"core/x.py", "tests/core/test_x.py"})


@pytest.mark.parametrize("place", named_files())
def test_the_files_that_the_page_names_exist(place: str) -> None:
    assert (ROOT / place).exists()
