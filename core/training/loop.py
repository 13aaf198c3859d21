"""The one training loop: draws, steps, averages, reports, saves, resumes exactly.

Every random number is a function of (seed, step), so a killed run that resumes from its last saved state walks the same
path as an uninterrupted one, bit for bit on a CPU.
"""

from __future__ import annotations

import copy
import csv
import math
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import safetensors.torch
import torch
from numpy.random import Generator as Random
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from ..errors import TrainingError
from ..models import checkpoints
from .recipe import Recipe

__all__ = ["Stage", "Step", "rate_at", "train"]

Arrays = dict[str, NDArray[Any]]


class Stage(Protocol):
    """What one stage of training brings to the loop."""

    kind: str  # of the checkpoints it writes
    config: Any  # dataclass: what is needed to build `model`
    model: nn.Module  # everything that is saved
    trained: dict[str, float]  # the parts of `model` that learn -> their share of the learning rate; the rest is frozen

    def draw(self, recipe: Recipe, rng: Random) -> Arrays:
        """One batch, drawn with `rng` alone; called in a worker process."""
        ...

    def loss(self, batch: dict[str, Tensor], random: torch.Generator) -> dict[str, Tensor]:
        """Scalars by name; the one called "loss" is minimised."""
        ...

    def validate(self, model: nn.Module) -> dict[str, float]:
        """Figures of the averaged model on held-back photos."""
        ...

    def facts(self) -> dict[str, Any]:
        """What training measured and a checkpoint should carry."""
        ...


class Step(dict[str, float]):
    """The figures of one saved point: step, rate, mean losses since the last one, validation."""


class _Batches(Dataset[dict[str, Tensor]]):
    def __init__(self, draw: Callable[[Recipe, Random], Arrays], recipe: Recipe) -> None:
        self.draw, self.recipe = draw, recipe

    def __getitem__(self, step: int) -> dict[str, Tensor]:
        rng = np.random.Generator(np.random.Philox(key=[self.recipe.seed, step]))
        return {name: torch.from_numpy(array) for name, array in self.draw(self.recipe, rng).items()}


def rate_at(step: int, recipe: Recipe) -> float:
    """Learning rate of a step: linear warm-up, then a cosine from `rate` to `final_rate`."""
    if step < recipe.warmup:
        return recipe.rate * (step + 1) / recipe.warmup
    done = (step - recipe.warmup) / max(1, recipe.steps - recipe.warmup)
    return recipe.final_rate + (recipe.rate - recipe.final_rate) * (1 + math.cos(math.pi * done)) / 2


def train(stage: Stage, recipe: Recipe, run: Path, *, workers: int = 1) -> Generator[Step]:
    """Train `stage` in the folder `run`, yielding after each save; continues from `run/resume.safetensors`.

    Writes `run/model.safetensors` (the averaged weights), `run/resume.safetensors`, `run/log.csv` and
    `run/recipe.json`. Raises TrainingError when the loss is not finite or the recipe differs from the run's.
    """
    _claim(run, recipe)
    optimizer = _optimizer(stage, recipe)
    average = copy.deepcopy(stage.model)
    start = _resume(run, stage.model, average, optimizer)
    _keep_log(run, start)
    totals: dict[str, float] = {}
    loader = DataLoader(
        _Batches(stage.draw, recipe),
        batch_size=None,
        sampler=range(start, recipe.steps),
        num_workers=workers,
        prefetch_factor=4 if workers else None,
    )
    for step, batch in enumerate(loader, start):
        for group in optimizer.param_groups:
            group["lr"] = rate_at(step, recipe) * group["share"]
        figures = _update(stage, batch, recipe, step, optimizer)
        _follow(average, stage.model, min(recipe.ema, (1 + step) / (10 + step)))
        for name, value in figures.items():
            totals[name] = totals.get(name, 0.0) + value
        done = step + 1
        if done % recipe.save_every == 0 or done == recipe.steps:
            count = done - max(start, (done - 1) // recipe.save_every * recipe.save_every)
            means = {name: total / count for name, total in totals.items()}
            totals = {}
            yield _save(run, stage, average, optimizer, done, rate_at(step, recipe), means)


def _optimizer(stage: Stage, recipe: Recipe) -> torch.optim.AdamW:
    """AdamW over the trained parts alone; everything else is frozen."""
    for parameter in stage.model.parameters():
        parameter.requires_grad_(False)
    groups = []
    for name, share in stage.trained.items():
        parameters = list(stage.model.get_submodule(name).parameters())
        for parameter in parameters:
            parameter.requires_grad_(True)
        groups.append({"params": parameters, "share": share})
    return torch.optim.AdamW(groups, lr=recipe.rate, weight_decay=recipe.decay, fused=True)


def _update(
    stage: Stage, batch: dict[str, Tensor], recipe: Recipe, step: int, optimizer: torch.optim.Optimizer
) -> dict[str, float]:
    random = torch.Generator().manual_seed(recipe.seed * 1_000_003 + step)
    with torch.autocast("cpu", torch.bfloat16, enabled=recipe.precision == "bf16"):
        figures = stage.loss(batch, random)
    if not figures["loss"].isfinite():
        raise TrainingError(
            f"the loss is {float(figures['loss'].detach())} at step {step}; the last good state is saved: "
            "start again with a lower rate (--set rate=...)"
        )
    optimizer.zero_grad(set_to_none=True)
    figures["loss"].backward()
    nn.utils.clip_grad_norm_([p for group in optimizer.param_groups for p in group["params"]], recipe.clip)
    optimizer.step()
    return {name: float(value.detach()) for name, value in figures.items()}


@torch.no_grad()
def _follow(average: nn.Module, model: nn.Module, decay: float) -> None:
    """Move the averaged weights towards the current ones; buffers are copied."""
    for ours, parameter in zip(average.parameters(), model.parameters(), strict=True):
        if parameter.requires_grad:
            ours.lerp_(parameter, 1 - decay)
    for ours_buffer, buffer in zip(average.buffers(), model.buffers(), strict=True):
        ours_buffer.copy_(buffer)


def _claim(run: Path, recipe: Recipe) -> None:
    """Note the recipe in the run folder, or check that it is the one the run was started with."""
    path = run / "recipe.json"
    if path.exists() and Recipe.load(path) != recipe:
        raise TrainingError(f"{run} was started with another recipe ({path}); use that one or a new --out folder")
    run.mkdir(parents=True, exist_ok=True)
    recipe.save(path)


def _keep_log(run: Path, start: int) -> None:
    """Drop log lines that a killed run wrote after its last saved state."""
    path = run / "log.csv"
    if path.exists():
        with path.open(newline="") as file:
            header, *rows = csv.reader(file)
        kept = [row for row in rows if int(row[0]) <= start]
        path.write_text("".join(",".join(row) + "\n" for row in [header, *kept]))


def _save(
    run: Path,
    stage: Stage,
    average: nn.Module,
    optimizer: torch.optim.Optimizer,
    done: int,
    rate: float,
    means: dict[str, float],
) -> Step:
    average.eval()
    with torch.no_grad():
        figures = Step(step=done, rate=rate, **means, **stage.validate(average))
    facts = {**stage.facts(), "step": done}
    checkpoints.save(run / "model.safetensors", stage.kind, stage.config, average.state_dict(), facts)
    _save_state(run / "resume.safetensors", stage.model, average, optimizer, done)
    path = run / "log.csv"
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        if new:
            writer.writerow(figures)
        writer.writerow([int(figures["step"]), *(f"{v:.6g}" for k, v in figures.items() if k != "step")])
    return figures


def _save_state(path: Path, model: nn.Module, average: nn.Module, optimizer: torch.optim.Optimizer, done: int) -> None:
    """Trained weights, their average, and the optimiser's moments, of the trained parameters only."""
    tensors = {"step": torch.tensor(done)}
    averages = dict(average.named_parameters())
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            tensors[f"weight.{name}"] = parameter.detach()
            tensors[f"average.{name}"] = averages[name].detach()
            for key, value in optimizer.state[parameter].items():
                tensors[f"{key}.{name}"] = value
    temporary = path.with_name(f".{path.name}.part")
    safetensors.torch.save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, temporary)
    temporary.replace(path)


@torch.no_grad()
def _resume(run: Path, model: nn.Module, average: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """Load the saved state, if there is one, and return the number of steps done."""
    path = run / "resume.safetensors"
    if not path.exists():
        return 0
    tensors = safetensors.torch.load_file(path)
    averages = dict(average.named_parameters())
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            parameter.copy_(tensors[f"weight.{name}"])
            averages[name].copy_(tensors[f"average.{name}"])
            optimizer.state[parameter] = {
                key: tensors[f"{key}.{name}"].clone() for key in ("step", "exp_avg", "exp_avg_sq")
            }
    return int(tensors["step"])
