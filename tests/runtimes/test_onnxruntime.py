"""ONNX Runtime opens what the manifest describes and nothing else; its failures become ours."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from pocketprior.core.errors import GraphError, PackError, UsageError
from pocketprior.core.pack.manifest import ArraySpec, GraphSpec, Manifest
from pocketprior.runtimes import onnxruntime
from pocketprior.runtimes.options import RuntimeOptions
from support import packs


def inputs(height: int = 16, width: int = 16) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {"image": rng.random((1, 3, height, width), np.float32)}


def opened(folder: Path, manifest: Manifest, threads: int | None = 1):
    return onnxruntime.open(folder / "predict.onnx", "predict", manifest.graphs["predict"], RuntimeOptions(threads))


def test_runs_a_graph_of_any_size(built_pack: Path, manifest: Manifest) -> None:
    graph = opened(built_pack, manifest)
    for size in ((16, 16), (8, 40), (44, 12)):
        outputs = graph(**inputs(*size))
        assert list(outputs) == ["base"]
        assert outputs["base"].shape == (1, 3, *size)
        assert outputs["base"].dtype == np.float32


def test_equals_the_onnx_reference(built_pack: Path, manifest: Manifest) -> None:
    from onnx.reference import ReferenceEvaluator

    reference = ReferenceEvaluator(onnx.load(built_pack / "predict.onnx"))
    expected = reference.run(["base"], inputs())[0]
    np.testing.assert_allclose(opened(built_pack, manifest)(**inputs())["base"], expected, atol=1e-6)


@pytest.mark.parametrize("threads", [None, 1, 2])
def test_the_number_of_threads_does_not_change_the_result(
    built_pack: Path, manifest: Manifest, threads: int | None
) -> None:
    expected = opened(built_pack, manifest)(**inputs())["base"]
    np.testing.assert_allclose(opened(built_pack, manifest, threads)(**inputs())["base"], expected, atol=1e-6)


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:700])


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def replaced_by_text(path: Path) -> None:
    path.write_text("this is no graph")


def removed(path: Path) -> None:
    path.unlink()


def unknown_operator(path: Path) -> None:
    model = onnx.load(path)
    model.graph.node[0].op_type = "Restore"
    path.write_bytes(model.SerializeToString())


@pytest.mark.parametrize("damage", [truncated, emptied, replaced_by_text, removed, unknown_operator])
def test_a_file_that_is_no_graph(
    pack: Path, manifest: Manifest, damage: Callable[[Path], None], capfd: pytest.CaptureFixture[str]
) -> None:
    damage(pack / "predict.onnx")
    with pytest.raises(PackError, match=r"cannot open .*predict.onnx.*copy the pack again"):
        opened(pack, manifest)
    assert capfd.readouterr() == ("", "")


IMAGE = ArraySpec("float32", (1, 3, "h", "w"))
OTHERS = {
    "another input": GraphSpec({"photo": IMAGE}, {"base": IMAGE}, {}),
    "another output": GraphSpec({"image": IMAGE}, {"out": IMAGE}, {}),
    "an input more": GraphSpec({"image": IMAGE, "t": ArraySpec("float32", (1,))}, {"base": IMAGE}, {}),
    "other channels": GraphSpec({"image": ArraySpec("float32", (1, 4, "h", "w"))}, {"base": IMAGE}, {}),
    "fewer dimensions": GraphSpec({"image": ArraySpec("float32", (3, "h", "w"))}, {"base": IMAGE}, {}),
}


@pytest.mark.parametrize("spec", OTHERS.values(), ids=OTHERS)
def test_another_graph_than_the_manifest_says(built_pack: Path, spec: GraphSpec) -> None:
    with pytest.raises(PackError, match=r"predict.onnx, (in|out)puts: the manifest says .*export the pack again"):
        onnxruntime.open(built_pack / "predict.onnx", "predict", spec)


def test_a_graph_of_one_size_alone(pack: Path, manifest: Manifest) -> None:
    (pack / "predict.onnx").write_bytes(packs.graph_bytes("predict", fixed=True))
    with pytest.raises(PackError, match="the manifest says"):
        opened(pack, manifest)


def test_a_call_that_fails(built_pack: Path, manifest: Manifest, capfd: pytest.CaptureFixture[str]) -> None:
    graph = opened(built_pack, manifest)
    with pytest.raises(GraphError, match="graph 'predict': ONNX Runtime could not run it"):
        graph(**inputs(10, 11))
    assert capfd.readouterr() == ("", "")


def test_without_onnxruntime(built_pack: Path, manifest: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UsageError, match="run: pip install onnxruntime"):
        opened(built_pack, manifest)
