"""Packages are read as they are written, whole or not at all."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from pocketprior.core.errors import GraphError, PackError
from pocketprior.runtimes.mil import read_package

RNG = np.random.default_rng(0)
WEIGHT = RNG.standard_normal((40, 3, 3, 3), np.float32)
IMAGE = RNG.standard_normal((1, 3, 6, 7), np.float32)
INPUTS = {"x": (IMAGE.shape, "fp32")}


def network(mb: Any, x: Any) -> dict[str, Any]:
    return {"y": mb.conv(x=x, weight=WEIGHT, pad_type="same")}


@pytest.fixture(scope="module")
def original(build: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("package") / "net.mlpackage", INPUTS, network)


@pytest.fixture
def saved(original: Path, tmp_path: Path) -> Path:
    """A package that a test may damage."""
    return Path(shutil.copytree(original, tmp_path / "net.mlpackage"))


def inside(package: Path) -> Path:
    return package / "Data" / "com.apple.CoreML"


def test_a_package(saved: Path) -> None:
    program = read_package(saved).function("main")
    assert [step.op for step in program.steps] == ["conv"]
    expected = F.conv2d(torch.from_numpy(IMAGE), torch.from_numpy(WEIGHT), padding=1)
    np.testing.assert_allclose(program.run({"x": IMAGE})["y"], expected, atol=2e-5)


def test_what_its_author_wrote(build: Any, tmp_path: Path) -> None:
    def signed(model: Any) -> Any:
        model.user_defined_metadata["pocketprior"] = '{"name": "é"}'
        return model

    package = read_package(build(tmp_path / "x.mlpackage", INPUTS, network, change=signed))
    assert package.metadata["pocketprior"] == '{"name": "é"}'


def test_functions_that_share_their_weights(tools: SimpleNamespace, build: Any, tmp_path: Path) -> None:
    def scaled(factor: float) -> Callable[..., dict[str, Any]]:
        return lambda mb, x: {"y": mb.mul(x=network(mb, x)["y"], y=np.float32(factor))}

    described = tools.ct.utils.MultiFunctionDescriptor()
    for name, factor in (("denoise", 2), ("deblur", 3)):
        path = build(tmp_path / f"{name}.mlpackage", INPUTS, scaled(factor))
        described.add_function(str(path), "main", name)
    described.default_function_name = "denoise"
    with tools.quiet():
        tools.ct.utils.save_multifunction(described, str(tmp_path / "both.mlpackage"))
    package = read_package(tmp_path / "both.mlpackage")
    assert set(package.functions) == {"denoise", "deblur"}
    weights = inside(package.path) / "weights" / "weight.bin"
    assert weights.stat().st_size < 1.5 * WEIGHT.nbytes
    once, twice = (package.function(name).run({"x": IMAGE})["y"] for name in ("denoise", "deblur"))
    np.testing.assert_allclose(once * 1.5, twice, rtol=1e-6)
    with pytest.raises(PackError, match="has no function 'main', and no 'main'; it has: deblur, denoise"):
        package.function("main")


def test_the_only_function_goes_by_any_name(saved: Path) -> None:
    package = read_package(saved)
    assert package.name("predict") == "main"
    assert [step.op for step in package.function("predict").steps] == ["conv"]


def test_the_interface_is_read_without_the_program(saved: Path, rewrite: Any) -> None:
    """Core ML may know ops that are not known here, and says nothing of the shapes of outputs."""

    def change(model: Any, block: Any) -> None:
        model.description.output[0].type.multiArrayType.ClearField("shape")
        block.operations[-1].type = "restore"
        for dimension in block.operations[-1].outputs[0].type.tensorType.dimensions[2:]:
            dimension.ClearField("constant")

    package = read_package(rewrite(saved, change))
    inputs, outputs = package.functions["main"]
    assert inputs["x"].open_shape() == IMAGE.shape
    assert outputs["y"].open_shape() == (1, 40, "?", "?")
    with pytest.raises(PackError, match="op 'restore' of 'y': the MIL interpreter does not know the op"):
        package.function("main")


class Net(torch.nn.Module):
    """What our graphs do with sizes that are known only when they run."""

    def __init__(self) -> None:
        super().__init__()
        self.into = torch.nn.Conv2d(12, 16, 3, padding=1)
        self.norm = torch.nn.GroupNorm(4, 16)
        self.out = torch.nn.Conv2d(16, 12, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.norm(self.into(F.pixel_unshuffle(x, 2)))
        n, c, height, width = h.shape
        tokens = h.reshape(n, c, height * width).transpose(1, 2)
        h = h + F.scaled_dot_product_attention(tokens, tokens, tokens).transpose(1, 2).reshape(n, c, height, width)
        low = F.interpolate(F.avg_pool2d(h, 2), scale_factor=2, mode="bilinear", align_corners=False)
        return x + F.pixel_shuffle(self.out(F.gelu(h + low)), 2)


@pytest.fixture(scope="module")
def net() -> Net:
    torch.manual_seed(0)
    return Net().eval()


@pytest.fixture
def converted(tools: SimpleNamespace, net: Net, tmp_path: Path) -> Any:
    """converted(input, free): `net`, for the input that coremltools is told of, with free sizes or those of 16 x 16."""

    def convert(image: Any, free: bool) -> Any:
        ct = tools.ct
        sizes = {dim: 4 * torch.export.Dim(f"size{dim}", min=2, max=16) for dim in (2, 3)} if free else {}
        with tools.quiet():
            exported = torch.export.export(net, (torch.zeros(1, 3, 16, 24 if free else 16),), dynamic_shapes=(sizes,))
            model = ct.convert(
                exported.run_decompositions({}),
                convert_to="mlprogram",
                inputs=[image],
                outputs=[ct.TensorType("restored", dtype=np.float32)],
                compute_precision=ct.precision.FLOAT32,
                minimum_deployment_target=ct.target.iOS18,
                skip_model_load=True,
            )
            model.save(str(tmp_path / "net.mlpackage"))
            del model
        return read_package(tmp_path / "net.mlpackage").function("main")

    return convert


def test_a_range_of_sizes(tools: SimpleNamespace, net: Net, converted: Any) -> None:
    sizes = [tools.ct.RangeDim(8, 64, default=16), tools.ct.RangeDim(8, 4096, default=24)]
    program = converted(tools.ct.TensorType("image", (1, 3, *sizes), dtype=np.float32), free=True)
    assert "shape" in {step.op for step in program.steps}
    assert program.inputs["image"].open_shape() == (1, 3, "?", "?")
    for height, width in ((16, 16), (8, 40), (64, 12)):
        x = torch.rand(1, 3, height, width)
        np.testing.assert_allclose(program.run({"image": x.numpy()})["restored"], net(x).detach(), atol=5e-6)
    expected = r"image': expected float32 \[1, 3, 8..64, 8..4096\], got float32 \[1, 3, 66, 16\]"
    with pytest.raises(GraphError, match=expected):
        program.run({"image": np.zeros((1, 3, 66, 16), np.float32)})


def test_some_sizes(tools: SimpleNamespace, net: Net, converted: Any) -> None:
    shapes = tools.ct.EnumeratedShapes([(1, 3, 16, 24), (1, 3, 32, 16)])
    program = converted(tools.ct.TensorType("image", shapes, dtype=np.float32), free=True)
    x = torch.rand(1, 3, 32, 16)
    np.testing.assert_allclose(program.run({"image": x.numpy()})["restored"], net(x).detach(), atol=5e-6)
    with pytest.raises(GraphError, match=r"expected float32 \[1, 3, 16, 24\] or \[1, 3, 32, 16\]"):
        program.run({"image": np.zeros((1, 3, 16, 16), np.float32)})


@pytest.mark.parametrize("layout", ["RGB", "BGR"])
def test_an_image(layout: str, tools: SimpleNamespace, net: Net, converted: Any) -> None:
    """0..255 goes in, in the order of the channels that the package says; the program scales it."""
    order = getattr(tools.ct.colorlayout, layout)
    program = converted(tools.ct.ImageType("image", (1, 3, 16, 16), scale=1 / 255, color_layout=order), free=False)
    assert program.inputs["image"].colour == layout.lower()
    x = RNG.integers(0, 256, (1, 3, 16, 16)).astype(np.float32)
    expected = net(torch.from_numpy(x / 255)).detach()
    np.testing.assert_allclose(program.run({"image": x})["restored"], expected, atol=5e-6)
    with pytest.raises(GraphError, match=rf"\[1, 3, 16, 16\], an image \({layout.lower()}\) in 0..255, got uint8"):
        program.run({"image": x.astype(np.uint8)})


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def test_weights_that_are_cut_off(saved: Path) -> None:
    cut(inside(saved) / "weights" / "weight.bin")
    with pytest.raises(PackError, match=r"weight.bin is cut off.*copy the package again"):
        read_package(saved).function("main")


def test_weights_that_are_not_there(saved: Path) -> None:
    (inside(saved) / "weights" / "weight.bin").unlink()
    with pytest.raises(PackError, match=r"weight.bin cannot be read"):
        read_package(saved).function("main")


def test_a_specification_that_is_cut_off(saved: Path) -> None:
    cut(inside(saved) / "model.mlmodel")
    with pytest.raises(PackError, match=r"model.mlmodel is no Core ML specification, or a damaged one"):
        read_package(saved)


def test_a_specification_that_is_not_there(saved: Path) -> None:
    (inside(saved) / "model.mlmodel").unlink()
    with pytest.raises(PackError, match=r"model.mlmodel cannot be read"):
        read_package(saved)


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"rootModelIdentifier": "a", "itemInfoEntries": {}}'])
def test_a_manifest_that_names_nothing(content: str, saved: Path) -> None:
    (saved / "Manifest.json").write_text(content)
    with pytest.raises(PackError, match=r"Manifest.json names no model"):
        read_package(saved)


def test_a_folder_that_is_no_package(tmp_path: Path) -> None:
    with pytest.raises(PackError, match=r"Manifest.json cannot be read .*expected the manifest of a Core ML package"):
        read_package(tmp_path / "none.mlpackage")


def test_files_outside_of_the_package(saved: Path, rewrite: Any) -> None:
    manifest = json.loads((saved / "Manifest.json").read_text())
    for item in manifest["itemInfoEntries"].values():
        item["path"] = "../../other/model.mlmodel"
    original = (saved / "Manifest.json").read_text()
    (saved / "Manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(PackError, match=r"names the file .*other/model.mlmodel, which is outside of it"):
        read_package(saved)
    (saved / "Manifest.json").write_text(original)
    for name, message in (
        ("@model_path/../../../../w.bin", "outside of it"),
        ("/etc/w.bin", "expected weights in a file '@model"),
    ):
        with pytest.raises(PackError, match=message):
            read_package(rewrite(saved, lambda _, block, name=name: rename_weights(block, name))).function("main")


def rename_weights(block: Any, name: str) -> None:
    for op in block.operations:
        if op.attributes["val"].HasField("blobFileValue"):
            op.attributes["val"].blobFileValue.fileName = name


def test_another_kind_of_model(saved: Path, rewrite: Any) -> None:
    rewrite(saved, lambda model, _: model.ClearField("mlProgram"))
    with pytest.raises(PackError, match=r"expected an ML program .*, got another type of model"):
        read_package(saved)


def test_a_function_that_is_described_alone(saved: Path, rewrite: Any) -> None:
    rewrite(saved, lambda model, _: model.description.functions.add(name="other"))
    with pytest.raises(PackError, match="the function 'other' is described but not there"):
        read_package(saved)
