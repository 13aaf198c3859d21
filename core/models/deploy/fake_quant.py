"""A model that computes in 8 bits while it learns: the numbers of integer arithmetic, in float, with a gradient.

Weights of convolutions pass through 8 bits, signed and symmetric per output channel; what goes into a convolution and
what comes out of it through 8 bits, unsigned and asymmetric, between bounds that were measured before. Biases take back
what coded weights add to the mean of each channel. These are the numbers of the level `int8` of `pocketprior quantize`:
of models whose kernels deployment does not change (Rep bodies, Gen2Res) the same, of others near them.

Rounding has no gradient: it is passed straight through (Bengio et al., "Estimating or Propagating Gradients Through
Stochastic Neurons for Conditional Computation", arXiv 1308.3432), and is zero for what the bounds cut off.

Only what a convolution is called with is changed, whoever calls it: parameters and their names stay, so a checkpoint of
such a model is one of the plain model, and the two branches of a `RepConv` are coded as the one kernel they amount to.
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
from ...pack.int8 import BINS, LEAST, Unit, reach, unit

__all__ = ["Convolution", "coded_array", "coded_weights", "in_eight_bits", "unit_of"]

ARGUMENTS = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")  # of torch.conv2d, in order
RECTIFIERS = (F.relu, torch.relu)


class Convolution(NamedTuple):
    """How one call of a convolution is coded.

    after: None where a ReLU follows, behind which the next convolution codes what is left. means: of each channel of
    what goes in, (inputs,).
    """

    before: Unit
    after: Unit | None
    means: Tensor


def coded_array(x: Tensor, unit: Unit) -> Tensor:
    """x as unsigned 8 bits hold it: what ONNX's QuantizeLinear and DequantizeLinear make of it. No gradient beyond."""
    scale, zero = unit
    inside = x.clamp(-zero * scale, (255 - zero) * scale)
    with torch.no_grad():
        coded = (torch.clamp(torch.round(x / x.new_full((), scale)) + zero, 0, 255) - zero) * scale
    return _straight(inside, coded)


def coded_weights(weights: Tensor) -> Tensor:
    """Weights (O, ...) as signed 8 bits hold them: -127 to 127 times a scale per output channel."""
    scales = _scales(weights)
    return _straight(weights, torch.clamp(torch.round(weights.detach() / scales), -127, 127) * scales)


def _scales(weights: Tensor) -> Tensor:
    """Of the codes of weights, (O, 1, ...)."""
    largest = weights.detach().abs().amax(dim=tuple(range(1, weights.ndim)), keepdim=True)
    return largest.clamp(min=torch.finfo(torch.float32).tiny * 127) / 127


def _straight(x: Tensor, coded: Tensor) -> Tensor:
    """`coded`, to the bit, with the gradient of x."""
    return coded + (x - x.detach())


def unit_of(values: NDArray[np.float32]) -> Unit:
    """The unit of an array, of which `reach` says how far its codes reach; zero is among them."""
    least, largest = min(0.0, float(values.min())), max(0.0, float(values.max()))
    counts = np.histogram(values, BINS, (least, largest))[0]
    return unit(*reach(least, largest, counts))


def in_eight_bits(model: nn.Module, parts: Iterable[str], restore: Callable[[nn.Module], object]) -> None:
    """Let `parts` of `model`, submodules that are called on pictures ("" for all of it), compute in 8 bits, in place.

    restore: called once on the model in float, to measure what goes through its convolutions. From then on each of the
    parts must be called as often as there, or a whole number of times as often: the steps of a sampler have their own
    bounds. Copies of the model compute in 8 bits as well.
    """
    found: dict[str, list[Convolution | None]] = {name: [] for name in parts}
    hooks = [hook for name, calls in found.items() for hook in _within(model.get_submodule(name), _Measured(calls))]
    with torch.no_grad():
        restore(model)
    for hook in hooks:
        hook.remove()
    for name, calls in found.items():
        _within(model.get_submodule(name), _Coded(calls))


def _within(module: nn.Module, convolutions: _Convolutions) -> tuple[RemovableHandle, RemovableHandle]:
    """Have every call of `module` seen by `convolutions`, until the hooks are removed."""
    return (
        module.register_forward_pre_hook(convolutions.enter),
        module.register_forward_hook(convolutions.leave, always_call=True),
    )


class _Convolutions(TorchFunctionMode):
    """Sees what a module calls while it runs; ops of ours run as their references, whose convolutions can be seen."""

    def __init__(self, calls: list[Convolution | None]) -> None:
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

    last: Tensor | None = None  # what the last convolution gave

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if func is torch.conv2d:
            given = _given(args, kwargs)
            self.calls.append(_measured(given["input"], result) if given["weight"].numel() >= LEAST else None)
            self.last = result
        elif func in RECTIFIERS and args[0] is self.last and self.calls[-1] is not None:
            self.calls[-1] = self.calls[-1]._replace(after=None)
        return result


class _Coded(_Convolutions):
    """Codes the calls of convolutions as they were measured, over and over in the same order.

    What goes into a convolution is coded for whoever reads it afterwards: a residual sum as well.
    """

    def __init__(self, calls: list[Convolution | None]) -> None:
        super().__init__(calls)
        self.done = 0
        self.coded: dict[int, tuple[Tensor, Tensor]] = {}  # by id: what was coded, which is kept, and its codes' values

    def leave(self, *_: Any) -> None:
        """As in `_Convolutions`; the arrays of this call are forgotten."""
        super().leave()
        self.coded.clear()

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
        given["input"] = coded_array(x.float(), how.before)
        self.coded[id(x)] = x, given["input"]
        return _convolved(how, **given)

    def seen(self, given: Any) -> Any:
        """An argument with coded arrays in the place of what was coded."""
        if isinstance(given, Tensor):
            return self.coded[id(given)][1] if id(given) in self.coded else given
        return type(given)(self.seen(value) for value in given) if type(given) in (tuple, list) else given


def _given(args: tuple[Any, ...], kwargs: Mapping[str, Any] | None) -> dict[str, Any]:
    return {**dict(zip(ARGUMENTS, args, strict=False)), **(kwargs or {})}


def _measured(x: Tensor, result: Tensor) -> Convolution:
    before, after = (unit_of(values.float().cpu().numpy()) for values in (x, result))
    return Convolution(before, after, x.float().mean(dim=(0, 2, 3)))


def _convolved(
    how: Convolution, input: Tensor, weight: Tensor, bias: Tensor | None = None, groups: int = 1, **others: Any
) -> Tensor:
    """The convolution of a coded input, in float32 whatever the precision of the run: bfloat16 rounds between codes.

    The bias takes back the mean of the convolution with the change of the weights (Nagel et al., "Data-Free
    Quantization Through Weight Equalization and Bias Correction", ICCV 2019, section 4.2), and is a whole number of
    what a product of two codes stands for.
    """
    with torch.autocast(input.device.type, enabled=False):
        weight = weight.float()
        coded = coded_weights(weight)
        change = (coded - weight).detach().sum(dim=(2, 3)).unflatten(0, (groups, -1))
        shift = torch.einsum("goi,gi->go", change, how.means.to(change).unflatten(0, (groups, -1))).flatten()
        bias = -shift if bias is None else bias.float() - shift
        one = _scales(weight).flatten() * how.before.scale
        result = torch.conv2d(
            input, coded, _straight(bias, torch.round(bias.detach() / one) * one), groups=groups, **others
        )
        return result if how.after is None else coded_array(result, how.after)
