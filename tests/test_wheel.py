"""The wheel holds every file of the package, the embedded pack and the compiled library, and no C++ source.

`scripts/test` builds the wheel and names it in POCKETPRIOR_WHEEL; it also installs it in an environment without torch.
"""

from __future__ import annotations

import os
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCES_OF_THE_LIBRARY = "runtimes/native"
LIBRARY_SUFFIXES = (".so", ".dylib", ".dll", ".pyd")
LARGEST = 20 * 2**20  # bytes; the embedded pack may have 12 MiB of them


def mapped_folders(root: Path) -> dict[str, str]:
    """Folder in the wheel -> folder here, as pyproject.toml says it."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    return project["tool"]["scikit-build"]["wheel"]["packages"]


def expected_files(root: Path) -> set[str]:
    """The name in the wheel of every file of the package."""
    return {
        f"{target}/{path.relative_to(root / folder).as_posix()}"
        for target, folder in mapped_folders(root).items()
        for path in (root / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and not is_source(path, root)
    }


def is_source(path: Path, root: Path) -> bool:
    return path.is_relative_to(root / SOURCES_OF_THE_LIBRARY)


def packed_files(wheel: Path) -> set[str]:
    """What the wheel installs, without its own metadata."""
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if ".dist-info/" not in name}


def is_library(name: str) -> bool:
    return name.startswith("pocketprior/core/_native") and name.endswith(LIBRARY_SUFFIXES)


@pytest.fixture(scope="module")
def wheel() -> Path:
    named = os.environ.get("POCKETPRIOR_WHEEL")
    if named is None:
        pytest.skip("no wheel to look into: scripts/test builds one and names it in POCKETPRIOR_WHEEL")
    return Path(named)


def test_nothing_is_missing_and_nothing_is_too_much(wheel: Path) -> None:
    packed, expected = packed_files(wheel), expected_files(ROOT)
    assert sorted(expected - packed) == []
    assert sorted(name for name in packed - expected if not is_library(name)) == []


def test_the_compiled_library_is_there_once(wheel: Path) -> None:
    assert len([name for name in packed_files(wheel) if is_library(name)]) == 1


def test_the_embedded_pack_is_there(wheel: Path) -> None:
    packed = packed_files(wheel)
    assert "pocketprior/core/packs/cleanup/manifest.json" in packed
    assert [name for name in packed if name.startswith("pocketprior/core/packs/cleanup/") and name.endswith(".onnx")]


def test_no_source_of_the_library_travels_along(wheel: Path) -> None:
    assert [name for name in packed_files(wheel) if name.endswith((".cc", ".h", "CMakeLists.txt"))] == []


def test_the_size_is_that_of_a_download_nobody_minds(wheel: Path) -> None:
    assert wheel.stat().st_size <= LARGEST


def test_one_wheel_serves_every_python(wheel: Path) -> None:
    assert wheel.name.split("-")[2:4] == ["py3", "none"]


@pytest.mark.parametrize("folder", ["core", "core/commands", "kernels", "distill", "export", "runtimes"])
def test_every_subpackage_is_expected(folder: str) -> None:
    assert f"pocketprior/{folder}/__init__.py" in expected_files(ROOT)


def test_every_folder_with_python_files_is_a_package() -> None:
    folders = {path.parent for folder in mapped_folders(ROOT).values() for path in (ROOT / folder).rglob("*.py")}
    assert [folder for folder in sorted(folders) if not (folder / "__init__.py").is_file()] == []


def test_data_files_are_expected_and_sources_are_not(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    for name in ("core/packs/cleanup/denoise.onnx", "runtimes/native/src/noise.cc", "core/__pycache__/x.pyc"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).touch()
    assert expected_files(tmp_path) == {"pocketprior/core/packs/cleanup/denoise.onnx"}
