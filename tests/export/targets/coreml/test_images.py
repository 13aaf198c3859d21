"""Core ML packages that are given a picture of 8 bits."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pocketprior.core.arrays import to_batch
from pocketprior.core.cli import main
from pocketprior.core.errors import UsageError
from pocketprior.core.pack.manifest import Manifest
from pocketprior.core.pack.systems import IMAGE
from pocketprior.core.photo.io import read
from pocketprior.core.restore.selftest import verify
from pocketprior.export.systems.source import ModelGraph, traced
from pocketprior.export.targets.coreml.convert import with_image_input
from pocketprior.export.targets.coreml.coreml_package import CoremlPackage, coremltools
from pocketprior.export.writer.pack import PackOptions, write_pack
from pocketprior.runtimes import open_graphs
from pocketprior.runtimes.coreml import as_8_bits
from pocketprior.runtimes.mil import read_package
from support.small_models import PHOTOS, save_diffir, source_of


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A DTPM whose Core ML packages are given pictures."""
    folder = tmp_path_factory.mktemp("pictures")
    options: dict[str, Any] = {"targets": ("onnx", "coreml"), "precisions": ("fp32", "fp16", "int8"), "fused": False}
    write_pack(source_of("dtpm", folder), folder / "pack", PHOTOS[:1], PackOptions(name="x", images=True, **options))
    return folder / "pack"


class Doubled(torch.nn.Module):
    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return image * 2


@pytest.mark.filterwarnings("ignore")  # coremltools 9 warns of itself
@pytest.mark.parametrize("fixed", [False, True])
def test_is_described_as_coremltools_does(fixed: bool) -> None:
    """The description of an image input that coremltools itself writes."""
    tools = coremltools()
    side = (lambda: 16) if fixed else (lambda: tools.RangeDim(4, 64, default=16))
    shape = [1, 3, side(), side()]
    graph = ModelGraph(Doubled(), {"image": IMAGE}, {"doubled": IMAGE})
    program = traced(graph, 4, 16 if fixed else None).run_decompositions({})

    def described(array: Any) -> Any:
        model = tools.convert(program, inputs=[array], convert_to="mlprogram", skip_model_load=True)
        return CoremlPackage.of(model.get_spec(), Path(model.weights_dir) / "weight.bin")

    theirs = described(tools.ImageType(name="image", shape=shape, color_layout=tools.colorlayout.RGB, scale=1 / 255))
    ours = with_image_input(described(tools.TensorType(name="image", shape=shape, dtype=np.float32)))
    assert ours.spec.description.input[0].type.imageType == theirs.spec.description.input[0].type.imageType


@pytest.mark.parametrize(("precision", "most"), [("fp32", 1e-6), ("fp16", 1e-3), ("int8", 5e-2)])
def test_gives_what_the_array_gives(pack: Path, precision: str, most: float) -> None:
    """For photos of 8 bits what ONNX Runtime makes of the array; it computes in float32 beside float16 weights."""
    image = to_batch(np.ascontiguousarray(read(PHOTOS[0]).pixels[40:80, 60:84]))
    manifest = Manifest.load(pack)
    labels = {n: precision if precision in spec.files["onnx"] else "fp32" for n, spec in manifest.graphs.items()}
    manifest = replace(manifest, precision={"onnx": labels, "coreml": labels})
    given, expected = (
        open_graphs(manifest, pack, runtime, names=["predict"])["predict"](image=image)["base"]
        for runtime in ("coreml", "onnxruntime")
    )
    assert np.sqrt(np.mean(np.square(given - expected))) <= most


def test_only_the_image_is_a_picture(pack: Path) -> None:
    for name, spec in Manifest.load(pack).graphs.items():
        inputs, outputs = read_package((pack / spec.files["coreml"]["fp32"].file).parent).functions["main"]
        assert {n for n, feature in inputs.items() if feature.colour} == {"image"} & set(spec.inputs), name
        assert not any(feature.colour for feature in outputs.values())


def test_pack_verifies(pack: Path) -> None:
    assert verify(pack, "coreml").ok


def test_numbers_between_levels_are_rounded(pack: Path) -> None:
    file = Manifest.load(pack).graphs["predict"].files["coreml"]["fp32"].file
    program = read_package((pack / file).parent).function("predict")
    image = np.float32([-1, 0.0, 0.4 / 255, 0.5 / 255, 1, 2]).reshape(1, 1, 1, 6).repeat(3, axis=1)
    levels = as_8_bits({"image": image}, program.inputs)["image"]
    assert levels[0, 0, 0].tolist() == [0, 0, 0, 1, 255, 255]


def test_is_for_core_ml_alone(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="only coreml files can take images"):
        write_pack(source_of("gen2res", tmp_path), tmp_path / "p", PHOTOS, PackOptions(name="x", images=True))


def test_commands(tmp_path: Path) -> None:
    """Parity holds: what is recorded has 8 bits, as damaged photos have."""
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "one.jpg").write_bytes(PHOTOS[0].read_bytes())
    checkpoint = str(save_diffir(tmp_path))
    pack, recording = str(tmp_path / "pack"), str(tmp_path / "known.npz")
    options = ["--to", "onnx,coreml", "--split", "--pictures", "--window", "64", "8"]
    assert main(["export", checkpoint, "--data", str(photos), "-o", pack, *options]) == 0
    told = [checkpoint, "-o", recording, "--photos", str(PHOTOS[0]), "--side", "64", "--device", "cpu", *options[-3:]]
    assert main(["parity", "record", *told]) == 0
    assert main(["parity", "run", pack, "--against", recording, "--runtime", "coreml"]) == 0
