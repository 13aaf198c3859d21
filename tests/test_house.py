"""The rules of the house, as CONTRIBUTING.md lists them; a planted breach shows that each can fail.

A rule takes a root folder and returns one line per breach. Rule 5, who may import whom, is tests/test_layers.py.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path

import pytest
import test_layers

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("core", "kernels", "distill", "export", "runtimes")
HALVES_OF_CORE = ("core.models", "core.training")  # these import torch: layers of their own

# In the five layers.
MOST_FILES, MOST_LINES = 240, 33_500
COMMAND_LINES = 150
LEAST_FILE_LINES, MOST_FILE_LINES = 40, 400

SYSTEMS = ("dtpm", "diffir", "gen2res")
TARGETS = ("onnx", "openvino", "coreml", "ncnn", "litert")
# The base names that may occur in several layers: one file per system and per target in each layer, and thresholds.
SHARED_NAMES = frozenset({*SYSTEMS, *TARGETS, "limits"})
# The class and constant names that modules have in common because a protocol asks for them; what they mean is the same.
SHARED_DEFINITIONS = {
    "CASES": "kernels: the shapes that an op is verified on",
    "CONFIGS": "core.models: the sizes of a system",
    "SOURCE": "export.systems: how a system's checkpoints are opened",
    "SYSTEMS": "the systems that something works for",
    "TARGET": "export.targets: the record of a target",
    "TARGETS": "the targets that something works for",
}
# Names with a refused word in them that files on disk contain, so they stay; see the glossary in CONTRIBUTING.md.
FROZEN_NAMES = frozenset({"pictures"})  # a field of the files of parity references

# docs/PAGE.md: the command that writes it or its tables; EXECUTED where tests/test_readme.py runs what it shows; RECORD
# for a decision whose losing side is gone from the code. All but EXECUTED must stand in the page.
EXECUTED = "executed"
RECORD = "**Status: decided"
PAGES = {
    "index": EXECUTED,
    "build": EXECUTED,
    "cleanup": "pocketprior bench quality",
    "degradations": "scripts/degradation_gallery.py",
    "design-choice": "pocketprior bench design",
    "distillation": "pocketprior bench students",
    "edge-blocks": RECORD,
    "export": EXECUTED,
    "kernels": "scripts/gpu",
    "models": EXECUTED,
    "parity": EXECUTED,
    "personalize": EXECUTED,
    "quantization": EXECUTED,
    "results": "pocketprior evaluate",
    "training": EXECUTED,
}
EXAMPLES = ("a runtime", "a task", "an export target", "a system")
THRESHOLD_WORDS = ("slack", "threshold", "tolerance")


def sources(root: Path, folders: Iterable[str] = FOLDERS) -> list[Path]:
    return sorted(path for folder in folders for path in (root / folder).rglob("*.py"))


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


@cache
def parsed(text: str) -> ast.Module:
    return ast.parse(text)


def tree_of(path: Path) -> ast.Module:
    return parsed(read(path))


def place(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix()


def layer_of(path: Path, root: Path) -> str:
    """'core', 'core.models', 'core.training', 'kernels', 'distill', 'export' or 'runtimes'."""
    parts = path.relative_to(root).parts
    return ".".join(parts[:2]) if ".".join(parts[:2]) in HALVES_OF_CORE else parts[0]


def line_count(path: Path) -> int:
    return len(read(path).splitlines())


def assigned(tree: ast.Module) -> Iterator[tuple[str, ast.stmt]]:
    """(name, statement) of each assignment at the top of a module."""
    for node in tree.body:
        if isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names = [name for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)]
            yield from ((name.id, node) for name in names if isinstance(name.ctx, ast.Store))


def constants(tree: ast.Module) -> dict[str, ast.stmt]:
    return {name: node for name, node in assigned(tree) if name.isupper() and not name.startswith("_")}


def value_of(tree: ast.Module, name: str) -> ast.expr | None:
    """What a module assigns to `name`, last."""
    values = [node.value for found, node in assigned(tree) if found == name]  # type: ignore[attr-defined]
    return values[-1] if values else None


# -- size


def excess(root: Path) -> list[str]:
    files = sources(root)
    lines = sum(map(line_count, files))
    found = [f"{len(files)} Python files, at most {MOST_FILES}"] if len(files) > MOST_FILES else []
    return found + ([f"{lines} lines, at most {MOST_LINES}"] if lines > MOST_LINES else [])


# -- 1: a command is <layer>/commands/<name>.py, short, and in the table


def command_modules(root: Path) -> dict[str, str]:
    """Command -> the module that COMMANDS in core/cli.py names for it, such as 'core.commands.restore'."""
    table = value_of(tree_of(root / "core/cli.py"), "COMMANDS")
    assert isinstance(table, ast.Dict), "core/cli.py has no table COMMANDS"
    found = {}
    for key, value in zip(table.keys, table.values, strict=True):
        strings = [str(node.value) for node in ast.walk(value) if isinstance(node, ast.Constant)]
        found[ast.literal_eval(key)] = next(string for string in strings if re.fullmatch(r"\w+(\.\w+)+", string))
    return found


def command_breaches(root: Path) -> list[str]:
    table = command_modules(root)
    files = {module: root / f"{module.replace('.', '/')}.py" for module in table.values()}
    found = []
    for command, module in table.items():
        layer, _, name = module.rpartition(".commands.")
        words = command.replace("-", " ").replace(" ", "_")
        if layer not in (*FOLDERS, *HALVES_OF_CORE) or name not in (words, words.rpartition("_")[2]):
            found.append(f"'{command}' is {module}, not LAYER.commands.{words}")
        if not files[module].is_file():
            found.append(f"'{command}' is {module}, which does not exist")
        elif line_count(files[module]) > COMMAND_LINES:
            found.append(f"{place(files[module], root)} has {line_count(files[module])} lines, at most {COMMAND_LINES}")
    in_folders = [path for path in sources(root) if path.parent.name == "commands" and path.stem != "__init__"]
    known = set(files.values())
    return found + [f"{place(path, root)} is not in COMMANDS" for path in in_folders if path not in known]


# -- 2: base names


def named_files(root: Path) -> list[Path]:
    return [path for path in sources(root) if path.stem != "__init__" and path.parent.name != "commands"]


def repeated_in_a_layer(root: Path) -> list[str]:
    places: dict[tuple[str, str], list[str]] = defaultdict(list)
    for path in named_files(root):
        places[layer_of(path, root), path.stem].append(place(path, root))
    return [f"{name} occurs twice in {layer}: {', '.join(p)}" for (layer, name), p in places.items() if len(p) > 1]


def repeated_across_layers(root: Path) -> list[str]:
    layers: dict[str, set[str]] = defaultdict(set)
    for path in named_files(root):
        layers[path.stem].add(layer_of(path, root))
    several = {name: places for name, places in layers.items() if len(places) > 1 and name not in SHARED_NAMES}
    return [f"{name} occurs in {', '.join(sorted(places))}" for name, places in several.items()]


# -- 3: class and constant names


def offered(tree: ast.Module) -> set[str]:
    """The public names of a module: those in its `__all__`."""
    names = value_of(tree, "__all__")
    return set(ast.literal_eval(names)) if names else set()


def definitions(root: Path) -> dict[str, list[str]]:
    """Name -> the files that define it, for classes and constants; a constant outside `__all__` is its module's own."""
    places: dict[str, list[str]] = defaultdict(list)
    for path in sources(root):
        tree = tree_of(path)
        classes = {node.name for node in tree.body if isinstance(node, ast.ClassDef) and not node.name.startswith("_")}
        for name in classes | (offered(tree) & set(constants(tree))):
            places[name].append(place(path, root))
    return places


def repeated_definitions(root: Path) -> list[str]:
    several = {name: found for name, found in definitions(root).items() if len(found) > 1}
    return [
        f"{name} is defined in {', '.join(several[name])}"
        for name in sorted(several.keys() - SHARED_DEFINITIONS.keys())
    ]


# -- 4: file sizes


def is_record(node: ast.stmt) -> bool:
    """A class without behaviour of its own: a protocol, a record or an error."""
    if not isinstance(node, ast.ClassDef):
        return False
    kinds = {ast.unparse(base).partition("[")[0].rpartition(".")[2] for base in node.bases}
    decorators = {ast.unparse(decorator).partition("(")[0] for decorator in node.decorator_list}
    records = {"Protocol", "NamedTuple", "TypedDict", "Enum", "StrEnum", "IntEnum"}
    return bool(kinds & records) or "dataclass" in decorators or any(kind.endswith("Error") for kind in kinds)


def only_records(tree: ast.Module) -> bool:
    """Whether a module defines protocols, records and constants, and nothing that computes."""
    return all(is_record(node) for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef))


def file_size_breaches(root: Path) -> list[str]:
    found = []
    for path in sources(root):
        lines = line_count(path)
        if LEAST_FILE_LINES <= lines <= MOST_FILE_LINES or only_records(tree_of(path)):
            continue
        if path.stem in ("__init__", "limits") or path.parent.name == "commands":  # rules 9 and 1 ask for them
            continue
        bound = f"at least {LEAST_FILE_LINES}" if lines < LEAST_FILE_LINES else f"at most {MOST_FILE_LINES}"
        found.append(f"{place(path, root)} has {lines} lines, {bound}")
    return found


# -- 6: words


def refused_words(root: Path) -> list[str]:
    """What the glossary of CONTRIBUTING.md refuses in identifiers: the words in code font of its second column."""
    _, _, section = f"\n{read(root / 'CONTRIBUTING.md')}".partition("\n## Words\n")
    rows = re.findall(r"^\|[^|\n]*\|([^|\n]*)\|", section.partition("\n## ")[0], re.MULTILINE)
    return [word for row in rows for word in re.findall(r"`(\w+)`", row)]


def identifiers(tree: ast.Module) -> set[str]:
    """Every name that a module defines, takes or uses."""
    names = (getattr(node, field, None) for node in ast.walk(tree) for field in ("name", "attr", "id", "arg", "asname"))
    return {part for name in names if isinstance(name, str) for part in name.split(".")}


def parts_of(identifier: str) -> str:
    """'eight_bits' -> '_eight_bits_', 'FloatLeg' -> '_float_leg_'."""
    return f"_{'_'.join(re.findall(r'[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+', identifier)).lower()}_"


def refused_identifiers(root: Path) -> list[str]:
    refused = refused_words(root)
    found = []
    for path in sources(root):
        named = {*path.relative_to(root).with_suffix("").parts, *identifiers(tree_of(path))}
        for name in sorted(named - FROZEN_NAMES):
            found += [f"{place(path, root)}: {name} ({word})" for word in refused if f"_{word}_" in parts_of(name)]
    return found


# -- 7: docstrings


def docstring_breaches(root: Path) -> list[str]:
    """What ruff's pydocstyle rules (D), in Google's convention as pyproject.toml sets it, say of the layers."""
    folders = [folder for folder in (*FOLDERS, "pocketprior") if (root / folder).is_dir()]
    ruff = [Path(sys.executable).with_name("ruff"), "check", "--quiet", "--no-cache", "--output-format", "concise"]
    command = [*ruff, "--config", ROOT / "pyproject.toml", *folders]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode in (0, 1), done.stderr
    return [line for line in done.stdout.splitlines() if re.search(r": D\d+ ", line)]


# -- 8: docs pages


def tables(text: str) -> Iterator[tuple[str, str]]:
    """(table, text of its section) of each table of a page; a section ends at the next heading."""
    fenced = re.sub(r"^```.*?^```", lambda block: block[0].replace("#", ""), text, flags=re.MULTILINE | re.DOTALL)
    for section in re.split(r"^(?=#+ )", fenced, flags=re.MULTILINE):
        yield from ((table, section) for table in re.findall(r"(?:^\|.*\n?)+", section, re.MULTILINE))


def has_figures(table: str) -> bool:
    """Whether most cells of a table, but for its first column and head, are numbers."""
    rows = [line.strip().strip("|").split("|")[1:] for line in table.splitlines()[2:]]
    cells = [cell.strip(" *`") for row in rows for cell in row]
    return sum(bool(re.match(r"[^\w\s]?\s?\d", cell)) for cell in cells) * 2 > len(cells)


def unproved_pages(root: Path) -> list[str]:
    """Pages that nothing makes or runs, pages that do not name what makes them, tables of figures without a command."""
    pages = {path.stem: read(path) for path in sorted((root / "docs").glob("*.md"))}
    found = [f"docs/{name}.md is neither generated nor executed" for name in pages if name not in PAGES]
    for name in sorted(pages.keys() & PAGES.keys()):
        how, text = PAGES[name], pages[name]
        if how == EXECUTED and not re.search(r"^```(bash|python)\n", text, re.MULTILINE):
            found.append(f"docs/{name}.md shows nothing that can be executed")
        if how != EXECUTED and how not in text:
            found.append(f"docs/{name}.md does not say '{how}'")
        figures = [section for table, section in tables(text) if how == EXECUTED and has_figures(table)]
        commands = r"\b(pocketprior [a-z]|python -m |pytest )|\bscripts/\w|^```bash"
        bare = [section for section in figures if not re.search(commands, section, re.MULTILINE)]
        found += [f"docs/{name}.md: the table in '{s.splitlines()[0].strip('# ')}' names no command" for s in bare]
    return found


# -- 9: thresholds


def has_reason(text: str, node: ast.stmt) -> bool:
    """Whether a comment stands in the lines of a statement, or right above it."""
    above, lines = text.splitlines()[: node.lineno - 1][-1:], text.splitlines()[node.lineno - 1 : node.end_lineno]
    return any("#" in line for line in lines) or any(line.startswith("#") for line in above)


def threshold_breaches(root: Path) -> list[str]:
    """Limits without a reason or a test, and thresholds outside limits.py."""
    tests = [path for path in sources(root, ["tests"]) if path.name != "test_house.py"]
    tested = {name for path in tests for name in identifiers(tree_of(path))}
    found = []
    for path in sources(root):
        for name, node in constants(tree_of(path)).items():
            at = f"{place(path, root)}: {name}"
            if path.stem != "limits":
                outside = any(f"_{word}_" in parts_of(name) for word in THRESHOLD_WORDS)
                found += [f"{at} belongs into limits.py"] if outside else []
                continue
            found += [] if has_reason(read(path), node) else [f"{at} has no comment with its reason"]
            found += [] if name in tested else [f"{at} is used by no test"]
    return found


def layers_without_limits(root: Path) -> list[str]:
    having = {layer_of(path, root) for path in sources(root) if path.stem == "limits"}
    return [f"{layer} has no limits.py" for layer in ("distill", "export", "runtimes") if layer not in having]


# -- 10: CONTRIBUTING's examples


def unexecuted_examples(root: Path) -> list[str]:
    """Examples that should be on the page and are not, or that tests/test_contributing.py does not carry out."""
    shown = re.findall(r"^## Example: (.+)$", read(root / "CONTRIBUTING.md"), re.MULTILINE)
    calls = (node for node in ast.walk(tree_of(root / "tests/test_contributing.py")) if isinstance(node, ast.Call))
    run = {ast.literal_eval(call.args[0]) for call in calls if ast.unparse(call.func) == "example"}
    return [f"no example: {name}" for name in EXAMPLES if name not in shown] + [
        f"the example '{name}' is not executed" for name in shown if name not in run
    ]


RULES: dict[str, Callable[[Path], list[str]]] = {
    "size": excess,
    "1 commands": command_breaches,
    "2 names within a layer": repeated_in_a_layer,
    "2 names across layers": repeated_across_layers,
    "3 classes and constants": repeated_definitions,
    "4 file sizes": file_size_breaches,
    "5 layers": test_layers.offences,
    "6 words": refused_identifiers,
    "7 docstrings": docstring_breaches,
    "8 pages": unproved_pages,
    "9 thresholds": threshold_breaches,
    "9 limits": layers_without_limits,
    "10 examples": unexecuted_examples,
}


@pytest.mark.parametrize("rule", RULES)
def test_the_rule_holds(rule: str) -> None:
    found = RULES[rule](ROOT)
    assert not found, "\n".join([f"{len(found)} breaches:", *found])


def test_the_lists_of_exceptions_are_in_use() -> None:
    """An exception that nothing needs any more is a hole."""
    names = {name for path in sources(ROOT) for name in identifiers(tree_of(path))}
    stems = {path.stem for path in named_files(ROOT)}
    defined = definitions(ROOT)
    assert [name for name in SHARED_DEFINITIONS if len(defined.get(name, ())) < 2] == []
    assert sorted(FROZEN_NAMES - names) == []
    assert sorted({*SYSTEMS, "limits"} - stems) == []
    assert sorted(PAGES.keys() - {path.stem for path in (ROOT / "docs").glob("*.md")}) == []


CLI = "COMMANDS = {'restore': ('core.commands.restore', 'restore photos')}\n"
FILLED = "x = 1\n" * LEAST_FILE_LINES
PAGE = "## Words\n\n| say | not | meaning |\n| --- | --- | --- |\n| variant | `leg`, `eight_bits`, arm | one of |\n"
SHOWN = "".join(f"## Example: {name}\n" for name in EXAMPLES)
CARRIED_OUT = "".join(f"example({name!r})\n" for name in EXAMPLES)
GOOD = {
    "core/cli.py": '"""The command line."""\n\n' + CLI + FILLED,
    "core/commands/restore.py": '"""Restore photos."""\n\n' + FILLED,
    "core/photo/io.py": '"""Files."""\n\n__all__ = ["LEAST"]\n\nLEAST = 1\n' + FILLED,
    "core/errors.py": '"""Errors."""\n\n\nclass BadError(ValueError):\n    """A fault."""\n',
    "distill/limits.py": '"""Thresholds."""\n\nLEAST_PSNR = 30  # dB; below it the eye sees noise\n' + FILLED,
    "export/limits.py": '"""Thresholds."""\n\n' + FILLED,
    "runtimes/limits.py": '"""Thresholds."""\n\n' + FILLED,
    "CONTRIBUTING.md": PAGE + SHOWN,
    "docs/build.md": "# Build\n\n| pack | dB |\n| - | - |\n| a | 31.2 |\n\n```bash\npocketprior build x.toml\n```\n",
    "tests/test_x.py": "def test_x():\n    assert LEAST_PSNR\n",
    "tests/test_contributing.py": CARRIED_OUT,
}
# rule, file, what is written at its end (a whole file where there is none), what the rule says
PLANTED = {
    "too many lines": ("size", "core/photo/io.py", "x = 1\n" * MOST_LINES, f"lines, at most {MOST_LINES}"),
    "a command elsewhere": (
        "1 commands",
        "core/cli.py",
        "COMMANDS = {'info': ('core.info', '')}",
        "not LAYER.commands.info",
    ),
    "a command of another name": (
        "1 commands",
        "core/cli.py",
        "COMMANDS = {'info': ('core.commands.restore', '')}",
        "not LAYER.commands.info",
    ),
    "a long command": ("1 commands", "core/commands/restore.py", FILLED * 4, "lines, at most 150"),
    "a helper among the commands": ("1 commands", "core/commands/jobs.py", FILLED, "is not in COMMANDS"),
    "two files of one name": ("2 names within a layer", "core/pack/io.py", FILLED, "io occurs twice in core"),
    "a name of another layer": ("2 names across layers", "core/models/io.py", FILLED, "io occurs in core, core.models"),
    "a class twice": (
        "3 classes and constants",
        "export/x.py",
        "class BadError(ValueError): ...",
        "BadError is defined in",
    ),
    "a constant twice": (
        "3 classes and constants",
        "export/x.py",
        "__all__ = ['LEAST']\nLEAST = 2",
        "LEAST is defined in",
    ),
    "a thin file": ("4 file sizes", "export/x.py", "def f(): ...", "has 1 lines, at least 40"),
    "a thick file": ("4 file sizes", "export/x.py", "def f(): ...\n" * 401, "has 401 lines, at most 400"),
    "records with a function": ("4 file sizes", "core/errors.py", "def f(): ...\n", "has 6 lines, at least 40"),
    "an import upwards": ("5 layers", "core/x.py", "from ..export import pack", "imports export"),
    "a refused variable": ("6 words", "export/x.py", "first_leg = 1", "first_leg (leg)"),
    "a refused class": ("6 words", "export/x.py", "class FloatLeg: ...", "FloatLeg (leg)"),
    "a refused argument": ("6 words", "export/x.py", "def f(*, in_eight_bits): ...", "in_eight_bits (eight_bits)"),
    "a refused file": ("6 words", "export/leg.py", "", "leg (leg)"),
    "no docstring": ("7 docstrings", "core/errors.py", "def f() -> int:\n    return 1\n", "D103"),
    "a section in lower case": (
        "7 docstrings",
        "core/photo/io.py",
        'def f(a: int) -> int:\n    """Return it.\n\n    args:\n        a: One.\n    """\n    return a\n',
        "D405",
    ),
    "an argument that the section leaves out": (
        "7 docstrings",
        "core/photo/io.py",
        'def f(a: int, b: int) -> int:\n    """Return it.\n\n    Args:\n        a: One.\n    """\n    return a + b\n',
        "D417",
    ),
    "an unknown page": ("8 pages", "docs/dreams.md", "# Dreams", "neither generated nor executed"),
    "a page without its command": (
        "8 pages",
        "docs/results.md",
        "# Results",
        "does not say 'pocketprior evaluate'",
    ),
    "a page with nothing to run": ("8 pages", "docs/export.md", "# Export", "nothing that can be executed"),
    "figures from nowhere": (
        "8 pages",
        "docs/build.md",
        "## More\n\n| a | dB |\n| --- | --- |\n| b | 30 |\n",
        "names no command",
    ),
    "a limit without a reason": ("9 thresholds", "export/limits.py", "LEAST_PSNR = 1", "has no comment"),
    "a limit that no test breaks": (
        "9 thresholds",
        "export/limits.py",
        "MOST = 1  # dB; why",
        "MOST is used by no test",
    ),
    "two limits in a line": ("9 thresholds", "export/limits.py", "MOST, A = 1, 2  # dB", "MOST is used by no test"),
    "a threshold elsewhere": ("9 thresholds", "export/x.py", "PIXEL_SLACK = 3", "belongs into limits.py"),
    "an example that nothing runs": ("10 examples", "CONTRIBUTING.md", "## Example: a metric\n", "is not executed"),
}


def build(root: Path) -> None:
    """A small tree that keeps every rule."""
    for name, text in GOOD.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
        for folder in (root / name).relative_to(root).parents:
            if folder.parts[:1] and folder.parts[0] in FOLDERS:
                (root / folder / "__init__.py").write_text(f'"""The folder {folder}."""\n', encoding="utf-8")


@pytest.mark.parametrize("rule", RULES)
def test_a_good_tree_keeps_the_rule(tmp_path: Path, rule: str) -> None:
    build(tmp_path)
    assert RULES[rule](tmp_path) == []


@pytest.mark.parametrize(("rule", "name", "text", "expected"), PLANTED.values(), ids=PLANTED)
def test_a_planted_breach_is_found(tmp_path: Path, rule: str, name: str, text: str, expected: str) -> None:
    build(tmp_path)
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    with (tmp_path / name).open("a", encoding="utf-8") as file:
        file.write(text)
    assert [line for line in RULES[rule](tmp_path) if expected in line]


def test_too_many_files_are_found(tmp_path: Path) -> None:
    build(tmp_path)
    for number in range(MOST_FILES):
        (tmp_path / f"core/x{number}.py").touch()
    assert excess(tmp_path) == [f"{len(sources(tmp_path))} Python files, at most {MOST_FILES}"]


def test_a_missing_example_and_a_missing_file_of_limits_are_found(tmp_path: Path) -> None:
    build(tmp_path)
    (tmp_path / "CONTRIBUTING.md").write_text("## Example: a task\n", encoding="utf-8")
    (tmp_path / "runtimes/limits.py").unlink()
    assert "no example: a system" in unexecuted_examples(tmp_path)
    assert layers_without_limits(tmp_path) == ["runtimes has no limits.py"]


def test_every_rule_has_a_planted_breach() -> None:
    assert set(RULES) - {rule for rule, *_ in PLANTED.values()} == {"9 limits"}  # that one is above
