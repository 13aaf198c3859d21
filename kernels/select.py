"""The one place that decides whether an op runs as its PyTorch reference or as its fused Triton implementation.

The decision depends on the mode and on the inputs, never on what happened before: an exception in a kernel is an error,
and under `mode("fused")` so is an input that the kernel cannot take. `operator` makes the fused implementation known to
PyTorch.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from importlib import import_module
from importlib.util import find_spec
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map_only, tree_unflatten

__all__ = ["DTYPES", "MODES", "Shape", "UnsupportedError", "choose", "map_tensors", "mode", "operator", "tensors_in"]

MODES = ("auto", "fused", "reference")
DTYPES = (torch.float32, torch.float16, torch.bfloat16)
Shape: TypeAlias = tuple[int, int, int, int]  # (N, C, H, W)

_TRITON = find_spec("triton") is not None
_INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"  # Triton reads the same variable when it is imported
_mode: ContextVar[str | None] = ContextVar("pocketprior.kernels.mode", default=None)
# Threads without a mode of their own use the innermost open block: autograd runs backward passes, and the forward
# passes that checkpointing repeats, in threads that inherit no context.
_open: dict[object, str] = {}
_innermost = "auto"


class UnsupportedError(RuntimeError):
    """The kernel cannot take the input under `mode("fused")`; the message says why."""


@contextmanager
def mode(name: str) -> Iterator[None]:
    """Choose how ops run within the block.

    The mode holds for this thread and for threads that have no mode of their own, such as autograd's. An export always
    traces the reference.

    Args:
        name: "auto": fused on CUDA where the kernel takes the input, else the reference; "fused": fused, or
            UnsupportedError; "reference": plain PyTorch.

    Raises:
        ValueError: for another name.
    """
    global _innermost
    if name not in MODES:
        raise ValueError(f"unknown mode '{name}'; choose one of: {', '.join(MODES)}")
    token, block = _mode.set(name), object()
    _open[block] = _innermost = name
    try:
        yield
    finally:
        _mode.reset(token)
        del _open[block]
        _innermost = next(reversed(_open.values()), "auto")


def choose(
    reference: Callable[..., Tensor],
    fused: Callable[..., Tensor],
    unsupported: Callable[..., str | None],
    *args: Any,
) -> Tensor:
    """Call `reference` or `fused` with `args`, of which the first is the tensor that decides.

    Under autocast the fused implementation gets all tensors in autocast's dtype, as a convolution does.

    Args:
        reference: the op in plain PyTorch.
        fused: its Triton implementation.
        unsupported: returns why the kernel cannot take the arguments, or None.
        *args: tensors, tuples of tensors, and options of the op.

    Raises:
        UnsupportedError: under `mode("fused")`, if the kernel cannot take the arguments.
    """
    current = _current()
    if current == "reference" or torch.compiler.is_exporting():
        return reference(*args)
    reason = _unavailable(args[0], current)
    if reason is None:
        cast = _autocast(args)
        reason = _mixed(cast) or unsupported(*cast)
        if reason is None:
            return fused(*cast)
    if current == "fused":
        raise UnsupportedError(f"{reference.__module__.rpartition('.')[2]} cannot run fused: {reason}")
    return reference(*args)


def operator(
    name: str, arguments: str, *, images: int = 1, kept: Callable[..., list[Tensor]] = lambda *_: []
) -> Callable[..., Tensor]:
    """Register the Triton implementation of an op as an operator of PyTorch, with fake and autograd registrations.

    NAME_triton has `forward(*arguments)`, which returns the result, channels_last and of the shape of the first
    argument, and what the backward pass needs; and `backward(dy, kept, *arguments, *needed)`, which returns the
    gradients of all tensors among the arguments, in their order.

    Args:
        name: of the op.
        arguments: of the op, as a PyTorch schema names them: "Tensor x, int groups, Tensor? film".
        images: how many of the first arguments are images, whose gradients are channels_last. Of each but the first
            `needed` says whether its gradient is needed; if not, it is empty.
        kept: of the op's arguments: uninitialised tensors like those that are kept for the backward pass.
    """
    qualified = f"pocketprior::{name}"

    def triton() -> Any:
        return import_module(f".{name}_triton", __package__)

    @torch.library.custom_op(f"{qualified}_forward", mutates_args=(), schema=f"({arguments}) -> Tensor[]")
    def forward(*args: Any) -> list[Tensor]:
        return [*triton().forward(*args)]

    @forward.register_fake
    def _(*args: Any) -> list[Tensor]:
        return [torch.empty_like(args[0], memory_format=torch.channels_last), *kept(*args)]

    schema = f"(Tensor dy, Tensor[] kept, bool[] needed, {arguments}) -> Tensor[]"

    @torch.library.custom_op(f"{qualified}_backward", mutates_args=(), schema=schema)
    def backward(dy: Tensor, kept: list[Tensor], needed: list[bool], *args: Any) -> list[Tensor]:
        return [*triton().backward(dy, kept, *args, *needed)]

    @backward.register_fake
    def _(dy: Tensor, kept: list[Tensor], needed: list[bool], *args: Any) -> list[Tensor]:
        del dy, kept
        return [
            *(
                torch.empty_like(image, memory_format=torch.channels_last) if wanted else image.new_empty(0)
                for image, wanted in zip(args[:images], (True, *needed), strict=True)
            ),
            *(a.new_empty(a.shape) for a in tensors_in(args[images:])),
        ]

    def save(ctx: Any, inputs: tuple[Any, ...], output: list[Tensor]) -> None:
        leaves, ctx.structure = tree_flatten(inputs)
        ctx.others = {i: leaf for i, leaf in enumerate(leaves) if not isinstance(leaf, Tensor)}
        ctx.mark_non_differentiable(*output[1:])
        ctx.set_materialize_grads(False)  # or images of zeros would be made for what is kept
        ctx.save_for_backward(*tensors_in(leaves), *output[1:])

    def gradients(ctx: Any, found: list[Tensor]) -> Any:
        count = ctx.structure.num_leaves
        saved = iter(ctx.saved_tensors)
        leaves = [ctx.others[i] if i in ctx.others else next(saved) for i in range(count)]
        args = tree_unflatten(leaves, ctx.structure)
        made = iter(backward(found[0], [*saved], [*ctx.needs_input_grad[1:images]], *args))
        return tree_unflatten([None if i in ctx.others else next(made) for i in range(count)], ctx.structure)

    forward.register_autograd(gradients, setup_context=save)
    torch.library.define(qualified, f"({arguments}) -> Tensor")
    torch.library.impl(qualified, "CompositeImplicitAutograd", lambda *args: forward(*args)[0])
    return getattr(torch.ops.pocketprior, name).default


def tensors_in(args: Sequence[Any]) -> list[Tensor]:
    """Return the tensors among the arguments of an op, including those inside tuples, in their order."""
    return [leaf for leaf in tree_leaves(args) if isinstance(leaf, Tensor)]


def map_tensors(change: Callable[[Tensor], Tensor], args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return the arguments of an op with `change` applied to every tensor; named tuples keep their type."""
    return tree_map_only(Tensor, change, args)


def _current() -> str:
    # torch.compile guards a global but cannot trace a ContextVar.
    return _innermost if torch.compiler.is_compiling() else _mode.get() or _innermost


def _unavailable(x: Tensor, current: str) -> str | None:
    """Why no kernel can run here at all."""
    if not _TRITON:
        return "the package 'triton' is not installed"
    if x.device.type != "cuda" and not (current == "fused" and _INTERPRETED):
        return f"the input is on '{x.device.type}'; kernels run on 'cuda'"
    return None


def _autocast(args: tuple[Any, ...]) -> tuple[Any, ...]:
    device = args[0].device.type
    if not torch.is_autocast_enabled(device):
        return args
    dtype = torch.get_autocast_dtype(device)
    return map_tensors(lambda a: a.to(dtype) if a.is_floating_point() else a, args)


def _mixed(args: tuple[Any, ...]) -> str | None:
    """Why no kernel takes these arguments: all tensors must have the dtype and device of the first."""
    x = args[0]
    if x.dtype not in DTYPES:
        return f"the input is {x.dtype}; kernels take {', '.join(str(d).removeprefix('torch.') for d in DTYPES)}"
    for a in tensors_in(args):
        if (a.dtype, a.device) != (x.dtype, x.device):
            return f"an argument is {a.dtype} on {a.device}, the input {x.dtype} on {x.device}"
    if x.numel() == 0:
        return f"the input of shape {tuple(x.shape)} is empty"
    return None
