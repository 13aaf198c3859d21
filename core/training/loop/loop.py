"""The one training loop: draws, steps, averages, reports, saves, resumes exactly.

Every random number is a function of (seed, number of the sample), so a killed run that resumes from its last saved
state gives the same result as an uninterrupted one, bit for bit on a CPU, and several processes give that of one up to
rounding. Accelerate provides processes, devices and sharding: `accelerate launch` and `torchrun` start this loop
unchanged.
"""

from __future__ import annotations

import copy
import math
import sys
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ...errors import TrainingError
from ...models import checkpoints
from ..data.photos import TrainingData
from ..data.sources import batches, share_of
from .optimizers import TrainedWeights, optimizers
from .processes import Guard, Threads, interrupt, resolve
from .processes import processes as start_processes
from .recipe import Recipe
from .run_folder import STATE_NAME, Report, check_run, claim_run, clear_errors, load_state, save_state
from .stage import Auxiliary, TrainingStage

if TYPE_CHECKING:
    from accelerate import Accelerator

__all__ = ["CHECKPOINT_NAME", "SavedStep", "train"]

CHECKPOINT_NAME = "model.safetensors"
AUXILIARY = "aside."  # prefix of a stage's auxiliary tensors in the resume state
CHECK_EVERY = 8  # steps between looks at the losses: each look waits for the device and for the other processes
LOOK_AFTER = 5.0  # seconds after which a single process looks earlier


@dataclass(frozen=True)
class SavedStep:
    """One save of a run: a row of log.csv."""

    step: int
    figures: dict[str, float]  # Mpx seen, hours, rate, mean losses since the last save, then the validation's figures


def train(
    stage: TrainingStage,
    data: TrainingData,
    recipe: Recipe,
    run: Path,
    *,
    inputs: Mapping[str, str] | None = None,
    workers: int = 1,
    start: checkpoints.Checkpoint | None = None,
    minutes: float | None = None,
    threads: Threads | None = None,
) -> Generator[SavedStep]:
    """Train `stage` in the folder `run`, yielding after each save; continues from `run/resume.safetensors`.

    Writes `run/model.safetensors` (the averaged weights), `resume.safetensors`, `recipe.toml`, `inputs.json`,
    `log.csv`, `tensorboard/` and `pictures/`. Ctrl-C and SIGTERM save the state and raise KeyboardInterrupt.

    A run is resumed only with the recipe and inputs (hashes of what it is made from) that it was started with. workers:
    processes that draw batches; 0 to draw in this one. start: a checkpoint of this stage from whose weights a new run
    starts; steps, samples and hours are counted on from there, and the rate warms up again. minutes: save the state and
    return after this time, even if steps are left. threads: sets the number of threads during the run; None leaves it
    unchanged.

    Raises TrainingError if the loss is not finite or runs away, if recipe or inputs differ from the run's, or if a file
    cannot be written; UsageError if the batch does not divide by processes and accumulation, or the launcher asks for
    an unsupported engine.
    """
    accelerator = start_processes()
    share_of(recipe, accelerator.num_processes)
    check_run(run, recipe, inputs or {})
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        claim_run(run, recipe, inputs or {})
    fresh = not (run / STATE_NAME).exists()
    if fresh and start is not None:
        start.fill(stage.model)
    trainer = _Trainer(stage, recipe, accelerator)
    if not fresh:
        trainer.resume(run)
    elif start is not None:
        trainer.count_from(start)
    first = trainer.done
    if first >= recipe.steps:
        return
    rank, processes = accelerator.process_index, accelerator.num_processes
    with ExitStack() as stack:
        parts = batches(stage, data.train, recipe, start=first, rank=rank, processes=processes, workers=workers)
        stack.enter_context(closing(parts))  # the workers ignore signals: an exception must not leave them behind
        report = stack.enter_context(closing(Report(run, first, recipe))) if accelerator.is_main_process else None
        interruption = stack.enter_context(interrupt())
        used = threads.adjust() if threads else torch.get_num_threads()
        looked = time.monotonic()
        end = math.inf if minutes is None else looked + 60 * minutes
        if report:
            report.begin(f"{stage.kind}: {trainer.described()}, threads: {used}", end)
        while trainer.done < recipe.steps:
            trainer.step(parts)
            if report:
                report.step()
            now = time.monotonic()
            saving = trainer.done % recipe.save_every == 0 or trainer.done == recipe.steps
            alone = processes == 1 and (interruption.is_set() or now >= end or now - looked >= LOOK_AFTER)
            if not (saving or trainer.done % CHECK_EVERY == 0 or alone):
                continue
            looked = now
            loss, interrupted, over = trainer.look(interruption.is_set(), now >= end)
            if saving:
                yield trainer.save(run, report)
            elif interrupted or over:
                trainer.save_state(run)
            if interrupted:
                raise KeyboardInterrupt
            if over:
                if report:
                    report.say(f"time is up at step {trainer.done}; run the same command to resume")
                return
            if report:
                report.show(trainer.done, loss, trainer.waited)
            if threads:
                threads.adjust()


class _Loss(nn.Module):
    """The module that is prepared: one forward is one loss, so that gradients are averaged over processes."""

    def __init__(self, stage: TrainingStage, bf16: bool) -> None:
        super().__init__()
        self.model = stage.model
        self.loss = stage.loss
        self.bf16 = bf16

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        device = batch[next(iter(batch))].device.type
        with torch.autocast(device, torch.bfloat16, enabled=self.bf16):
            return self.loss(batch)


class _Trainer:
    """A stage, prepared for the devices, with its optimiser, average and running means."""

    def __init__(self, stage: TrainingStage, recipe: Recipe, accelerator: Accelerator) -> None:
        self.stage, self.recipe, self.accelerator = stage, recipe, accelerator
        self.bf16 = resolve(recipe.precision, accelerator.device) == "bf16"
        made = optimizers(stage, recipe, bf16=self.bf16)
        device, main = accelerator.device, accelerator.is_main_process
        self.copy = copy.deepcopy(stage.model).to(device).eval().requires_grad_(False) if main else None
        stage.frozen.to(device).eval().requires_grad_(False)
        self.auxiliary: Auxiliary | None = getattr(stage, "auxiliary", None)
        if self.auxiliary is not None:
            self.auxiliary.networks.to(device)
        self.module, *prepared = accelerator.prepare(_Loss(stage, self.bf16), *made)
        self.optimizers: list[torch.optim.Optimizer] = [wrapped.optimizer for wrapped in prepared]
        self.peaks = [[group["lr"] for group in optimizer.param_groups] for optimizer in self.optimizers]
        self.weights = TrainedWeights(stage.model, self.optimizers)
        self.guard = Guard()
        self.done = 0
        self.first = 0  # step that the optimiser started at
        self.pending: list[dict[str, Tensor]] = []  # figures of the steps since the last look
        self.names: list[str] = []
        self.totals: dict[str, float] = {}  # sums over the steps since the last save
        self.count = 0
        self.waited = 0.0  # seconds for data, since the start of this process
        self.began = time.monotonic()  # minus the seconds that earlier processes trained

    def described(self) -> str:
        """What is trained and how, in one line."""
        recipe, crop = self.recipe, self.recipe.crop_at(self.done)
        count = sum(p.numel() for p in self.weights.trained.values())
        return (
            f"{count / 1e3:.4g} k parameters, {recipe.optimizer}, {'bf16' if self.bf16 else 'fp32'} on "
            f"{self.accelerator.device.type}, {recipe.batch} crops of {crop} x {crop}, "
            f"from step {self.done} to {recipe.steps}"
        )

    def count_from(self, start: checkpoints.Checkpoint) -> None:
        """Count steps and hours on from a checkpoint whose weights the stage has."""
        self.done = self.first = int(start.facts["step"])
        self.began -= 3600 * float(start.facts.get("hours", 0.0))
        if self.accelerator.is_main_process:
            print(f"a new run from the weights of step {self.done}, with a new optimiser", file=sys.stderr)

    def resume(self, run: Path) -> None:
        """Load the saved state."""
        tensors = load_state(run)
        self.weights.restore(tensors)
        if self.auxiliary is not None:
            named = {n.removeprefix(AUXILIARY): t for n, t in tensors.items() if n.startswith(AUXILIARY)}
            self.auxiliary.restore(named)
        self.count = int(tensors["count"])
        self.totals = {n.removeprefix("total."): float(t) for n, t in tensors.items() if n.startswith("total.")}
        self.done = int(tensors["done"])
        self.first = int(tensors.get("first", torch.tensor(0)))  # kept only if it is not 0
        self.began = time.monotonic() - float(tensors["seconds"])
        if bool(tensors["bf16"]) != self.bf16 and self.accelerator.is_main_process:
            before, now = ("fp32", "bf16") if self.bf16 else ("bf16", "fp32")
            print(f"{run} was trained in {before} so far; this machine continues in {now}", file=sys.stderr)

    def step(self, parts: Iterator[dict[str, Tensor]]) -> None:
        """One step of the optimiser."""
        share = self.recipe.share_of_rate(self.done, self.first)
        for optimizer, peaks in zip(self.optimizers, self.peaks, strict=True):
            optimizer.zero_grad(set_to_none=True)
            for group, peak in zip(optimizer.param_groups, peaks, strict=True):
                group["lr"] = peak * share
        found: list[dict[str, Tensor]] = []  # figures of each part of the batch
        batches: list[dict[str, Tensor]] = []  # that the auxiliary networks still need
        for i in range(self.recipe.accumulate):
            since = time.monotonic()
            part = next(parts)
            self.waited += time.monotonic() - since
            batch = {name: tensor.to(self.accelerator.device, non_blocking=True) for name, tensor in part.items()}
            last = i == self.recipe.accumulate - 1
            with nullcontext() if last else self.accelerator.no_sync(self.module):
                found.append(self.module(batch))
                (found[-1]["loss"] / self.recipe.accumulate).backward()
            batches += [batch] if self.auxiliary else []
        norm = self.weights.clip(self.recipe.clip)
        for optimizer in self.optimizers:
            optimizer.step()
        self.weights.follow(min(self.recipe.ema, (1 + self.done) / (10 + self.done)))
        others = [self._auxiliary_step(batch) for batch in batches]
        self.pending.append({**_means(found), "gradient": norm.detach(), **_means(others)})
        self.done += 1

    def _auxiliary_step(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """One step of the auxiliary networks on a part of the batch: their figures."""
        assert self.auxiliary is not None
        with torch.autocast(self.accelerator.device.type, torch.bfloat16, enabled=self.bf16):
            return self.auxiliary.step(self.done, batch, lambda tensor: self._reduced(tensor, "mean"))

    def look(self, interrupted: bool, over: bool) -> tuple[float, bool, bool]:
        """Check and add up the last steps, averaged over processes; a process that wants to stop stops them all.

        Returns their mean loss, and whether any process was interrupted or has no time left.
        """
        self.names = list(self.pending[0])
        rows = torch.stack([torch.stack(list(figures.values())) for figures in self.pending])
        self.pending = []
        flags = rows.new_zeros(1, rows.shape[1])
        flags[0, 0], flags[0, 1] = float(interrupted), float(over)  # rows hold a loss and a gradient, at least
        *shared, flagged = self._reduced(torch.cat([rows, flags]), "mean").tolist()
        for i, values in enumerate(shared):
            figures = dict(zip(self.names, values, strict=True))
            self.guard.check(self.done - len(shared) + i, figures)
            for name, value in figures.items():
                self.totals[name] = self.totals.get(name, 0.0) + value
        self.count += len(shared)
        loss = self.names.index("loss")
        return sum(values[loss] for values in shared) / len(shared), flagged[0] > 0, flagged[1] > 0

    def save(self, run: Path, report: Report | None) -> SavedStep:
        """Validate the averaged weights, write checkpoint, log and state, and reset the means."""
        self._check_weights()
        done = self.done
        means = {name: self.totals[name] / self.count for name in self.names}  # restored totals have no order
        self.totals, self.count = {}, 0
        hours = (time.monotonic() - self.began) / 3600
        rate = self.recipe.rate * self.recipe.share_of_rate(done - 1, self.first)
        saved = SavedStep(done, {"mpx": self.recipe.megapixels(done), "hours": hours, "rate": rate, **means})
        self.weights.averaged(self.copy)
        if self.copy is not None and report is not None:
            with torch.no_grad():
                found = self.stage.validate(self.copy)
            saved.figures.update(found.figures)
            with clear_errors(run):
                facts = {**self.stage.facts(), "step": done}
                state = self.copy.state_dict()
                checkpoints.save(run / CHECKPOINT_NAME, self.stage.kind, self.stage.config, state, facts)
                report.save(done, saved.figures, found.images)
        self.save_state(run)
        return saved

    def save_state(self, run: Path) -> None:
        """Write all that the next step depends on."""
        self._check_weights()
        numbers = {"done": self.done, "count": self.count, "bf16": self.bf16}
        numbers |= {"first": self.first} if self.first else {}
        tensors = {name: torch.tensor(value) for name, value in numbers.items()}
        tensors["seconds"] = torch.tensor(time.monotonic() - self.began, dtype=torch.float64)
        tensors |= {f"total.{name}": torch.tensor(v, dtype=torch.float64) for name, v in self.totals.items()}
        if self.auxiliary is not None:
            tensors |= {f"{AUXILIARY}{name}": tensor.detach().cpu() for name, tensor in self.auxiliary.state().items()}
        for name, tensor in self.weights.state():
            if self.accelerator.is_main_process:
                tensors[name] = tensor
        if self.accelerator.is_main_process:
            save_state(run, tensors)

    def _check_weights(self) -> None:
        unfit = int(self._reduced(self.weights.unfit(), "sum"))
        if unfit:
            raise TrainingError(
                f"{unfit} weights are not finite after step {self.done}; the last good state is saved: start again in "
                "a new --out folder with a lower rate (--set rate=...)"
            )

    def _reduced(self, tensor: Tensor, how: str) -> Tensor:
        reduced = self.accelerator.reduce(tensor, how)
        assert isinstance(reduced, Tensor)
        return reduced


def _means(parts: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """The mean of each figure over the parts of a batch."""
    names = parts[0] if parts else ()
    return {name: torch.stack([part[name].detach().float() for part in parts]).mean(0) for name in names}
