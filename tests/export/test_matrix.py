"""Three systems, three runtimes, two precisions: every pack holds against the recording of its checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from pocketprior.core.pack.manifest import Manifest
from pocketprior.core.restore.reference import load
from pocketprior.export.parity_reference import record_shots, shots
from pocketprior.export.writer.pack import PackOptions, write_pack
from pocketprior.runtimes.coreml import INTERPRETER, engine
from pocketprior.runtimes.parity.comparison import CompareOptions, compare
from pocketprior.runtimes.parity.layers import inside_coreml
from support.planted_faults import facts
from support.references import accused
from support.small_models import PHOTOS, source_of

pytestmark = pytest.mark.slow  # Core ML packages of all systems take minutes to write

TARGETS = {"onnxruntime": "onnx", "openvino": "openvino", "coreml": "coreml"}
PRECISIONS = ("fp32", "fp16")
LOOSE = {"half": {"reason": "weights that were never trained", "psnr_db": 36, "max_abs": 1, "shift": 0.05}}
# Untrained, sigma reaches 1.6: it multiplies the residual and with it the rounding of its float32.
SIGMA = {"form": {"reason": "a sigma that was never trained", "psnr_db": 90, "max_abs": 1e-4, "shift": 1e-5}}


class Known(NamedTuple):
    pack: Path
    recording: Path


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Known]:
    """A pack of a system for all targets in all precisions, and its recording; made when it is first asked for."""
    root = tmp_path_factory.mktemp("matrix")

    def made(system: str) -> Known:
        found = Known(root / system, root / f"{system}.npz")
        if not found.pack.exists():
            source = source_of(system, root)
            photos = PHOTOS[:1]
            write_pack(
                source,
                found.pack,
                photos,
                PackOptions(name=f"small-{system}", targets=list(TARGETS.values()), precisions=PRECISIONS),
            )
            facts(found.pack, {"limits": LOOSE | (SIGMA if system == "calibrated" else {})})
            opened = source.open()
            chosen = shots(photos, opened, 64)
            record_shots(opened, source.digest(), chosen, found.recording, device="cpu")
        return found

    return made


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("runtime", TARGETS)
@pytest.mark.parametrize("system", ["dtpm", "calibrated", "diffir", "gen2res"])
def test_a_pack_holds(system: str, runtime: str, precision: str, known: Callable[[str], Known]) -> None:
    pack, recording = known(system)
    report = compare(pack, CompareOptions(runtime, precision=precision, against=recording, threads=1))
    assert report.ok, accused(report)
    measured = {source.name for source in report.sources if source.checks}
    assert ("runtime" in measured) == (runtime != "onnxruntime")
    assert ("precision" in measured) == (precision == "fp16")
    assert ("forms" in measured) == (system != "gen2res")  # it is sampled with noise on the way


def test_layers_of_a_core_ml_program(known: Callable[[str], Known]) -> None:
    """The last of them is what the graph gives; their names tell the module."""
    if engine() != INTERPRETER:
        pytest.skip("Core ML itself does not tell its layers")
    pack, path = known("diffir")
    recording, file = load(path), Manifest.load(pack).graph_file("denoise", "coreml")
    call = next(call for call in recording.about.cases[0].calls["split"] if call.graph == "denoise")
    found = inside_coreml(pack / file.file, "denoise", recording.named(call.inputs), "fp32")
    assert abs(found["x0"].array - recording.named(call.outputs)["x0"]).max() < 1e-4
    assert any("linear" in value.operator for value in found.values())
    report = compare(pack, CompareOptions("coreml", precision="fp16", against=path, layers=True))
    assert {layer.graph for layer in report.layers} == {"encode", "denoise", "compose", "fused"}
    assert any("denoiser" in layer.name for layer in report.layers)
