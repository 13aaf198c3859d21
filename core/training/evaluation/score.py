"""Held-back photos, their damage, and the measured quality of their restoration; the tables as a page of Markdown.

The page has no dates or paths: a repeated run gives the same page.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from ... import metrics
from ...arrays import Image, to_batch, to_image
from ...degradations import TASKS
from ...errors import UsageError
from ...markdown import table
from ...metrics.baselines import PairedDifference, paired
from ...sampling.noise import normal
from ..losses import psnr_loss

__all__ = [
    "EvaluationCase",
    "MethodFigures",
    "RestoreMethod",
    "ResultTable",
    "batch_psnr",
    "cases",
    "device_of",
    "in_parts",
    "measure",
    "noise_of",
    "page",
    "section",
    "side_by_side",
    "square",
]

DRAWS = 20  # attempts to damage a photo
PART = 8  # photos that validation restores at once
FROZEN = {"cleanup": "mixed-v1"}  # task -> the damage that its figures have always been of
METRICS: dict[str, Callable[[Image, Image], float]] = {
    "PSNR": metrics.psnr,
    "SSIM": metrics.ssim,
    "HaarPSI": metrics.haarpsi,
    "NIQE": lambda restored, _: metrics.niqe(restored),
    "SWD": metrics.swd,
}

RestoreMethod = Callable[["EvaluationCase"], Tensor]  # the restored photo, (1, 3, H, W), any range: it is clipped


@dataclass(frozen=True, eq=False)
class EvaluationCase:
    """A damaged photo and the true one, (H, W, 3) uint8."""

    damaged: Image
    true: Image

    @property
    def image(self) -> Tensor:
        """The damaged photo as (1, 3, H, W) in [0, 1]."""
        return torch.from_numpy(to_batch(self.damaged))

    @property
    def clean(self) -> Tensor:
        """The true photo as (1, 3, H, W) in [0, 1]."""
        return torch.from_numpy(to_batch(self.true))


@dataclass(frozen=True)
class MethodFigures:
    """Mean figures of one method, and those of each photo by metric (not for a mean of tables)."""

    method: str
    values: Mapping[str, float]
    each: Mapping[str, Sequence[float]] = field(default_factory=dict)


@dataclass(frozen=True)
class ResultTable:
    """The methods on the same photos, and sentences that interpret the figures."""

    title: str
    rows: Sequence[MethodFigures]
    verdicts: Sequence[str] = ()

    def value(self, method: str, metric: str) -> float:
        """One figure. Raises KeyError for an unknown method or metric."""
        return {row.method: row.values for row in self.rows}[method][metric]

    def change(self, metric: str, of: str, over: str) -> float:
        """How much higher `metric` is for the method `of` than for `over`."""
        return self.value(of, metric) - self.value(over, metric)

    def difference(self, metric: str, of: str, over: str) -> PairedDifference:
        """`change` with its interval, from the figures of each photo. Raises KeyError as `value` does."""
        each = {row.method: row.each[metric] for row in self.rows if row.method in (of, over)}
        return paired(each[of], each[over])

    def compared(self, metric: str, of: str, over: str) -> str:
        """`difference` in words."""
        mean, low, high, photos = self.difference(metric, of, over)
        interval = f"95 % interval {low:+.2f} to {high:+.2f}, {photos} photos"
        return f"{metric}, {of} minus {over}: {mean:+.2f} ({interval})."


def square(pixels: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """The centre `side` x `side` of an 8-bit photo. Raises UsageError for a smaller one."""
    height, width = pixels.shape[:2]
    if min(height, width) < side:
        raise UsageError(f"expected photos of at least {side} x {side} pixels, got {width} x {height}")
    y, x = (height - side) // 2, (width - side) // 2
    return np.ascontiguousarray(pixels[y : y + side, x : x + side])


def cases(photos: Iterable[Image], task: str) -> list[EvaluationCase]:
    """Each true photo (H, W, 3) uint8 with the damage of `task`, which depends only on its place in the list.

    If the damage of a task has changed, the earlier one is used, so that figures of all versions are comparable. If a
    task leaves a photo unchanged, it is drawn again: the PSNR of an undamaged input is infinite. Raises UsageError if
    it changes nothing in `DRAWS` attempts, as happens to photos of a single colour.
    """
    return [_damaged(true, FROZEN.get(task, task), i) for i, true in enumerate(photos)]


def _damaged(true: Image, task: str, place: int) -> EvaluationCase:
    image = true.astype(np.float32) / np.float32(255)
    for draw in range(DRAWS):
        changed = np.clip(TASKS[task](image, np.random.default_rng([2024, place, draw])), 0, 1)
        damaged = np.round(changed * 255).astype(np.uint8)
        if not np.array_equal(damaged, true):
            return EvaluationCase(damaged, true)
    raise UsageError(f"'{task}' leaves photo {place + 1} as it is; remove this photo")


@torch.inference_mode()
def measure(name: str, method: RestoreMethod, photos: Sequence[EvaluationCase]) -> MethodFigures:
    """Every metric on each photo, and its mean."""
    found: list[dict[str, float]] = []
    for case in tqdm(photos, desc=name, unit="photo", disable=None):
        restored = to_image(np.ascontiguousarray(method(case).float().clamp(0, 1).numpy()), np.uint8)
        found.append({metric: measured(restored, case.true) for metric, measured in METRICS.items()})
    each = {metric: tuple(values[metric] for values in found) for metric in found[0]}
    return MethodFigures(name, {metric: fmean(values) for metric, values in each.items()}, each)


def noise_of(case: EvaluationCase) -> Callable[[int], Tensor]:
    """The noise of a sampler for a photo: step -> (1, 3, H, W), seeded."""
    height, width = case.true.shape[:2]
    return lambda step: torch.from_numpy(np.ascontiguousarray(normal(0, step, (0, height), (0, width))))


def device_of(model: nn.Module) -> torch.device:
    """The device of a model's weights."""
    return next(model.parameters()).device


def in_parts(function: Callable[..., Tensor], device: torch.device, *tensors: Tensor) -> Tensor:
    """function(*tensors), computed on `device` for a few rows at a time; the result is on the CPU."""
    parts = zip(*(tensor.split(PART) for tensor in tensors), strict=True)
    return torch.cat([function(*(tensor.to(device) for tensor in part)).cpu() for part in parts])


def batch_psnr(restored: Tensor, clean: Tensor) -> float:
    """Mean PSNR in dB of (N, 3, H, W), clipped to [0, 1]."""
    return -float(psnr_loss(restored.clamp(0, 1), clean))


def side_by_side(*images: Tensor) -> Tensor:
    """The first of each (N, 3, H, W) in a row, (3, H, k W), in [0, 1]."""
    return torch.cat([batch[0].detach().cpu() for batch in images], dim=2).clamp(0, 1)


DECIMALS = {"PSNR": 2, "SSIM": 4, "HaarPSI": 4, "NIQE": 2, "SWD": 4}  # others: 3

HEAD = """\
# Results of the three systems

Made by `{command}`; do not edit.
[cleanup.md](cleanup.md) compares the embedded pack with other programs, on test photos.

- Size `mobile`, trained on a CPU for the steps given in [models.md](models.md): small networks, short runs.
- Photos: {photos}. Damage by `core/degradations`, seeded.
- PSNR (dB), SSIM, HaarPSI: higher is better. NIQE, SWD and distances: lower is better. PSNR and SSIM reward smooth
  results; NIQE asks whether a photo looks natural at all, SWD whether it has the texture of the true one."""


def section(found: ResultTable) -> str:
    """A table with its title and its verdicts, in Markdown."""
    columns = list(found.rows[0].values)
    lines = [["method", *columns]]
    lines += [[row.method, *(f"{row.values[c]:.{DECIMALS.get(c, 3)}f}" for c in columns)] for row in found.rows]
    parts = [f"## {found.title}", table(lines, left=1), "\n".join(f"- {v}" for v in found.verdicts)]
    return "\n\n".join(part for part in parts if part)


def page(command: str, photos: str, tables: Sequence[ResultTable]) -> str:
    """The whole page; `command` made it, `photos` says on what."""
    return "\n\n".join([HEAD.format(command=command, photos=photos), *map(section, tables)]) + "\n"
