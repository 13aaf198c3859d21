"""Opening the graphs of a pack: the right files, whole, checked at every call."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from pocketprior.core.errors import GraphError, PackError, PackTamperedError, UnknownNameError, UsageError
from pocketprior.core.pack.manifest import TARGETS, Manifest
from pocketprior.runtimes import RUNTIMES, open_graphs
from support import packs


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_every_runtime_is_a_module_of_its_name(runtime: str) -> None:
    module = import_module(f"pocketprior.runtimes.{runtime}")
    assert set(module.TARGETS) <= set(TARGETS)
    assert callable(module.open)


def test_opens_all_or_those_named(built_pack: Path, manifest: Manifest) -> None:
    assert set(open_graphs(manifest, built_pack, "onnxruntime")) == {"encode", "predict", "denoise", "fused"}
    assert set(open_graphs(manifest, built_pack, "onnxruntime", names=["predict"])) == {"predict"}


def test_calls_are_checked(built_pack: Path, manifest: Manifest) -> None:
    graph = open_graphs(manifest, built_pack, "onnxruntime", names=["predict"], threads=1)["predict"]
    with pytest.raises(GraphError, match="graph 'predict': expected h to be a multiple of 4, got 10"):
        graph(image=np.zeros((1, 3, 10, 8), np.float32))


def test_an_unknown_runtime(built_pack: Path, manifest: Manifest) -> None:
    with pytest.raises(
        UnknownNameError, match="unknown runtime 'tflite'; choose one of: onnxruntime, openvino, replay"
    ):
        open_graphs(manifest, built_pack, "tflite")


def test_no_threads(built_pack: Path, manifest: Manifest) -> None:
    with pytest.raises(UsageError, match=r"expected 1 thread or more, .* got 0"):
        open_graphs(manifest, built_pack, "onnxruntime", threads=0)


def test_a_pack_without_files_for_a_runtime(built_pack: Path, manifest: Manifest) -> None:
    with pytest.raises(PackError, match="has no graphs for replay; it has: onnx"):
        open_graphs(manifest, built_pack, "replay")


def test_a_changed_file_is_not_opened(pack: Path, manifest: Manifest) -> None:
    (pack / "denoise.onnx").write_bytes(packs.graph_bytes("denoise", weights="other"))
    with pytest.raises(PackTamperedError, match=r"denoise.onnx was changed after packing"):
        open_graphs(manifest, pack, "onnxruntime")
    assert set(open_graphs(manifest, pack, "onnxruntime", names=["predict"])) == {"predict"}
