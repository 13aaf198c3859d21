"""What restorations cost beside one another, on one thread."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import median

import torch

from ..core.timing import interleaved

__all__ = ["SIDE", "seconds"]

SIDE = 192  # pixels of the picture that is timed
REPEATS = 9


@torch.inference_mode()
def seconds(restorations: Sequence[Callable[[], object]], side: int = SIDE) -> list[float]:
    """CPU seconds per megapixel of each, a restoration of `side` x `side` pixels: the median of 9, interleaved.

    CPU time: another program on the machine does not count. One thread, so it is what a user waits on one core.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        taken = interleaved(dict(enumerate(restorations)), REPEATS)
    finally:
        torch.set_num_threads(threads)
    return [median(times) / (side * side / 1e6) for times in taken.values()]
