"""Damage to photos: one module per family of damage, and `tasks`, which draws strengths at random.

Every function takes and returns a `FloatImage` in [0, 1] and keeps its size (but for `shrink` and `enlarge`). All
randomness is drawn from the `numpy.random.Generator` that is passed in: the same generator state causes the same
damage. Light is mixed as linear light (`srgb_to_linear` and `linear_to_srgb` convert).
"""

from .cleanup import mixed_v1
from .filters import Subsampling, enlarge, gaussian_blur, jpeg, quantize, shrink
from .grain import gaussian_noise, poisson_noise
from .masks import Thickness, brush_mask
from .tasks import SHRINKS, TASKS
from .window import ShrinkTask, Task, Window

__all__ = [
    "SHRINKS",
    "TASKS",
    "ShrinkTask",
    "Subsampling",
    "Task",
    "Thickness",
    "Window",
    "brush_mask",
    "enlarge",
    "gaussian_blur",
    "gaussian_noise",
    "jpeg",
    "mixed_v1",
    "poisson_noise",
    "quantize",
    "shrink",
]
