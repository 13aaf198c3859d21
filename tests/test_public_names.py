"""`__all__` says what a module offers: it is sorted, each name exists, no public function or class is left out.

The constants of a module may stay out of it: they are its domain's numbers, named for the reader.
"""

from __future__ import annotations

import ast
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

import pytest

import pocketprior

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("core", "kernels", "distill", "export", "runtimes", "pocketprior")


def declared(tree: ast.Module) -> list[str] | None:
    """The names in `__all__`, None for a module without it."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and any(ast.unparse(target) == "__all__" for target in node.targets):
            return list(ast.literal_eval(node.value))
    return None


def callables(tree: ast.Module) -> set[str]:
    """The functions and classes that a module defines at top level."""
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}


def constants(tree: ast.Module) -> set[str]:
    """The names that a module's assignments bind at top level."""
    assigned = [node.targets for node in tree.body if isinstance(node, ast.Assign)]
    annotated = [[node.target] for node in tree.body if isinstance(node, ast.AnnAssign)]
    targets = [target for group in assigned + annotated for target in group]
    return {name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)}


def reexported(tree: ast.Module) -> set[str]:
    """The names that a package's `__init__` takes from its own modules, at once or (for type checkers) on first use."""
    blocks = [tree.body, *(node.body for node in tree.body if isinstance(node, ast.If))]
    froms = [node for block in blocks for node in block if isinstance(node, ast.ImportFrom) and node.level]
    return {alias.asname or alias.name for node in froms for alias in node.names}


def in_order(name: str) -> tuple[int, str]:
    """CONSTANTS, then Classes, then functions: the order ruff keeps (RUF022)."""
    return (0 if name.isupper() and len(name) > 1 else 1 if name[:1].isupper() else 2, name)


def faults(path: Path) -> list[str]:
    """What is wrong with the `__all__` of one file; a module without `__all__` has no faults."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names = declared(tree)
    if names is None:
        return []
    own = {name for name in callables(tree) if not name.startswith("_")}
    there = own | constants(tree) | reexported(tree)
    wrong = [f"'{name}' stands twice" for name in sorted({name for name in names if names.count(name) > 1})]
    wrong += [f"'{name}' is not defined here" for name in sorted(set(names) - there)]
    wrong += [f"'{name}' is public but not in __all__: add it or start it with _" for name in sorted(own - set(names))]
    return wrong + ([] if names == sorted(names, key=in_order) else [f"not sorted: {sorted(names, key=in_order)}"])


PLACES = sorted(path.relative_to(ROOT).as_posix() for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))


@pytest.mark.parametrize("place", PLACES)
def test_all_is_sorted_and_complete(place: str) -> None:
    assert faults(ROOT / place) == []


def test_the_face_offers_what_it_names() -> None:
    assert {"Restorer", "__version__"} <= set(pocketprior.__all__)
    assert [name for name in pocketprior.__all__ if not hasattr(pocketprior, name)] == []


def test_the_face_knows_its_version() -> None:
    assert version("pocketprior") == pocketprior.__version__


def test_every_error_is_public() -> None:
    errors = import_module("pocketprior.core.errors")
    kinds = {name for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, Exception)}
    assert kinds == {name for name in errors.__all__ if isinstance(vars(errors)[name], type)}


@pytest.mark.parametrize(
    ("code", "fault"),
    [
        ("__all__ = ['b', 'a']\na = b = 1", "not sorted"),
        ("__all__ = ['a', 'B']\na = 1\nclass B: ...", "not sorted"),
        ("__all__ = ['a']\ndef a(): ...\ndef b(): ...", "'b' is public"),
        ("__all__ = ['a']\nclass A: ...\na = 1", "'A' is public"),
        ("__all__ = ['a', 'b']\na: int = 1", "'b' is not defined"),
        ("__all__ = ['a', 'a']\na = 1", "'a' stands twice"),
    ],
)
def test_a_planted_fault_is_found(tmp_path: Path, code: str, fault: str) -> None:
    (tmp_path / "x.py").write_text(code)
    assert [found for found in faults(tmp_path / "x.py") if fault in found]


def test_a_good_module_has_no_faults(tmp_path: Path) -> None:
    lines = [
        "__all__ = ['A', 'B', 'c']",
        "from .y import c",
        "A: int = 1",
        "class B: ...",
        "D = _e = 2",
        "def _f(): ...",
    ]
    (tmp_path / "x.py").write_text("\n".join(lines))
    assert faults(tmp_path / "x.py") == []
