"""What README.md and docs/ show is true: the Python runs, commands and options exist, links lead somewhere."""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
import sys
from itertools import takewhile
from pathlib import Path

import pytest
from test_house import EXECUTED, PAGES

from pocketprior.core.cli import COMMANDS, main
from pocketprior.core.pack.manifest import Manifest
from pocketprior.core.training.stages import SYSTEMS

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
GUIDES = {
    f"{page}.md": (ROOT / f"docs/{page}.md").read_text(encoding="utf-8")
    for page, how in PAGES.items()
    if how == EXECUTED
}
SECTIONS = (  # of README.md, in this order
    "Restore a photo",
    "Packs",
    "From Python",
    "For app developers",
    "Train your own",
    "Limitations",
)


def blocks(text: str, language: str) -> list[str]:
    """The fenced code blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def commands(text: str) -> list[list[str]]:
    """The words of every command of the bash blocks."""
    lines = "".join(blocks(text, "bash")).replace("\\\n", " ").splitlines()
    return [shlex.split(line, comments=True) for line in lines if line.strip()]


def rows(table: str) -> list[list[str]]:
    """The cells of a Markdown table's rows, without its head."""
    lines = [line for line in table.splitlines() if line.startswith("|")][2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def links(text: str) -> list[str]:
    """Where links and pictures lead, without those to the web."""
    return [target for target in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in target]


OURS = [words for text in (README, *GUIDES.values()) for words in commands(text) if words[0] == "pocketprior"]
SCRIPTS = [words[0] for words in commands(README) if words[0].startswith("scripts/")]
PYTHON = blocks(README, "python")


def test_something_is_shown() -> None:
    assert OURS
    assert SCRIPTS
    assert PYTHON
    assert links(README)


@pytest.mark.parametrize("code", PYTHON)
def test_python_runs(code: str, tmp_path: Path) -> None:
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "restored.jpg").stat().st_size > 0


@pytest.mark.parametrize("page", GUIDES)
def test_python_of_the_guides_imports_what_there_is(page: str) -> None:
    for code in blocks(GUIDES[page], "python"):
        imports = [node for node in ast.parse(code).body if isinstance(node, ast.Import | ast.ImportFrom)]
        exec(compile(ast.Module(imports, []), page, "exec"), {})


@pytest.mark.parametrize("words", OURS, ids=" ".join)
def test_commands_and_their_options_exist(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    command = list(takewhile(lambda word: not word.startswith("-"), words[1:]))
    assert main([*command, "--help"]) == 0
    offered = set(re.findall(r"(?<![\w-])--?[a-z][\w-]*", capsys.readouterr().out))
    assert {word for word in words if word.startswith("-")} <= offered


@pytest.mark.parametrize("script", SCRIPTS)
def test_scripts_can_be_run(script: str) -> None:
    assert (ROOT / script).stat().st_mode & 0o100


@pytest.mark.parametrize("target", links(README))
def test_links_lead_somewhere(target: str) -> None:
    assert (ROOT / target.partition("#")[0]).exists()


@pytest.mark.parametrize(
    ("page", "target"), [(page, target) for page, text in GUIDES.items() for target in links(text)]
)
def test_links_of_the_guides_lead_somewhere(page: str, target: str) -> None:
    assert (ROOT / "docs" / page).parent.joinpath(target.partition("#")[0]).exists()


def test_the_sections_of_the_readme_are_in_order() -> None:
    assert tuple(re.findall(r"^## (.+)$", README, re.MULTILINE)) == SECTIONS


def test_the_readme_shows_the_figures_of_the_benchmark() -> None:
    """The quality in the table of packs is the mean that docs/cleanup.md, which a command writes, has."""
    page = (ROOT / "docs/cleanup.md").read_text(encoding="utf-8")
    measured = page.partition("\n## All photos\n")[2].partition("\n## ")[0]
    means = {row[1]: (row[2], row[5]) for row in rows(measured) if row[0] == "mean of all"}
    shown = rows(README.partition("<!-- packs -->")[2].partition("<!-- /packs -->")[0])
    methods = ("DTPM", "predictor alone", "fastNlMeans", "input")
    assert [tuple(row[4:]) for row in shown] == [means[method] for method in methods]


def test_the_readme_shows_the_size_of_the_pack() -> None:
    folder = ROOT / "core/packs/cleanup"
    bytes_ = sum(path.stat().st_size for path in folder.iterdir())
    parameters = Manifest.load(folder).parameters
    count = sum(number for graph, number in parameters.items() if graph != "fused")
    assert f"{bytes_ / 1e6:.1f} MB, {count / 1e6:.1f} M parameters" in README


def test_the_index_lists_every_command() -> None:
    table = GUIDES["index.md"].partition("\n## Commands\n")[2]
    assert sorted(row[0].strip("`") for row in rows(table)) == sorted(COMMANDS)


def test_the_index_lists_every_page() -> None:
    pages = {path.name for path in (ROOT / "docs").glob("*.md")} - {"index.md"}
    assert pages <= set(links(GUIDES["index.md"]))


def test_every_stage_is_shown() -> None:
    shown = {tuple(words[2:4]) for words in OURS if words[1] == "train"}
    assert {(system, stage) for system, stages in SYSTEMS.items() for stage in stages} - {("dtpm", "finish")} <= shown


def test_example_photos_are_credited_and_small() -> None:
    photos = [path for path in sorted((ROOT / "examples").glob("*.jpg")) if path.name.count(".") == 1]  # no results
    credits = (ROOT / "examples/CREDITS.md").read_text(encoding="utf-8")
    assert photos
    assert [photo.name for photo in photos if f"`{photo.name}`" not in credits] == []
    assert [photo.name for photo in photos if photo.stat().st_size > 300_000] == []
