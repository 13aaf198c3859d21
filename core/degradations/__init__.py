"""What damages a photo: one module per family of damage, and `tasks`, which draws strengths at random.

Every function takes and returns a float picture, (H, W, 3) float32 in [0, 1], and keeps its size (but `shrink` and
`enlarge`). Whatever is random is drawn from the `numpy.random.Generator` that is passed in: the same generator state
gives the same damage. Where light is mixed, it is linear light (`light` and `encoded` convert). NumPy is enough but for
what paints or compresses, which takes Pillow when it is called: training may go on where there is none.
"""

from .cleanup import mixed_v1
from .compression import Subsampling, jpeg
from .filters import enlarge, gaussian_blur, shrink
from .grain import gaussian_noise, poisson_noise
from .masks import Thickness, brush_mask
from .srgb import Picture, quantize
from .tasks import SHRINKS, TASKS
from .windows import Shrink, Task, Window

__all__ = [
    "SHRINKS",
    "TASKS",
    "Picture",
    "Shrink",
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
