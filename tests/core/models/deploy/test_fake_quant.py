"""Eight bits while training are those of the exporter and of ONNX, wherever a convolution is called from."""

from __future__ import annotations

import copy

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from pocketprior.core.models.blocks import RepBlock, merge_branches
from pocketprior.core.models.deploy.fake_quant import fake_quantize, params_of, quantized_array, quantized_weights
from pocketprior.core.models.texture_prior import GuidanceAdapter
from pocketprior.core.pack.int8 import MIN_WEIGHTS, QuantParams
from pocketprior.export.targets import calibration
from pocketprior.export.targets import weights as layers
from pocketprior.export.targets.onnx import quantized_graph
from pocketprior.export.targets.weights import dequantize, quantize_weights

PARAMS = (QuantParams(0.011764707, 85), QuantParams(0.0027450982, 0), QuantParams(1 / 3, 255), QuantParams(1.0, 7))


class Net(nn.Module):
    """A plain convolution, a merged one, one with a ReLU after it, and convolutions inside an op of ours."""

    def __init__(self) -> None:
        super().__init__()
        self.intro = nn.Conv2d(3, 16, 3, padding=1)
        self.block = RepBlock(16, 24)
        self.adapter = GuidanceAdapter(16, 16, 1)
        self.end = nn.Conv2d(16, 16, 3, padding=1, groups=2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return 0.5 * self.end(self.adapter(self.block(self.intro(x)), x))


@pytest.fixture
def net() -> Net:
    """With weights that do something everywhere."""
    random = torch.Generator().manual_seed(0)
    net = Net()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(0.15 * torch.randn(parameter.shape, generator=random))
    return net


@pytest.fixture
def picture() -> Tensor:
    return torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def by_onnx(x: np.ndarray, scale: np.ndarray, zero: np.ndarray, axis: int = 0) -> np.ndarray:
    """x through QuantizeLinear and DequantizeLinear in ONNX Runtime."""
    graph = helper.make_graph(
        [
            helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["codes"], axis=axis),
            helper.make_node("DequantizeLinear", ["codes", "scale", "zero"], ["y"], axis=axis),
        ],
        "pair",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, x.shape)],
        [numpy_helper.from_array(scale, "scale"), numpy_helper.from_array(zero, "zero")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"x": x})[0])


@pytest.mark.parametrize("params", PARAMS)
def test_arrays_are_those_of_onnx_to_the_bit(params: QuantParams) -> None:
    random = np.random.default_rng(0)
    halves = (np.arange(-600, 600) / 2 * np.float32(params.scale)).astype(np.float32)  # where rounding is to even
    x = np.concatenate([halves, random.normal(0, 100 * params.scale, 20000).astype(np.float32)])
    expected = by_onnx(x, np.float32(params.scale), np.uint8(params.zero_point))
    found = quantized_array(
        torch.from_numpy(x), QuantParams(float(np.float32(params.scale)), params.zero_point)
    ).numpy()
    assert np.array_equal(found, expected)
    assert len(np.unique(found)) == 256


@pytest.mark.parametrize("shape", [(16, 8, 3, 3), (5, 1, 7, 7), (300, 1, 1, 1)])
def test_weights_are_those_of_the_exporter_and_of_onnx_to_the_bit(shape: tuple[int, ...]) -> None:
    weights = np.random.default_rng(0).normal(0, 1, shape).astype(np.float32)
    weights[0] = 0
    found = quantized_weights(torch.from_numpy(weights)).numpy()
    code = quantize_weights(weights, "int8")
    assert np.array_equal(found, dequantize(code, shape))
    assert np.array_equal(found, by_onnx(weights, code.scale[:, 0], np.zeros(len(weights), np.int8)))


@pytest.mark.parametrize("shift", [-2.0, 0.0, 0.7, 5.0])
def test_units_are_those_of_the_exporter(shift: float) -> None:
    values = (np.random.default_rng(0).standard_t(3, (2, 8, 16, 16)) + shift).astype(np.float32)
    nodes = [helper.make_node("Conv", ["x", "w"], ["y"])]
    weights = numpy_helper.from_array(np.ones((MIN_WEIGHTS // 8, 8, 1, 1), np.float32), "w")
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("x", "y")]
    model = helper.make_model(
        helper.make_graph(nodes, "g", ends[:1], ends[1:], [weights]),
        opset_imports=[helper.make_opsetid("", 20)],
        ir_version=9,
    )
    found = calibration.ranges(model, [{"x": values}])["x"]
    assert params_of(values) == calibration.params_of(found)
    assert params_of(np.zeros(3, np.float32)) == (np.float32(1e-12), 0)


def test_the_gradient_goes_straight_through_where_nothing_is_cut_off() -> None:
    x = torch.tensor([-2.0, -0.3, 0.0, 0.4, 3.0], requires_grad=True)
    quantized_array(x, QuantParams(2 / 255, 128)).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [0, 1, 1, 1, 0]
    weights = torch.randn(4, 3, 3, 3, requires_grad=True)
    (quantized_weights(weights) * 2).sum().backward()
    assert weights.grad is not None
    assert torch.equal(weights.grad, torch.full_like(weights, 2))


def exported(net: nn.Module, picture: Tensor) -> onnx.ModelProto:
    program = torch.onnx.export(merge_branches(net), (picture,), dynamo=True, opset_version=20, verbose=False)
    assert program is not None
    return program.model_proto


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_a_model_fake_quantize_is_what_quantize_makes_of_it(net: Net, picture: Tensor) -> None:
    """Bounds, biases, merged kernels, what residual sums read, the ReLU: the same numbers but for float32."""
    with torch.no_grad():
        plain = net(picture)
    model = exported(net, picture)
    feed = {model.graph.input[0].name: picture.numpy()}
    values = calibration.ranges(model, [feed])
    weights = layers.initializers(model)
    digests = {layers.weights_digest(weights[node.input[1]]): "int8" for node in layers.uses(model)}
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        quantized_graph(model, digests, values).SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    expected = torch.from_numpy(np.asarray(session.run(None, feed)[0]))
    fake_quantize(net, [""], lambda net: net(picture))
    with torch.no_grad():
        found = net(picture)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    assert (expected - plain).abs().max() > 1e-2
    assert torch.equal(net(picture), found)  # a second call, in the same order


def test_parameters_stay_and_copies_compute_alike(net: Net, picture: Tensor) -> None:
    names = [name for name, _ in net.named_parameters()]
    plain = copy.deepcopy(net)
    fake_quantize(net, ["intro", "block", "adapter", "end"], lambda net: net(picture))
    assert [name for name, _ in net.named_parameters()] == names
    assert all(torch.equal(a, b) for a, b in zip(net.state_dict().values(), plain.state_dict().values(), strict=True))
    copied = copy.deepcopy(net)
    assert torch.equal(copied(picture), net(picture))
    assert not torch.equal(plain(picture), net(picture))
    net(picture).square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in net.parameters())


def test_nothing_is_changed_outside_and_after_a_failure(net: Net, picture: Tensor) -> None:
    fake_quantize(net, [""], lambda net: net(picture))
    kernel = torch.rand(MIN_WEIGHTS, 3, 1, 1)
    expected = F.conv2d(picture, kernel)
    net(picture)
    assert torch.equal(F.conv2d(picture, kernel), expected)
    with pytest.raises(RuntimeError):
        net(picture[:, :2])
    assert torch.equal(F.conv2d(picture, kernel), expected)
