"""Damage to photos: one module per family of damage, and `tasks`, which draws strengths at random.

Every function takes and returns a `FloatImage` in [0, 1] and keeps its size (but for changes of size). All
randomness is drawn from the `numpy.random.Generator` that is passed in: the same generator state causes the same
damage. Light is mixed as linear light (`srgb_to_linear` and `linear_to_srgb` convert).
"""

from .filters import gaussian_blur
from .grain import gaussian_noise
from .masks import brush_mask
from .tasks import SHRINKS, TASKS
from .window import ShrinkTask, Task, Window

__all__ = ["SHRINKS", "TASKS", "ShrinkTask", "Task", "Window", "brush_mask", "gaussian_blur", "gaussian_noise"]
