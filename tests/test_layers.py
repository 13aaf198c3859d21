"""Who may import whom: every import statement against the table of layers, and no torch in what runs on a phone."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "pocketprior"
FOLDERS = ("core", "kernels", "distill", "export", "runtimes", PACKAGE)
RUNTIME_LIBRARIES = frozenset({"onnxruntime", "openvino", "coremltools", "executorch", "litert", "ncnn", "MNN"})
TORCH = frozenset({"torch", "torchvision", "triton", "accelerate", "safetensors.torch"})

# The table of the design, row by row. layer: the layers it may import besides itself; the longest name that fits a
# module is its layer.
MAY_IMPORT: dict[str, frozenset[str]] = {
    "core": frozenset(),
    "kernels": frozenset(),
    "core.models": frozenset({"core", "kernels"}),
    "core.training": frozenset({"core", "core.models"}),
    "distill": frozenset({"core", "core.models", "core.training"}),
    "export": frozenset({"core", "core.models", "core.training", "distill"}),
    "runtimes": frozenset({"core"}),
    PACKAGE: frozenset({"core"}),
}
MUST_NOT_LOAD: dict[str, frozenset[str]] = {
    "core": TORCH | RUNTIME_LIBRARIES,
    "kernels": RUNTIME_LIBRARIES,
    "core.models": RUNTIME_LIBRARIES,
    "core.training": RUNTIME_LIBRARIES,
    "distill": RUNTIME_LIBRARIES,
    "export": frozenset(),
    "runtimes": TORCH,
    PACKAGE: TORCH | RUNTIME_LIBRARIES,
}
# What is bound late, by name, on purpose: the command table names commands, restoring opens a runtime, `info --model`
# counts a network. file: the modules that its strings may name.
LATE_BOUND: dict[str, str] = {
    "core/cli.py": r"(\w+\.)+commands\.\w+",
    "core/commands/info.py": r"core\.models\.\w+",
    "core/restore/restorer.py": r"runtimes",
}
NAMED = re.compile(rf"(?:{PACKAGE}\.|\.+|(?=(?:core|kernels|distill|export|runtimes)\.))([a-z_]\w*(?:\.[a-z_]\w*)*)\.?")


def layer_of(module: str) -> str | None:
    """The layer of a module named without the package: 'core.models.dtpm' -> 'core.models'."""
    fits = [layer for layer in MAY_IMPORT if module == layer or module.startswith(f"{layer}.")]
    return max(fits, key=len, default=None)


def module_name(path: Path, root: Path) -> str:
    """'core/sampling/noise.py' -> 'core.sampling.noise', 'core/__init__.py' -> 'core'."""
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def sources(root: Path) -> list[Path]:
    return sorted(path for folder in FOLDERS for path in (root / folder).rglob("*.py"))


def absolute(node: ast.ImportFrom, path: Path, root: Path) -> str:
    """The module a relative import starts from, with the package: in core/x.py 'from .y' -> 'pocketprior.core.y'."""
    folder = path.relative_to(root).parent.parts
    here = folder if folder[:1] == (PACKAGE,) else (PACKAGE, *folder)
    base = here[: len(here) - node.level + 1]
    return ".".join((*base, node.module) if node.module else base)


def imported(path: Path, root: Path) -> Iterator[tuple[int, str, bool]]:
    """(line, absolute module, is it relative) of each import anywhere in a file, also inside functions."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name, False) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = absolute(node, path, root) if node.level else str(node.module)
            yield from ((node.lineno, f"{module}.{alias.name}", node.level > 0) for alias in node.names)


def resolved(name: str, path: Path, root: Path) -> str:
    """The module that a string names, without the package: in core/x.py '.y' -> 'core.y', 'export.y' -> 'export.y'."""
    (inner,) = NAMED.fullmatch(name).groups()
    dots = len(name) - len(name.lstrip("."))
    folder = path.relative_to(root).parent.parts
    return ".".join((*folder[: len(folder) - dots + 1], inner)) if 0 < dots <= len(folder) else inner


def named_in_strings(path: Path, root: Path) -> Iterator[tuple[int, str]]:
    """(line, module) of each string that names a module of ours: 'pocketprior.export', '..runtimes', 'export.x'."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and NAMED.fullmatch(node.value):
            yield node.lineno, resolved(node.value, path, root)


def offence(module: str, target: str, relative: bool) -> str | None:
    """What is wrong with `module` (without the package) importing `target` (with it), None for nothing."""
    layer = layer_of(module) or module
    top, _, inner = target.partition(".")
    if top != PACKAGE:
        forbidden = [name for name in MUST_NOT_LOAD[layer] if target == name or target.startswith(f"{name}.")]
        if top in FOLDERS:
            return f"imports '{target}'; our modules are reached by relative imports"
        return f"loads '{forbidden[0]}', which {layer} must never do" if forbidden else None
    if not relative:
        return f"imports '{target}' by its full name; inside the package use relative imports"
    other = layer_of(inner)
    if other in (None, layer) or other in MAY_IMPORT[layer]:
        return None
    return f"imports {other}; {layer} may import {', '.join(sorted(MAY_IMPORT[layer])) or 'nothing else of ours'}"


def offences(root: Path) -> list[str]:
    """One line per forbidden import, and per string that names a module that may not be imported there."""
    found: list[str] = []
    for path in sources(root):
        module, place = module_name(path, root), path.relative_to(root).as_posix()
        for line, target, relative in imported(path, root):
            wrong = offence(module, target, relative)
            found += [f"{place}:{line} {wrong}"] if wrong else []
        for line, named in named_in_strings(path, root):
            wrong = offence(module, f"{PACKAGE}.{named}", relative=True)
            if wrong and not re.fullmatch(LATE_BOUND.get(place, ""), named):
                found.append(f"{place}:{line} {wrong} ('{named}' in a string)")
    return found


def test_imports_follow_the_table() -> None:
    assert len(sources(ROOT)) > 20, f"found almost no sources under {ROOT}: nothing was compared"
    assert offences(ROOT) == []


def test_contributing_shows_the_table() -> None:
    _, _, page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").partition("\n## Layout\n")
    rows = re.findall(r"^\| `([\w/]+)` \|[^|]*\| ([^|]*) \|", page.partition("\n## ")[0], re.MULTILINE)
    shown = {layer.replace("/", "."): frozenset(re.findall(r"[\w.]+", others)) for layer, others in rows}
    assert shown == {layer: others for layer, others in MAY_IMPORT.items() if layer != PACKAGE}


def test_every_layer_has_both_rules() -> None:
    assert set(MAY_IMPORT) == set(MUST_NOT_LOAD)


PLANTED = {
    "upwards": ("core/x.py", "from ..runtimes import onnxruntime", "imports runtimes"),
    "upwards inside a function": ("core/x.py", "def f():\n    from ..export.onnx import write", "imports export"),
    "into the torch part of its own folder": ("core/metrics/x.py", "from ..models import dtpm", "imports core.models"),
    "through the package": ("core/x.py", "from .. import kernels", "imports kernels"),
    "sideways": ("runtimes/x.py", "from ..export import onnx", "imports export"),
    "models from a runtime": ("runtimes/x.py", "from ..core.models.dtpm import Dtpm", "imports core.models"),
    "a kernel from the exporter": ("export/x.py", "from ..kernels import film", "imports kernels"),
    "a kernel from training": ("core/training/x.py", "from ...kernels.select import mode", "imports kernels"),
    "a runtime from a sub-folder": ("export/reference/x.py", "from ...runtimes import check", "imports runtimes"),
    "by its full name": ("core/x.py", "import pocketprior.core.sampling.noise", "relative imports"),
    "by its folder": ("runtimes/x.py", "from core.noise import normal", "relative imports"),
    "torch in core": ("core/x.py", "def f():\n    import torch.nn", "loads 'torch'"),
    "a runtime in core": ("core/x.py", "import onnxruntime as ort", "loads 'onnxruntime'"),
    "triton in a runtime": ("runtimes/x.py", "from triton import language", "loads 'triton'"),
    "a runtime in the models": ("core/models/x.py", "import openvino", "loads 'openvino'"),
    "by import_module": ("core/x.py", "import_module('pocketprior.runtimes')", "imports runtimes"),
    "by the layer's name": ("core/training/x.py", "PLACES = {'a': 'export.pack'}", "imports export"),
    "by a string of another layer": ("runtimes/commands/x.py", "load('export.parity_reference')", "imports export"),
    "by the start of an f-string": ("runtimes/x.py", "import_module(f'pocketprior.export.{name}')", "imports export"),
    "a command table elsewhere": ("core/x.py", "COMMANDS = {'bench': 'runtimes.commands.bench'}", "imports runtimes"),
    "more than a command": ("core/cli.py", "COMMANDS = {'bench': 'runtimes.bench.speed'}", "imports runtimes"),
    "by a relative string": ("core/x.py", "import_module('..kernels', __package__)", "imports kernels"),
    "the face": ("pocketprior/x.py", "from .export import onnx", "imports export"),
}


@pytest.mark.parametrize(("place", "code", "expected"), PLANTED.values(), ids=PLANTED)
def test_a_planted_violation_is_found(tmp_path: Path, place: str, code: str, expected: str) -> None:
    (tmp_path / place).parent.mkdir(parents=True)
    (tmp_path / place).write_text(code)
    (found,) = offences(tmp_path)
    assert found.startswith(f"{place}:")
    assert expected in found


ALLOWED = {
    "core to core": ("core/commands/x.py", "from ..noise import normal"),
    "a runtime to core": ("runtimes/native/x.py", "from ...core.errors import GraphError"),
    "a runtime to its library": ("runtimes/x.py", "def f():\n    import onnxruntime"),
    "models to kernels": ("core/models/x.py", "import torch\nfrom ...kernels import film\nfrom ..noise import x"),
    "export to distill": ("export/recipe/x.py", "from ...distill import stage\nfrom ...core.training.loop import loop"),
    "a string in its own layer": ("core/training/x.py", "STAGES = {'prior': '.dtpm.prior'}"),
    "the face to core": ("pocketprior/x.py", "from .core.restore import Restorer"),
    "the command table": ("core/cli.py", "COMMANDS = {'bench': ('runtimes.commands.bench', 'help')}"),
    "a runtime by name": ("core/restore/restorer.py", "import_module('...runtimes', __package__)"),
    "a sentence with a dot": ("core/x.py", "message = 'see export. Or runtimes.'"),
}


@pytest.mark.parametrize(("place", "code"), ALLOWED.values(), ids=ALLOWED)
def test_an_allowed_import_is_left_alone(tmp_path: Path, place: str, code: str) -> None:
    (tmp_path / place).parent.mkdir(parents=True)
    (tmp_path / place).write_text(code)
    assert offences(tmp_path) == []


def light_modules(root: Path) -> list[str]:
    """What a phone or a laptop may load: the face, runtimes, and core without its torch half."""
    names = [module_name(path, root) for path in sources(root) if path.name != "__main__.py"]
    light = [name for name in names if layer_of(name) in ("core", "runtimes", PACKAGE)]
    return [name if name.startswith(PACKAGE) else f"{PACKAGE}.{name}" for name in light]


IMPORT_ALL = """
import sys
from importlib import import_module

forbidden = sys.argv[1].split(",")
for module in sys.argv[2:]:
    import_module(module)
    loaded = [name for name in forbidden if name in sys.modules]
    if loaded:
        sys.exit(f"importing {module} loads {', '.join(loaded)}")
"""


def import_all(modules: list[str], folder: Path) -> str:
    """Import the modules in turn in a fresh process that starts in `folder`; what went wrong, '' for nothing."""
    command = [sys.executable, "-W", "error", "-c", IMPORT_ALL, "torch,triton", *modules]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    return done.stderr.strip() if done.returncode else ""


def test_light_modules_never_load_torch(tmp_path: Path) -> None:
    modules = light_modules(ROOT)
    assert {"pocketprior", "pocketprior.core.sampling.noise", "pocketprior.runtimes.onnxruntime"} <= set(modules)
    wrong = import_all(modules, tmp_path)
    assert not wrong, wrong


def test_a_hidden_torch_is_found(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("")
    (tmp_path / "planted").mkdir()
    (tmp_path / "planted/__init__.py").write_text("")
    (tmp_path / "planted/clean.py").write_text("")
    (tmp_path / "planted/hidden.py").write_text("__import__('to' + 'rch')")
    assert import_all(["planted", "planted.clean"], tmp_path) == ""
    assert "importing planted.hidden loads torch" in import_all(["planted.clean", "planted.hidden"], tmp_path)
