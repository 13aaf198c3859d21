"""The graphs of the three systems: ONNX equals PyTorch, and PyTorch's graphs equal the models' own methods."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from pocketprior.core.errors import UsageError
from pocketprior.core.models.deploy.rewrite import eager
from pocketprior.core.models.diffir import PERIOD
from pocketprior.core.sampling.samplers import ddim
from pocketprior.core.sampling.schedule import ddpm, strided
from pocketprior.core.sampling.steps import Steps
from pocketprior.export.systems.diffir import diffir_graphs
from pocketprior.export.systems.dtpm import dtpm_graphs
from pocketprior.export.systems.gen2res import gen2res_graphs
from pocketprior.export.systems.source import ModelGraph, receptive_field, traced
from pocketprior.export.targets.onnx import convert_onnx
from pocketprior.export.writer import facts as measure
from support.small_checkpoints import MODELS
from support.small_models import CONFIG, DIFFIR, SAMPLING, small_diffir, small_encoder, small_gen2res, small_model

MULTIPLE = 4
FEW = Steps.of(*strided(3, ddpm(), 200))  # of a Gen2Res


def exported(graph: ModelGraph, path: Path, multiple: int = MULTIPLE, **inputs: torch.Tensor) -> torch.Tensor:
    """What ONNX Runtime makes of those of the inputs that the graph takes, its first output."""
    convert_onnx(graph, traced(graph, multiple), path, metadata={})
    feed = {name: inputs[name].numpy() for name in graph.inputs}
    return torch.from_numpy(onnxruntime.InferenceSession(path).run(None, feed)[0])


def assert_same(found: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))


@pytest.fixture(scope="module")
def graphs() -> dict[str, ModelGraph]:
    return dtpm_graphs(small_model(), small_encoder(), SAMPLING)


@pytest.fixture(scope="module")
def files(graphs: dict[str, ModelGraph], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("onnx")
    for name, graph in graphs.items():
        convert_onnx(graph, traced(graph, MULTIPLE), folder / f"{name}.onnx", metadata={"answer": "42"})
    return {name: folder / f"{name}.onnx" for name in graphs}


@pytest.mark.parametrize("size", [(4, 4), (8, 20), (36, 12)])
@pytest.mark.parametrize("name", ["encode", "predict", "denoise", "fused"])
def test_onnx_equals_torch(
    name: str, size: tuple[int, int], graphs: dict[str, ModelGraph], files: dict[str, Path]
) -> None:
    example = graphs[name].example(*size)
    (found,) = onnxruntime.InferenceSession(files[name]).run(None, {k: v.numpy() for k, v in example.items()})
    expected = graphs[name].module(**example).numpy()
    # Float32 rounding through four steps; the values are of order 1.
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


def test_export_is_reproducible_and_tells_nothing_of_the_machine(
    graphs: dict[str, ModelGraph], files: dict[str, Path], tmp_path: Path
) -> None:
    denoise = graphs["denoise"]
    convert_onnx(denoise, traced(denoise, MULTIPLE), tmp_path / "again.onnx", metadata={"answer": "42"})
    written = (tmp_path / "again.onnx").read_bytes()
    assert written == files["denoise"].read_bytes()
    assert str(Path(__file__).parents[3]).encode() not in written
    assert b".py" not in written


def test_files_use_standard_operators_and_carry_metadata(files: dict[str, Path]) -> None:
    for path in files.values():
        model = onnx.load(path)
        assert {opset.domain for opset in model.opset_import} == {""}
        assert [(p.key, p.value) for p in model.metadata_props] == [("answer", "42")]


def test_fused_graph_is_the_loop(graphs: dict[str, ModelGraph]) -> None:
    example = graphs["fused"].example(16, 24)
    base = graphs["predict"].module(example["image"])

    def denoise(x: torch.Tensor, step: int) -> torch.Tensor:
        t = torch.full((1,), SAMPLING.times[step])
        return graphs["denoise"].module(x=x, base=base, code=example["code"], t=t)

    residual = ddim(denoise, example["noise"], SAMPLING.levels) * small_model().residual_scale
    expected = (base + SAMPLING.gain * example["strength"] * residual).clamp(0, 1)
    torch.testing.assert_close(graphs["fused"].module(**example), expected, rtol=0, atol=1e-6)


def test_receptive_field_is_exact(graphs: dict[str, ModelGraph]) -> None:
    """A single changed pixel moves nothing beyond it, and something at its rim."""
    reach = receptive_field(graphs["predict"], MULTIPLE, limit=48)
    graph = eager(graphs["predict"].module, ["image"], "base")
    image = graphs["predict"].example(128, 128)["image"].numpy()
    plain = graph(image=image)["base"]
    furthest = 0
    for y in range(64, 64 + MULTIPLE):
        changed = image.copy()
        changed[:, :, y, 64] += 1000
        moved = np.argwhere(np.abs(graph(image=changed)["base"] - plain).max(axis=(0, 1)) > 0)
        furthest = max(furthest, int(np.abs(moved - [y, 64]).max()))
    assert furthest <= reach
    assert reach - furthest <= MULTIPLE


def test_receptive_field_beyond_the_window_is_an_error(graphs: dict[str, ModelGraph]) -> None:
    with pytest.raises(ValueError, match="is larger than the"):
        receptive_field(graphs["predict"], MULTIPLE, limit=8)


def test_costs_are_counted(graphs: dict[str, ModelGraph]) -> None:
    class Doubled(torch.nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.conv2d(image, torch.ones(5, 3, 3, 3), padding=1)

    graph = ModelGraph(Doubled(), graphs["predict"].inputs, {})
    assert measure.macs_per_pixel(graph) == 5 * 3 * 9
    # Input, and output of five channels, alive together.
    assert measure.bytes_per_pixel(graph) == pytest.approx(measure._ALLOCATOR * 4 * (3 + 5), abs=2)
    total = sum(p.numel() for p in small_model().predictor.parameters())
    assert 0 < measure.parameters(graphs["predict"]) < total  # branches are merged


def test_counted_memory_covers_a_real_runtime(graphs: dict[str, ModelGraph], files: dict[str, Path]) -> None:
    import subprocess
    import sys

    program = """
import sys, numpy, onnxruntime
session = onnxruntime.InferenceSession(sys.argv[1])
side = int(sys.argv[2])
shapes = {i.name: [side if isinstance(s, str) else s for s in i.shape] for i in session.get_inputs()}
session.run(None, {name: numpy.zeros(shape, numpy.float32) for name, shape in shapes.items()})
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""
    if not Path("/proc/self/status").exists():
        pytest.skip("needs the peak memory that Linux reports")

    def peak(side: int) -> int:
        command = [sys.executable, "-c", program, str(files["fused"]), str(side)]
        return 1024 * int(subprocess.run(command, capture_output=True, check=True, text=True).stdout)

    per_pixel = (peak(1024) - peak(256)) / (1024**2 - 256**2)
    assert per_pixel <= measure.bytes_per_pixel(graphs["fused"])


@pytest.fixture(scope="module")
def global_graphs() -> dict[str, ModelGraph]:
    """Those that see all of a tile, by the folder and the name of their file."""
    denoise = gen2res_graphs(small_gen2res(), "ancestral", FEW, 1.0)["denoise"]
    return {f"diffir/{n}": graph for n, graph in diffir_graphs(small_diffir(), 1.0).items()} | {
        "gen2res/denoise": denoise
    }


@pytest.mark.parametrize("size", [(4, 4), (8, 20), (36, 12)])
@pytest.mark.parametrize(
    "name", ["diffir/encode", "diffir/denoise", "diffir/compose", "diffir/fused", "gen2res/denoise"]
)
def test_onnx_equals_torch_in_the_other_systems(
    name: str, size: tuple[int, int], global_graphs: dict[str, ModelGraph], written: Callable[[str], Path]
) -> None:
    system, graph = name.split("/")
    session = onnxruntime.InferenceSession(written(system) / f"{graph}.onnx")
    example = global_graphs[name].example(*size)
    found = session.run(None, {k: v.numpy() for k, v in example.items()})
    expected = global_graphs[name].module(**example)
    for array, tensor in zip(found, expected if isinstance(expected, tuple) else (expected,), strict=True):
        np.testing.assert_allclose(array, tensor.numpy(), rtol=0, atol=1e-4)
        assert np.abs(array).max() > 0.01


@pytest.mark.parametrize("prior_norm", [False, True])
def test_diffir_graphs_are_the_model(prior_norm: bool) -> None:
    """Features, the chain over `denoise`, and compose give what `Diffir` gives for a whole image; so does fused."""
    config = replace(DIFFIR, prior_norm=prior_norm)
    model, graphs = small_diffir(config), diffir_graphs(small_diffir(config), 1.0)
    image, x = torch.rand(1, 3, 24, 32), torch.randn(1, DIFFIR.ipr)
    features = graphs["encode"].module(image)
    time = (DIFFIR.steps - 1) / DIFFIR.steps
    assert model.denoiser is not None
    first = graphs["denoise"].module(x, features, torch.tensor([time]))
    expected = model.denoiser(model.condition(image), torch.tensor([[time / PERIOD]]), x)
    torch.testing.assert_close(first, expected, rtol=0, atol=1e-6 * max(1, float(expected.abs().max())))
    restored = graphs["compose"].module(image, first)
    assert_same(restored, model.restore(image, first))
    share = 1e-3  # little enough that hardly any pixel of this random model is clipped
    change = model.restore(image, model.prior(model.condition(image), x)) - image
    found = graphs["fused"].module(image, x, features, torch.tensor([share]))
    assert_same(found, (image + share * change).clamp(0, 1))


def test_diffir_with_a_normed_prior_in_a_runtime(tmp_path: Path) -> None:
    graphs = diffir_graphs(small_diffir(replace(DIFFIR, prior_norm=True)), 1.0)
    for name in ("denoise", "compose"):
        inputs = graphs[name].example(24, 32)
        assert_same(exported(graphs[name], tmp_path / f"{name}.onnx", **inputs), graphs[name].module(**inputs))


@pytest.mark.parametrize("change", [{"scale": 2}, {"inputs": 4}, {"steps": 0}])
def test_diffir_that_no_pack_can_hold(change: dict[str, int]) -> None:
    with pytest.raises(UsageError, match=r"this DiffIR|expected a DiffIR"):
        diffir_graphs(small_diffir(replace(DIFFIR, **change)), 1.0)


@pytest.mark.parametrize("change", [{"structure_slot": "y_d"}, {"code_of": "y_E"}, {"prediction": "x0"}])
def test_dtpm_variants_are_the_model(change: dict[str, str]) -> None:
    """The split graphs, put together, give what the fused graph and `Dtpm` give."""
    model, encoder = small_model(replace(CONFIG, **change)), small_encoder()
    graphs = dtpm_graphs(model, encoder, SAMPLING)
    image, noise = torch.rand(1, 3, 16, 24), torch.randn(1, 3, 16, 24)
    thumbnail, strength = torch.rand(1, 3, 16, 16), torch.ones(1)
    code, base = graphs["encode"].module(thumbnail), graphs["predict"].module(image)
    torch.testing.assert_close(code, model.encode(encoder, thumbnail), rtol=0, atol=1e-5)
    arrays = {"image": image, "base": base, "code": code}

    def denoise(x: torch.Tensor, step: int) -> torch.Tensor:
        given = arrays | {"x": x, "t": torch.full((1,), SAMPLING.times[step])}
        return graphs["denoise"].module(**{name: given[name] for name in graphs["denoise"].inputs})

    residual = ddim(denoise, noise, SAMPLING.levels, model.config.prediction) * model.residual_scale
    fused = graphs["fused"].module(image=image, noise=noise, code=code, strength=strength)
    torch.testing.assert_close(fused, (base + SAMPLING.gain * residual).clamp(0, 1), rtol=0, atol=1e-5)
    whole = model(image, code, noise, SAMPLING.gain * strength, SAMPLING.levels, SAMPLING.times)
    torch.testing.assert_close(fused, whole, rtol=0, atol=1e-5)


def test_attention_needs_memory_for_its_scores() -> None:
    class Attended(torch.nn.Module):
        def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
            rows = x.flatten(2).transpose(1, 2)[:, None] * t
            return torch.nn.functional.scaled_dot_product_attention(rows, rows, rows)

    graph = ModelGraph(Attended(), gen2res_graphs(small_gen2res(), "ddim", FEW, 1.0)["denoise"].inputs, {})
    for tile in (8, 16):  # scores before and after the softmax, beside queries and the result
        scores, rows = 2 * 4 * tile**2, 4 * 3
        assert measure.bytes_per_pixel(graph, tile) == pytest.approx(measure._ALLOCATOR * (scores + 3 * rows), rel=0.15)


@pytest.mark.parametrize("body", MODELS)
def test_exported_dtpm_is_the_trained_one(body: str, tmp_path: Path) -> None:
    """Rewritten for deployment, and the same function."""
    model = small_model(replace(MODELS[body], semantic=CONFIG.semantic))
    graphs = dtpm_graphs(model, small_encoder(), SAMPLING)
    image, x, code = torch.rand(1, 3, 32, 48), torch.randn(1, 3, 32, 48), torch.randn(1, CONFIG.semantic.code)
    base, t = model.predictor(image), torch.tensor([0.4])
    given = {"image": image, "base": base, "x": x, "code": code, "t": t, "amount": torch.ones(1)}
    assert_same(exported(graphs["predict"], tmp_path / "predict.onnx", model.multiple_of, **given), base)
    expected = model.denoise(x, image, base, code, t)
    assert_same(exported(graphs["denoise"], tmp_path / "denoise.onnx", model.multiple_of, **given), expected)


def test_exported_gen2res_is_the_trained_one(tmp_path: Path) -> None:
    model, x, t = small_gen2res(), torch.randn(1, 3, 16, 24), torch.tensor([0.4])
    graph = gen2res_graphs(model, "ddim", FEW, 1.0)["denoise"]
    assert_same(exported(graph, tmp_path / "denoise.onnx", x=x, t=t), model(x, t)[:, :3])
