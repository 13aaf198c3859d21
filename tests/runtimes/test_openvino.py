"""OpenVINO opens what the manifest describes and nothing else, and does what ONNX Runtime does."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from pocketprior.core.cli import main
from pocketprior.core.errors import GraphError, MissingExtraError, PackError, UsageError
from pocketprior.core.metrics import psnr
from pocketprior.core.pack.manifest import ArraySpec, GraphSpec, Manifest
from pocketprior.core.pack.store import default_pack
from pocketprior.core.photo.io import read
from pocketprior.core.restore.restorer import Restorer
from pocketprior.core.restore.selftest import verify
from pocketprior.runtimes import openvino
from pocketprior.runtimes.options import DEFAULT_OPTIONS, RuntimeOptions
from support import packs

PHOTO = Path(__file__).parents[2] / "examples" / "dog.jpg"


def test_without_openvino(built_pack: Path, manifest: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'pocketprior\[openvino\]'"):
        opened(built_pack, manifest)


needed = pytest.mark.skipif(importlib.util.find_spec("openvino") is None, reason="the extra openvino is not installed")


def inputs(height: int = 16, width: int = 16) -> dict[str, np.ndarray]:
    return {"image": np.random.default_rng(0).random((1, 3, height, width), np.float32)}


def opened(folder: Path, manifest: Manifest, options: RuntimeOptions = DEFAULT_OPTIONS):
    return openvino.open(folder / "predict.onnx", "predict", manifest.graphs["predict"], options)


@needed
def test_equals_the_onnx_reference_at_any_size(built_pack: Path, manifest: Manifest) -> None:
    from onnx.reference import ReferenceEvaluator

    reference = ReferenceEvaluator(onnx.load(built_pack / "predict.onnx"))
    graph = opened(built_pack, manifest, RuntimeOptions(threads=1))
    for size in ((16, 16), (8, 40), (44, 12), (16, 16)):
        outputs = graph(**inputs(*size))
        assert list(outputs) == ["base"]
        assert outputs["base"].dtype == np.float32
        np.testing.assert_allclose(outputs["base"], reference.run(["base"], inputs(*size))[0], atol=1e-6)


@needed
def test_answers_are_not_written_over_by_the_next_call(built_pack: Path, manifest: Manifest) -> None:
    graph = opened(built_pack, manifest)
    first = graph(**inputs())["base"]
    kept = first.copy()
    graph(image=np.zeros((1, 3, 16, 16), np.float32))
    np.testing.assert_array_equal(first, kept)


@needed
def test_an_array_that_is_not_contiguous(built_pack: Path, manifest: Manifest) -> None:
    graph, image = opened(built_pack, manifest), inputs(16, 20)["image"]
    expected = graph(image=image)["base"]
    np.testing.assert_array_equal(graph(image=image[..., ::-1][..., ::-1])["base"], expected)
    turned = np.ascontiguousarray(image.transpose(0, 1, 3, 2)).transpose(0, 1, 3, 2)
    np.testing.assert_array_equal(graph(image=turned)["base"], expected)


@needed
@pytest.mark.parametrize("form", ["fused", "split"])
def test_the_embedded_pack_is_restored_as_by_onnxruntime(form: str) -> None:
    """In float32, whatever the processor could do faster: 1 level is rounding."""
    photo = np.ascontiguousarray(read(PHOTO).pixels[:140, :200])
    expected = Restorer.from_pack(graphs=form)(photo, seed=7)
    restored = Restorer.from_pack(runtime="openvino", graphs=form)(photo, seed=7)
    assert np.abs(restored.astype(int) - expected).max() <= 1
    assert psnr(restored, expected) >= 80


@needed
def test_verifies_the_embedded_pack() -> None:
    assert verify(default_pack(), "openvino").ok


@needed
def test_16_bit_arithmetic_is_used_or_refused() -> None:
    photo = np.ascontiguousarray(read(PHOTO).pixels[:96, :96])
    if "BF16" not in openvino.the_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        with pytest.raises(UsageError, match=r"bf16 arithmetic was asked for; .* choose fp32"):
            Restorer.from_pack(runtime="openvino", arithmetic="bf16")
        return
    exact, rounded = (Restorer.from_pack(runtime="openvino", arithmetic=a)(photo) for a in ("fp32", "bf16"))
    assert 40 < psnr(rounded, exact) < 90


SIGNALLED = """
import signal, sys
from pathlib import Path
from pocketprior.core.pack.store import default_pack
from pocketprior.core.restore.restorer import Restorer
import numpy as np

def restore():
    restorer = Restorer.from_pack(runtime="openvino")
    restorer(np.zeros((32, 32, 3), np.uint8))
    return restorer

first, second = restore(), restore()
del first
del second
try:
    signal.raise_signal(signal.SIGINT)
except KeyboardInterrupt:
    print("stopped")
"""


@needed
def test_a_signal_after_graphs_are_gone() -> None:
    """OpenVINO lets a second Core leave a stack for signals that is gone."""
    done = subprocess.run([sys.executable, "-c", SIGNALLED], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "stopped\n", "")


@needed
def test_a_device_that_is_not_there(built_pack: Path, manifest: Manifest) -> None:
    with pytest.raises(UsageError, match="the device 'NPU9' was given; OpenVINO finds here: CPU"):
        opened(built_pack, manifest, RuntimeOptions(device="NPU9"))


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:700])


def replaced_by_text(path: Path) -> None:
    path.write_text("this is no graph")


def removed(path: Path) -> None:
    path.unlink()


def unknown_operator(path: Path) -> None:
    model = onnx.load(path)
    model.graph.node[0].op_type = "Restore"
    path.write_bytes(model.SerializeToString())


@needed
@pytest.mark.parametrize("damage", [truncated, replaced_by_text, removed, unknown_operator])
def test_a_file_that_is_no_graph(pack: Path, manifest: Manifest, damage: Callable[[Path], None]) -> None:
    damage(pack / "predict.onnx")
    with pytest.raises(PackError, match=r"cannot open .*predict.onnx.*copy the pack again"):
        opened(pack, manifest)


@needed
def test_another_graph_than_the_manifest_says(built_pack: Path) -> None:
    image = ArraySpec("float32", (1, 3, "h", "w"))
    for spec in (
        GraphSpec({"photo": image}, {"base": image}, {}),
        GraphSpec({"image": image}, {"base": image, "more": image}, {}),
        GraphSpec({"image": ArraySpec("float32", (1, 4, "h", "w"))}, {"base": image}, {}),
    ):
        with pytest.raises(PackError, match=r"predict.onnx, (in|out)puts: the manifest says .*export the pack again"):
            openvino.open(built_pack / "predict.onnx", "predict", spec)


@needed
def test_a_graph_of_one_size_alone(pack: Path, manifest: Manifest) -> None:
    (pack / "predict.onnx").write_bytes(packs.graph_bytes("predict", fixed=True))
    with pytest.raises(PackError, match="the manifest says"):
        opened(pack, manifest)


@needed
def test_a_call_that_fails(built_pack: Path, manifest: Manifest, capfd: pytest.CaptureFixture[str]) -> None:
    graph = opened(built_pack, manifest)
    with pytest.raises(GraphError, match="graph 'predict': OpenVINO could not run it"):
        graph(image=np.zeros((1, 4, 16, 16), np.float32))
    assert capfd.readouterr() == ("", "")


@needed
def test_the_command_restores(tmp_path: Path) -> None:
    arguments = ["restore", str(PHOTO), "--strength", "0", "-o", str(tmp_path / "out.png")]
    assert main([*arguments, "--runtime", "openvino"]) == 0
    assert (tmp_path / "out.png").stat().st_size > 0
