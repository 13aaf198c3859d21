"""Fake quantization: a model that computes in int8 while it learns, in float and with a gradient.

Weights of convolutions are rounded to signed 8-bit integers, symmetric per output channel; inputs and outputs of
convolutions to unsigned ones, asymmetric, within a clip range that was measured before. Biases compensate for the
change that quantized weights make to the mean of each channel. These are the numbers of the precision `int8` of
`pocketprior quantize`: identical for models whose kernels deployment does not change (Rep bodies, Gen2Res), close for
others.

Rounding has no gradient: it is passed straight through (Bengio et al., "Estimating or Propagating Gradients Through
Stochastic Neurons for Conditional Computation", arXiv 1308.3432), and is zero outside the clip range.

Only the arguments of convolutions change, whoever calls them: parameters and their names stay, so a checkpoint of
such a model is one of the plain model, and the two branches of a `RepConv` are quantized as their one sum.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.hooks import RemovableHandle

from ....kernels import mode
from ...pack.int8 import HISTOGRAM_BINS, MIN_WEIGHTS, QuantParams, clip_range, quant_params

__all__ = ["QuantizedConvolution", "fake_quantize", "params_of", "quantized_array", "quantized_weights"]

ARGUMENTS = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")  # of torch.conv2d, in order
RECTIFIERS = (F.relu, torch.relu)


class QuantizedConvolution(NamedTuple):
    """How one call of a convolution is quantized."""

    before: QuantParams  # of the input
    after: QuantParams | None  # of the output; None where a ReLU follows, whose output the next convolution quantizes
    means: Tensor  # (inputs,), the mean of each channel of the input


def quantized_array(x: Tensor, params: QuantParams) -> Tensor:
    """Round x to unsigned 8 bits, as ONNX's QuantizeLinear and DequantizeLinear do; no gradient outside the range."""
    scale, zero = params
    inside = x.clamp(-zero * scale, (255 - zero) * scale)
    with torch.no_grad():
        rounded = (torch.clamp(torch.round(x / x.new_full((), scale)) + zero, 0, 255) - zero) * scale
    return _straight(inside, rounded)


def quantized_weights(weights: Tensor) -> Tensor:
    """Weights (O, ...) rounded to signed 8 bits: -127..127 times a scale per output channel."""
    scales = _scales(weights)
    return _straight(weights, torch.clamp(torch.round(weights.detach() / scales), -127, 127) * scales)


def _scales(weights: Tensor) -> Tensor:
    """The scales of weights, (O, 1, ...)."""
    largest = weights.detach().abs().amax(dim=tuple(range(1, weights.ndim)), keepdim=True)
    return largest.clamp(min=torch.finfo(torch.float32).tiny * 127) / 127


def _straight(x: Tensor, rounded: Tensor) -> Tensor:
    """`rounded`, to the bit, with the gradient of x."""
    return rounded + (x - x.detach())


def params_of(values: NDArray[np.float32]) -> QuantParams:
    """The parameters of an array, over its `clip_range`, which contains zero."""
    least, largest = min(0.0, float(values.min())), max(0.0, float(values.max()))
    counts = np.histogram(values, HISTOGRAM_BINS, (least, largest))[0]
    return quant_params(*clip_range(least, largest, counts))


def fake_quantize(model: nn.Module, parts: Iterable[str], restore: Callable[[nn.Module], object]) -> None:
    """Let parts of `model`, in float, compute in int8 from now on, in place; copies of the model do so as well.

    parts: names of submodules that are called on images; "" for all of it. restore: called once on the model in float,
    to measure the inputs and outputs of its convolutions. Afterwards each part must be called as often as in this call,
    or a multiple of that: each step of a sampler has clip ranges of its own.
    """
    found: dict[str, list[QuantizedConvolution | None]] = {name: [] for name in parts}
    hooks = [hook for name, calls in found.items() for hook in _within(model.get_submodule(name), _Measured(calls))]
    with torch.no_grad():
        restore(model)
    for hook in hooks:
        hook.remove()
    for name, calls in found.items():
        _within(model.get_submodule(name), _Quantized(calls))


def _within(module: nn.Module, convolutions: _Convolutions) -> tuple[RemovableHandle, RemovableHandle]:
    """Let `convolutions` intercept every call of `module`, until the hooks are removed."""
    return (
        module.register_forward_pre_hook(convolutions.enter),
        module.register_forward_hook(convolutions.leave, always_call=True),
    )


class _Convolutions(TorchFunctionMode):
    """Intercepts the functions that a module calls; our ops run as their references, to expose their convolutions."""

    def __init__(self, calls: list[QuantizedConvolution | None]) -> None:
        super().__init__()
        self.calls, self.within = calls, ExitStack()

    def enter(self, *_: Any) -> None:
        """Before a call of the module."""
        self.within.enter_context(mode("reference"))
        self.within.enter_context(self)

    def leave(self, *_: Any) -> None:
        """After it, even if it failed."""
        self.within.close()


class _Measured(_Convolutions):
    """Measures every call of a convolution; None for one that stays in float."""

    last: Tensor | None = None  # output of the last convolution

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if func is torch.conv2d:
            given = _given(args, kwargs)
            self.calls.append(_measured(given["input"], result) if given["weight"].numel() >= MIN_WEIGHTS else None)
            self.last = result
        elif func in RECTIFIERS and args[0] is self.last and self.calls[-1] is not None:
            self.calls[-1] = self.calls[-1]._replace(after=None)
        return result


class _Quantized(_Convolutions):
    """Quantizes the calls of convolutions as they were measured, over and over in the same order.

    The input of a convolution is quantized for all its later readers too, such as a residual sum.
    """

    def __init__(self, calls: list[QuantizedConvolution | None]) -> None:
        super().__init__(calls)
        self.done = 0
        self.rounded: dict[int, tuple[Tensor, Tensor]] = {}  # by id: an array, kept alive, and its quantized form

    def leave(self, *_: Any) -> None:
        """As in `_Convolutions`; drops the arrays of this call."""
        super().leave()
        self.rounded.clear()

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        args = self.seen(args)
        kwargs = {name: self.seen(value) for name, value in (kwargs or {}).items()}
        if func is not torch.conv2d:
            return func(*args, **kwargs)
        how = self.calls[self.done % len(self.calls)]
        self.done += 1
        given = _given(args, kwargs)
        if how is None:
            return torch.conv2d(**given)
        x = given["input"]
        given["input"] = quantized_array(x.float(), how.before)
        self.rounded[id(x)] = x, given["input"]
        return _convolved(how, **given)

    def seen(self, given: Any) -> Any:
        """An argument with quantized arrays in the place of the original ones."""
        if isinstance(given, Tensor):
            return self.rounded[id(given)][1] if id(given) in self.rounded else given
        return type(given)(self.seen(value) for value in given) if type(given) in (tuple, list) else given


def _given(args: tuple[Any, ...], kwargs: Mapping[str, Any] | None) -> dict[str, Any]:
    return {**dict(zip(ARGUMENTS, args, strict=False)), **(kwargs or {})}


def _measured(x: Tensor, result: Tensor) -> QuantizedConvolution:
    before, after = (params_of(values.float().cpu().numpy()) for values in (x, result))
    return QuantizedConvolution(before, after, x.float().mean(dim=(0, 2, 3)))


def _convolved(
    how: QuantizedConvolution, input: Tensor, weight: Tensor, bias: Tensor | None = None, groups: int = 1, **others: Any
) -> Tensor:
    """The convolution of a quantized input, always in float32: bfloat16 cannot represent the quantized values.

    The bias subtracts the mean effect of the change of the weights (Nagel et al., "Data-Free Quantization Through
    Weight Equalization and Bias Correction", ICCV 2019, section 4.2), and is a multiple of the product of both scales.
    """
    with torch.autocast(input.device.type, enabled=False):
        weight = weight.float()
        rounded = quantized_weights(weight)
        change = (rounded - weight).detach().sum(dim=(2, 3)).unflatten(0, (groups, -1))
        shift = torch.einsum("goi,gi->go", change, how.means.to(change).unflatten(0, (groups, -1))).flatten()
        bias = -shift if bias is None else bias.float() - shift
        one = _scales(weight).flatten() * how.before.scale
        result = torch.conv2d(
            input, rounded, _straight(bias, torch.round(bias.detach() / one) * one), groups=groups, **others
        )
        return result if how.after is None else quantized_array(result, how.after)
