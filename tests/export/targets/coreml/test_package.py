"""Packages are read and written without loss, with the same bytes, and as coremltools reads them."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pocketprior.export.systems.source import traced
from pocketprior.export.targets import GraphToWrite
from pocketprior.export.targets.coreml.convert import DEPLOYMENT_TARGETS, convert_coreml
from pocketprior.export.targets.coreml.coreml_package import (
    INT4,
    CoremlPackage,
    constant,
    coremltools,
    functions,
    packed_bits,
    raise_version,
    write_package,
)
from pocketprior.runtimes.mil import read_package
from support.coreml_package import MULTIPLE, Made


def same_files(first: Path, second: Path) -> bool:
    files = sorted(p.relative_to(first) for p in first.rglob("*") if p.is_file())
    assert files == sorted(p.relative_to(second) for p in second.rglob("*") if p.is_file())
    return all((first / file).read_bytes() == (second / file).read_bytes() for file in files)


def test_what_is_read_is_written_again(made: Made, tmp_path: Path) -> None:
    write_package(made.package, tmp_path / "again.mlpackage")
    assert same_files(made.folder, tmp_path / "again.mlpackage")


def test_coremltools_reads_the_package(made: Made) -> None:
    tools = coremltools()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        spec = tools.utils.load_spec(str(made.folder))
    assert dict(spec.description.metadata.userDefined) == {"answer": "42"}
    from coremltools.libmilstoragepython import _BlobStorageReader

    reader = _BlobStorageReader(str(made.folder / "Data/com.apple.CoreML/weights/weight.bin"))
    package, stored = made.package, 0
    theirs = spec.mlProgram.functions["main"].block_specializations["CoreML7"].operations
    ((_, block),) = functions(package.spec)
    for mine, other in zip(block.operations, theirs, strict=True):
        if "val" in other.attributes and other.attributes["val"].WhichOneof("value") == "blobFileValue":
            stored += 1
            values = reader.read_float_data(other.attributes["val"].blobFileValue.offset)
            np.testing.assert_array_equal(package.array(mine.attributes["val"]).reshape(-1), values)
    assert stored >= 6


def test_values_are_named_after_their_modules(made: Made) -> None:
    ((_, block),) = functions(made.package.spec)
    names = {output.name for op in block.operations for output in op.outputs}
    assert {"first__conv2d", "second__conv2d", "film__linear", "restored"} <= names


def test_equal_constants_are_stored_once(made: Made, tmp_path: Path) -> None:
    package = made.package
    ((_, block),) = functions(package.spec)
    array = np.arange(4096, dtype=np.float32)
    for name in ("one", "two"):
        block.operations.insert(0, constant(name, package.value(array)))
    write_package(package, tmp_path / "more.mlpackage")
    sizes = [
        (f / "Data/com.apple.CoreML/weights/weight.bin").stat().st_size
        for f in (made.folder, tmp_path / "more.mlpackage")
    ]
    assert sizes[1] - sizes[0] == 64 + array.nbytes


@given(
    array=st.one_of(
        st.lists(st.floats(-9, 9, width=32), min_size=1, max_size=30).map(lambda v: np.array(v, np.float32)),
        st.lists(st.floats(-9, 9, width=16), min_size=1, max_size=30).map(lambda v: np.array(v, np.float16)),
        st.lists(st.integers(-128, 127), min_size=1, max_size=30).map(lambda v: np.array(v, np.int8)),
        st.lists(st.integers(0, 255), min_size=1, max_size=30).map(lambda v: np.array(v, np.uint8)),
        st.lists(st.integers(-(2**31), 2**31 - 1), min_size=1, max_size=30).map(lambda v: np.array(v, np.int32)),
        st.lists(st.booleans(), min_size=1, max_size=9).map(lambda v: np.array(v, np.bool_)),
        st.floats(-9, 9, width=32).map(lambda v: np.array(v, np.float32)),
    )
)
def test_constants_come_back(array: np.ndarray) -> None:
    package = CoremlPackage(None)
    back = package.array(package.value(array))
    assert back.dtype == array.dtype
    np.testing.assert_array_equal(back, array)


@given(st.lists(st.integers(0, 15), min_size=1, max_size=40))
def test_four_bits_are_packed_lowest_first(codes: list[int]) -> None:
    package = CoremlPackage(None)
    value = package.stored(packed_bits(np.array(codes, np.uint8), 4), INT4, (len(codes),))
    data = package.blobs[value.blobFileValue.offset]
    assert len(data) == -(-len(codes) // 2)
    assert [data[i // 2] >> 4 * (i % 2) & 15 for i in range(len(codes))] == codes


def test_version_is_raised_not_lowered(made: Made) -> None:
    spec = made.package.spec
    raise_version(spec, 7)
    assert (spec.specificationVersion, spec.mlProgram.functions["main"].opset) == (8, "CoreML7")
    raise_version(spec, 9)
    assert (spec.specificationVersion, spec.mlProgram.functions["main"].opset) == (9, "CoreML8")
    assert list(spec.mlProgram.functions["main"].block_specializations) == ["CoreML8"]


def test_manifest_names_what_is_there(made: Made) -> None:
    content = json.loads((made.folder / "Manifest.json").read_text(encoding="utf-8"))
    paths = {entry["path"] for entry in content["itemInfoEntries"].values()}
    assert paths == {"com.apple.CoreML/model.mlmodel", "com.apple.CoreML/weights"}
    assert content["rootModelIdentifier"] in content["itemInfoEntries"]


@pytest.mark.parametrize("size", [(4, 4), (8, 40), (60, 12)])
def test_graph_does_what_torch_does(made: Made, size: tuple[int, int]) -> None:
    inputs = made.inputs(*size)
    given_back = read_package(made.folder).function("main").run(inputs)["restored"]
    np.testing.assert_allclose(given_back, made.truth(inputs), atol=1e-4)  # angles of 888 are known to 6e-5


@pytest.mark.parametrize("system", DEPLOYMENT_TARGETS)
def test_every_system(made: Made, tmp_path: Path, system: str) -> None:
    program, folder = traced(made.graph, MULTIPLE), tmp_path / "graph.mlpackage"
    convert_coreml(GraphToWrite("x", made.graph, program, MULTIPLE, deployment_target=system), folder)
    assert CoremlPackage.read(folder).spec.specificationVersion == DEPLOYMENT_TARGETS[system]
    inputs = made.inputs()
    restored = read_package(folder).function("main").run(inputs)["restored"]
    np.testing.assert_allclose(restored, made.truth(inputs), atol=1e-4)
