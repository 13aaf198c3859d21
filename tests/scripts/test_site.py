"""The docs site: what scripts/site/pages.py adds to docs/, and what makes `scripts/docs` fail."""

from __future__ import annotations

import zlib
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from mkdocs.exceptions import PluginError

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def pages() -> ModuleType:
    spec = spec_from_file_location("site_pages", ROOT / "scripts/site/pages.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("text", "place", "expected"),
    [
        ("[how](docs/training.md#fewer-steps)", "README.md", "[how](training.md#fewer-steps)"),
        ("![a photo](docs/a.jpg)", "README.md", "![a photo](a.jpg)"),
        ("[the rules](../CONTRIBUTING.md)", "docs/index.md", "[the rules](contributing.md)"),
        ("[`dtpm.py`](../core/models/dtpm.py) has it", "docs/models.md", "`dtpm.py` has it"),
        ("[here](#below)", "docs/models.md", "[here](#below)"),
        ("[form](https://keepachangelog.com)", "CHANGELOG.md", "[form](https://keepachangelog.com)"),
        ("```python\nTASKS[x](grey)\n```", "CONTRIBUTING.md", "```python\nTASKS[x](grey)\n```"),
    ],
)
def test_links_lead_to_the_pages_of_the_site(pages: ModuleType, text: str, place: str, expected: str) -> None:
    assert pages.linked(text, place) == expected


def test_a_command_page_shows_every_argument(pages: ModuleType) -> None:
    page = "\n".join(pages.command_page(["verify"]))
    assert page.startswith("# pocketprior verify\n")
    arguments = {string for action in pages.parser_of(["verify"])._actions for string in action.option_strings}
    assert [argument for argument in arguments - {"-h", "--help"} if argument not in page] == []


def test_a_command_page_shows_the_commands_below_it(pages: ModuleType) -> None:
    assert {"quality", "speed"} <= set(pages.below(pages.parser_of(["bench"])))


def test_a_command_without_a_parser_is_an_error(pages: ModuleType) -> None:
    with pytest.raises(PluginError, match="pocketprior nonsense --help"):
        pages.parser_of(["nonsense"])


def test_names_that_a_module_only_passes_on_are_documented_once(pages: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "x.py").write_text("from .y import Other\n__all__ = ['LIMIT', 'Other', 'f']\nLIMIT = 1\n")
    assert pages.public_names(tmp_path / "x.py") == ["LIMIT", "f"]


def test_every_folder_with_public_names_has_a_page(pages: ModuleType) -> None:
    assert {"reference/core.photo.md", "reference/kernels.md", "reference/runtimes.md"} <= set(pages.reference())


def test_a_page_that_loads_something_from_the_web_is_refused(pages: ModuleType) -> None:
    page = SimpleNamespace(file=SimpleNamespace(src_uri="index.md"))
    linked = '<a href="https://example.org">a link may lead to the web</a><img src="a.jpg">'
    assert pages.on_post_page(linked, page) == linked
    for loaded in ('<script src="https://example.org/a.js">', '<link rel="x" href="https://example.org/a.css">'):
        with pytest.raises(PluginError, match=r"index\.md loads https://example\.org/a"):
            pages.on_post_page(loaded, page)


def test_a_public_name_without_an_entry_is_refused(pages: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "objects.inv").write_bytes(b"#1\n#2\n#3\n#4\n" + zlib.compress(b"pocketprior.core.x py:module 1 x -\n"))
    with pytest.raises(PluginError, match="public names have no entry"):
        pages.on_post_build(SimpleNamespace(site_dir=str(tmp_path)))
