"""The one training loop: draws, steps, averages, reports, saves, resumes exactly.

Every random number is a function of (seed, number of the sample), so a killed run that resumes from its last saved
state walks the same path as an uninterrupted one, bit for bit on a CPU, and several processes walk the path of one up
to rounding. Processes, devices and sharding are Accelerate's: `accelerate launch` and `torchrun` start this loop
unchanged.
"""

from __future__ import annotations

import copy
from collections.abc import Generator, Iterator, Mapping
from contextlib import ExitStack, closing, nullcontext
from pathlib import Path

import torch
from torch import Tensor, nn

from ..errors import TrainingError
from ..models import checkpoints
from .batches import batches, share_of
from .guard import Guard
from .interrupt import Interrupt
from .log import Log, Progress
from .photos import Data
from .processes import Processes
from .processes import processes as start_processes
from .recipe import Recipe
from .resume import check_run, claim_run, clear_errors, load_state, save_state
from .stage import Assisted, Stage, Validation
from .weights import Weights

__all__ = ["Step", "rate_at", "train"]

CHECKPOINT_NAME = "model.safetensors"
ASIDE = "aside."  # before the names of what a stage's aside adds to the resume state
CHECK_EVERY = 8  # steps between looks at the losses: each look waits for the device and for the other processes


class Step(dict[str, float]):
    """The figures of one saved point: step, rate, mean losses since the last one, validation."""


def rate_at(step: int, recipe: Recipe) -> float:
    """Learning rate of a step: linear warm-up, then from `rate` to `final_rate` as the recipe says."""
    if step < recipe.warmup:
        return recipe.rate * (step + 1) / recipe.warmup
    done = (step - recipe.warmup) / max(1, recipe.steps - recipe.warmup)
    return recipe.final_rate + (recipe.rate - recipe.final_rate) * recipe.left(done)


def train(
    stage: Stage,
    data: Data,
    recipe: Recipe,
    run: Path,
    *,
    inputs: Mapping[str, str] | None = None,
    workers: int = 1,
    board: bool = True,
) -> Generator[Step]:
    """Train `stage` in the folder `run`, yielding after each save; continues from `run/resume.safetensors`.

    Writes `run/model.safetensors` (the averaged weights), `resume.safetensors`, `recipe.toml`, `inputs.json`,
    `log.csv`, `tensorboard/` and `pictures/`. inputs: hashes of what the run is made from; a resume with others is
    refused. workers: processes that draw batches. board: whether to write `tensorboard/` and `pictures/`; without them
    PyTorch, NumPy and safetensors are enough.

    Ctrl-C and SIGTERM save the state and raise KeyboardInterrupt. Raises TrainingError when the loss is not finite or
    runs away, when recipe or inputs differ from the run's, or when a file cannot be written; UsageError when the batch
    does not divide by processes and accumulation, or the launcher asks for what is not supported.
    """
    accelerator = start_processes()
    share_of(recipe, accelerator.num_processes)
    check_run(run, recipe, inputs or {})
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        claim_run(run, recipe, inputs or {})
    trainer = _Trainer(stage, recipe, accelerator)
    start = trainer.resume(run)
    if start == recipe.steps:
        return
    rank, processes = accelerator.process_index, accelerator.num_processes
    with ExitStack() as stack:
        parts = batches(stage, data.train, recipe, start=start, rank=rank, processes=processes, workers=workers)
        stack.enter_context(closing(parts))  # the workers ignore signals: an exception must not leave them behind
        report = stack.enter_context(_Report(run, start, recipe.steps, board)) if accelerator.is_main_process else None
        interrupt = stack.enter_context(Interrupt())
        for step in range(start, recipe.steps):
            trainer.step(step, parts)
            if report:
                report.progress.step()
            done = step + 1
            saving = done % recipe.save_every == 0 or done == recipe.steps
            if not (saving or done % CHECK_EVERY == 0 or (interrupt.wanted and processes == 1)):
                continue
            wanted = trainer.look(interrupt.wanted)
            if saving:
                yield trainer.save(run, done, report)
            elif wanted:
                trainer.save_state(run, done)
            if wanted:
                raise KeyboardInterrupt


class _Loss(nn.Module):
    """The module that is prepared: one forward is one loss, so that gradients are averaged over processes."""

    def __init__(self, stage: Stage, bf16: bool) -> None:
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

    def __init__(self, stage: Stage, recipe: Recipe, accelerator: Processes) -> None:
        self.stage, self.recipe, self.accelerator = stage, recipe, accelerator
        groups = _groups(stage)
        self.copy = copy.deepcopy(stage.model) if accelerator.is_main_process else None
        if self.copy is not None:
            self.copy.to(accelerator.device).eval().requires_grad_(False)
        stage.frozen.to(accelerator.device).eval().requires_grad_(False)
        self.aside = stage.aside if isinstance(stage, Assisted) else None
        if self.aside is not None:
            self.aside.networks.to(accelerator.device)
        optimizer = torch.optim.AdamW(groups, lr=recipe.rate, weight_decay=recipe.decay, fused=True)
        self.module, prepared = accelerator.prepare(_Loss(stage, recipe.precision == "bf16"), optimizer)
        self.optimizer = prepared.optimizer
        self.weights = Weights(stage.model, self.optimizer)
        self.guard = Guard()
        self.done = 0
        self.pending: list[Tensor] = []  # figures of steps that nobody has looked at, one vector a step
        self.names: list[str] = []
        self.totals: dict[str, float] = {}  # sums over the steps since the last save
        self.count = 0

    def resume(self, run: Path) -> int:
        """Load the saved state, if there is one, and return the number of steps done."""
        tensors = load_state(run)
        if tensors is None:
            return 0
        self.weights.restore(tensors)
        if self.aside is not None:
            self.aside.restore({n.removeprefix(ASIDE): t for n, t in tensors.items() if n.startswith(ASIDE)})
        self.count = int(tensors["count"])
        self.totals = {n.removeprefix("total."): float(t) for n, t in tensors.items() if n.startswith("total.")}
        self.done = int(tensors["done"])
        return self.done

    def step(self, step: int, parts: Iterator[dict[str, Tensor]]) -> None:
        """One step of the optimiser."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate_at(step, self.recipe) * group["share"]
        self.optimizer.zero_grad(set_to_none=True)
        rows: list[Tensor] = []
        batches: list[dict[str, Tensor]] = []  # that the aside still needs
        for i in range(self.recipe.accumulate):
            batch = self._moved(next(parts))
            rows.append(self._part(batch, last=i == self.recipe.accumulate - 1))
            batches += [batch] if self.aside else []
        norm = self.weights.clip(self.recipe.clip)
        self.optimizer.step()
        self.weights.follow(min(self.recipe.ema, (1 + step) / (10 + step)))
        found = [torch.stack(rows).mean(0), norm.detach().reshape(1)]
        if batches:
            found.append(torch.stack([self._beside(step, batch) for batch in batches]).mean(0))
        self.pending.append(torch.cat(found))
        self.done = step + 1

    def _moved(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: tensor.to(self.accelerator.device, non_blocking=True) for name, tensor in batch.items()}

    def _part(self, batch: dict[str, Tensor], *, last: bool) -> Tensor:
        with nullcontext() if last else self.accelerator.no_sync(self.module):
            figures = self.module(batch)
            (figures["loss"] / self.recipe.accumulate).backward()
        self.names = [*figures, "gradient"]
        return torch.stack([value.detach().float() for value in figures.values()])

    def _beside(self, step: int, batch: dict[str, Tensor]) -> Tensor:
        """What the stage's aside makes of a part of the batch: its figures."""
        assert self.aside is not None
        with torch.autocast(self.accelerator.device.type, torch.bfloat16, enabled=self.recipe.precision == "bf16"):
            figures = self.aside.step(step, batch, lambda tensor: self._reduced(tensor, "mean"))
        self.names += [name for name in figures if name not in self.names]
        values = [value.detach().float().reshape(1) for value in figures.values()]
        return torch.cat(values) if values else torch.empty(0, device=self.accelerator.device)

    def look(self, stop: bool) -> bool:
        """Check and add up the last steps, averaged over processes; whether any process wants to stop."""
        rows = torch.stack(self.pending)
        self.pending = []
        flag = rows.new_tensor([[float(stop)] * rows.shape[1]])
        *shared, flags = self._reduced(torch.cat([rows, flag]), "mean").tolist()
        for i, values in enumerate(shared):
            figures = dict(zip(self.names, values, strict=True))
            self.guard.check(self.done - len(shared) + i, figures)
            for name, value in figures.items():
                self.totals[name] = self.totals.get(name, 0.0) + value
        self.count += len(shared)
        return flags[0] > 0

    def save(self, run: Path, done: int, report: _Report | None) -> Step:
        """Validate the averaged weights, write checkpoint, log and state, and start the means anew."""
        self._check_weights(done)
        means = {name: self.totals[name] / self.count for name in self.names}  # a restored sum knows no order
        self.totals, self.count = {}, 0
        figures = Step(step=done, rate=rate_at(done - 1, self.recipe), **means)
        self.weights.averaged(self.copy)
        if self.copy is not None and report is not None:
            found = self._validate(self.copy)
            figures.update(found.figures)
            with clear_errors(run):
                facts = {**self.stage.facts(), "step": done}
                state = self.copy.state_dict()
                checkpoints.save(run / CHECKPOINT_NAME, self.stage.kind, self.stage.config, state, facts)
                report.write(figures, found.pictures)
        self.save_state(run, done)
        return figures

    def save_state(self, run: Path, done: int) -> None:
        """Write all that the next step depends on."""
        self._check_weights(done)
        tensors = {"done": torch.tensor(done), "count": torch.tensor(self.count)}
        tensors |= {f"total.{name}": torch.tensor(v, dtype=torch.float64) for name, v in self.totals.items()}
        if self.aside is not None:
            tensors |= {f"{ASIDE}{name}": tensor.detach().cpu() for name, tensor in self.aside.state().items()}
        for name, tensor in self.weights.state():
            if self.accelerator.is_main_process:
                tensors[name] = tensor
        if self.accelerator.is_main_process:
            save_state(run, tensors)

    @torch.no_grad()
    def _validate(self, model: nn.Module) -> Validation:
        return self.stage.validate(model)

    def _check_weights(self, done: int) -> None:
        unfit = int(self._reduced(self.weights.unfit(), "sum"))
        if unfit:
            raise TrainingError(
                f"{unfit} weights are not finite after step {done}; the last good state is saved: start again in "
                "a new --out folder with a lower rate (--set rate=...)"
            )

    def _reduced(self, tensor: Tensor, how: str) -> Tensor:
        reduced = self.accelerator.reduce(tensor, how)
        assert isinstance(reduced, Tensor)
        return reduced


class _Report:
    """The log and the progress of a run, for the main process."""

    def __init__(self, run: Path, start: int, steps: int, board: bool) -> None:
        with clear_errors(run):
            self.log = Log(run, start, board)
        self.progress = Progress(start, steps)

    def __enter__(self) -> _Report:
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.close()
        self.log.close()

    def write(self, figures: Step, pictures: Mapping[str, Tensor]) -> None:
        self.log.write(figures, pictures)
        self.progress.report(figures)


def _groups(stage: Stage) -> list[dict[str, object]]:
    """The trained parts alone, each with its share of the rate; everything else is frozen."""
    stage.model.requires_grad_(False)
    groups: list[dict[str, object]] = []
    for name, share in stage.trained.items():
        part = stage.model.get_submodule(name).requires_grad_(True)
        groups.append({"params": list(part.parameters()), "share": share})
    return groups
