"""Operations with a plain PyTorch reference and a fused Triton implementation.

Each op NAME has its own module with

    NAME(...)         what models call: `select.choose` runs the reference or the fused implementation
    reference(...)    the op in plain PyTorch. It never casts: in float64 it is the truth, in the tested dtype the
                      yardstick, and traced it is what is exported
    fused(...)        the fused implementation as an operator of PyTorch, registered by `select.operator`
    unsupported(...)  why the fused implementation cannot take a call, or None
    CASES             the shapes (N, C, H, W) that tests run
    example(shape, generator)  the arguments of one call

and its kernels in NAME_triton.py, with `forward` and `backward`, which only the op's registration imports. To add an
op: these two files, one import line and one name in `OPS`.
"""

from __future__ import annotations

from .channel_attention import channel_attention
from .gated_feed_forward import gated_feed_forward
from .group_norm_silu import group_norm_silu
from .guidance_adapter import guidance_adapter
from .modulated_norm import modulated_norm
from .naf_block import naf_block
from .select import UnsupportedError, mode

__all__ = [
    "OPS",
    "UnsupportedError",
    "channel_attention",
    "gated_feed_forward",
    "group_norm_silu",
    "guidance_adapter",
    "mode",
    "modulated_norm",
    "naf_block",
]

OPS = ("channel_attention", "gated_feed_forward", "group_norm_silu", "guidance_adapter", "modulated_norm", "naf_block")
