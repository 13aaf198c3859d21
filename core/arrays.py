"""The three forms a picture takes, and the only conversions between them.

    Image   (H, W, 3) uint8 or uint16, RGB, sRGB            what files hold
    Batch   (N, C, H, W) float32 in [0, 1]                  what graphs take and give
    State   (N, C, H, W) or (N, D) float32, any range       what a sampler moves

No function accepts two of them. Scaling to [-1, 1], where a network wants it, happens inside its graph.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = ["Batch", "Image", "State"]

Image: TypeAlias = NDArray[np.uint8] | NDArray[np.uint16]
Batch: TypeAlias = NDArray[np.float32]
State: TypeAlias = NDArray[np.float32]
