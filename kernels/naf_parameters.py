"""What `naf_block` and its Triton implementation share: the block's parameters and the epsilon of its norms."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

__all__ = ["EPS", "Parameters"]

EPS = 1e-6  # added to the variance in both layer normalisations


class Parameters(NamedTuple):
    """The parameters of a NAF block of C channels with D hidden channels, in the order of their use."""

    spatial_norm_weight: Tensor  # (C,)
    spatial_norm_bias: Tensor  # (C,)
    spatial_in_weight: Tensor  # (2D, C, 1, 1)
    spatial_in_bias: Tensor  # (2D,)
    depthwise_weight: Tensor  # (2D, 1, 3, 3)
    depthwise_bias: Tensor  # (2D,)
    attention_weight: Tensor  # (D, D, 1, 1)
    attention_bias: Tensor  # (D,)
    spatial_out_weight: Tensor  # (C, D, 1, 1)
    spatial_out_bias: Tensor  # (C,)
    beta: Tensor  # (C, 1, 1): factor of the spatial half
    point_norm_weight: Tensor  # (C,)
    point_norm_bias: Tensor  # (C,)
    point_in_weight: Tensor  # (2D, C, 1, 1)
    point_in_bias: Tensor  # (2D,)
    point_out_weight: Tensor  # (C, D, 1, 1)
    point_out_bias: Tensor  # (C,)
    gamma: Tensor  # (C, 1, 1): factor of the pointwise half
