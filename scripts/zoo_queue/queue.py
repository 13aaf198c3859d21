"""The training queue: every model of the zoo, in order and in passes, at low priority, for days if need be.

A file `zoo/NAME.toml` describes one model: its stages in order, each a `pocketprior` command, and the total hours of
each stage at the end of each pass. A stage with hours trains at a constant rate; at every doubling of its steps, and
when its hours are over, a copy is cooled: later stages start from that copy, and it is kept in 16 bits. A stage without
hours trains the steps of its recipe. The state is saved on the way: a queue that was killed or stopped resumes.
"""

from __future__ import annotations

import csv
import json
import os
import shlex
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import safetensors

from pocketprior.core.cli import main as pocketprior
from pocketprior.core.errors import TrainingError, UsageError
from pocketprior.core.files import write_text
from pocketprior.core.models import checkpoints
from pocketprior.core.pack.json import decode
from pocketprior.core.training.data.sources import file_hash
from pocketprior.core.training.loop.recipe import Recipe
from pocketprior.core.training.loop.run_folder import COOLED_PREFIX, STATE_NAME, cooled_copies, is_finished, steps_done

__all__ = ["Place", "Status", "ZooModel", "ZooStage", "advance", "keep", "read_models", "status", "work"]

MODEL_NAME = "model.safetensors"
PASSES_NAME = "passes.json"  # in the state folder: passes that each run has completed
USED_NAME = "used.json"  # in a run folder: hashes of the checkpoints of earlier stages that it was made from
COOL_SHARE = 0.12  # steps of a cooled copy, as a share of those of its run
COOL_SECONDS = 20 * 60.0  # longest cooling
LARGEST = 20_000_000  # bytes of a file that is kept
ROUNDING = 1e-3  # hours


@dataclass(frozen=True)
class ZooStage:
    """One stage of a model: a [[stage]] table."""

    name: str
    command: str  # of `pocketprior`, without --data and --out; {NAME} is the checkpoint of an earlier stage
    hours: tuple[float, ...] = ()  # total hours of training at the end of each pass; none: the steps of the recipe


@dataclass(frozen=True)
class ZooModel:
    """One file of the zoo."""

    name: str  # by default that of the file
    stage: tuple[ZooStage, ...]
    first: int = 1000  # steps before the first cooled copy; each further copy follows at twice as many

    @property
    def passes(self) -> int:
        """How often the queue comes back to its stages."""
        return max((len(stage.hours) for stage in self.stage), default=1) or 1


@dataclass(frozen=True)
class Place:
    """Where the queue works."""

    state: Path  # folder of the runs, NAME/STAGE each
    kept: Path  # folder of the checkpoints in 16 bits
    data: str
    threads: str = "auto"

    def run(self, model: ZooModel, stage: ZooStage) -> Path:
        """The folder of a run."""
        return self.state / model.name / stage.name

    def weights(self, model: ZooModel, stage: ZooStage) -> Path:
        """The checkpoint that is kept of it."""
        return self.kept / f"{model.name}-{stage.name}.safetensors"


def read_models(folder: Path) -> list[ZooModel]:
    """The models of `folder`, in the order of their file names. Raises UsageError for a file that is not one."""
    paths = sorted(folder.glob("*.toml"))
    if not paths:
        raise UsageError(f"there is no model in {folder}; add a NAME.toml")
    return [_model(path) for path in paths]


def _model(path: Path) -> ZooModel:
    advice = "see docs/training.md"
    try:
        values = {"name": path.stem, **tomllib.loads(path.read_text(encoding="utf-8"))}
    except ValueError as error:
        raise UsageError(f"{path} is not valid TOML ({error}); {advice}") from None
    return decode(ZooModel, values, str(path), error=UsageError, advice=advice)


def work(models: list[ZooModel], place: Place) -> Iterator[str]:
    """Train every model, pass by pass; yields the name of each run before training it.

    Raises SystemExit with the exit code of a command that was interrupted or failed.
    """
    note = place.state / PASSES_NAME
    for number in range(max(model.passes for model in models)):
        for model in models:
            for stage in model.stage:
                name = f"{model.name}/{stage.name}"
                passes = json.loads(note.read_text()) if note.exists() else {}
                if passes.get(name, 0) <= number or not (place.run(model, stage) / STATE_NAME).exists():
                    yield name
                    advance(model, stage, number, place)
                    _write(note, {**passes, name: number + 1})


def advance(model: ZooModel, stage: ZooStage, number: int, place: Place) -> None:
    """Train one stage from where it is until the end of pass `number`."""
    run, kept = place.run(model, stage), place.weights(model, stage)
    earlier = {other.name: _result(model, other, place) for other in model.stage if other is not stage}
    words = [*_words(stage, earlier), "--data", place.data, "--out", str(run), "--threads", place.threads]
    used = {n: file_hash(path) for n, path in earlier.items() if f"{{{n}}}" in stage.command and path.exists()}
    _set_aside(run, used)
    if not stage.hours:
        if not is_finished(run):
            _call(words)
        keep(run, kept, used)
        return
    hours = stage.hours[min(number, len(stage.hours) - 1)]
    words += ["--set", "cooldown=0"]
    while True:
        done, spent = _progress(run)
        start: list[str] = []
        if not done and _facts(kept).get("used") == used:  # the state is lost, or was never here
            done, spent, start = _facts(kept)["step"], _facts(kept)["hours"], ["--from", str(kept)]
        over = spent >= hours - ROUNDING
        if done and not start and (over or done == _milestone(done - 1, model.first)):
            _cool(run, words, done, spent)
        if copies := cooled_copies(run):
            keep(copies[-1], kept, used)
        if over:
            return
        length = ["--set", f"steps={_milestone(done, model.first)}", "--minutes", f"{60 * (hours - spent):.4f}"]
        _call([*words, *length, *start])


def _words(stage: ZooStage, earlier: Mapping[str, Path]) -> list[str]:
    try:
        return shlex.split(stage.command.format_map({name: shlex.quote(str(p)) for name, p in earlier.items()}))
    except (KeyError, ValueError) as error:
        raise UsageError(f"command of stage '{stage.name}': {error} is not a stage of its model") from None


def _call(words: list[str]) -> None:
    code = pocketprior(words)
    if code:
        raise SystemExit(code)


def _milestone(done: int, first: int) -> int:
    """The least number of steps above `done` at which a copy is cooled."""
    steps = first
    while steps <= done:
        steps *= 2
    return steps


def _cool(run: Path, words: list[str], done: int, hours: float) -> None:
    """Cool a copy of the run as it is, unless there is one."""
    if not is_finished(run / f"{COOLED_PREFIX}{done:08d}"):
        length = min(COOL_SHARE * done, COOL_SECONDS * done / max(3600 * hours, 1e-9))
        _call([*words, "--set", f"steps={done}", "--cool", str(max(1, round(length)))])


def _result(model: ZooModel, stage: ZooStage, place: Place) -> Path:
    """The checkpoint that later stages start from: that of the last cooled copy, else the run's, else the kept one."""
    run = place.run(model, stage)
    found = (folder / MODEL_NAME for folder in [*reversed(cooled_copies(run)), run])
    return next((path for path in found if path.exists()), place.weights(model, stage))


def _set_aside(run: Path, used: Mapping[str, str]) -> None:
    """Note the hashes of what the run starts from; if they have changed, rename it, so that a new run begins."""
    note = run / USED_NAME
    if note.exists() and json.loads(note.read_text()) != used:
        olds = (run.with_name(f"{run.name}.{i}") for i in count(1))
        run.rename(next(old for old in olds if not old.exists()))
    run.mkdir(parents=True, exist_ok=True)
    _write(note, used)


def _write(path: Path, values: Mapping[str, Any]) -> None:
    write_text(path, json.dumps(dict(values), indent=2) + "\n")


def _progress(run: Path) -> tuple[int, float]:
    """Steps done and hours spent."""
    if not (run / STATE_NAME).exists():
        return 0, 0.0
    with safetensors.safe_open(run / STATE_NAME, "np") as state:
        return int(state.get_tensor("done")), float(state.get_tensor("seconds")) / 3600


def keep(run: Path, path: Path, used: Mapping[str, str]) -> None:
    """Write the checkpoint of a finished run in 16 bits, with a NAME.json of facts, unless that is there.

    used: hashes of the checkpoints that it was made from. Raises TrainingError when it would be larger than 20 MB.
    """
    facts = {"step": steps_done(run), **_last_line(run), "used": dict(used)}
    if _facts(path) == facts:
        return
    checkpoint = checkpoints.load(run / MODEL_NAME)
    tensors = {n: t.half() if t.is_floating_point() else t for n, t in checkpoint.tensors.items()}
    checkpoints.check_finite(run / MODEL_NAME, tensors)
    size = sum(tensor.nbytes for tensor in tensors.values())
    if size > LARGEST:
        raise TrainingError(
            f"{run} holds {size / 1e6:.0f} MB of weights in 16 bits; {LARGEST / 1e6:.0f} MB can be kept"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    more = {name: facts[name] for name in ("mpx", "hours")}
    checkpoints.save(path, checkpoint.kind, checkpoint.config, tensors, {**checkpoint.facts, **more})
    _write(path.with_suffix(".json"), facts)


def _facts(path: Path) -> dict[str, Any]:
    """What `keep` noted of a checkpoint; nothing when either is missing."""
    note = path.with_suffix(".json")
    return json.loads(note.read_text()) if path.exists() and note.exists() else {}


def _last_line(run: Path) -> dict[str, float]:
    """Mpx, hours and validation of the last save."""
    with (run / "log.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    named = rows[-1].items() if rows else ()
    return {name: float(value) for name, value in named if name in ("mpx", "hours") or name.startswith("val_")}


@dataclass(frozen=True)
class Status:
    """One row of the table."""

    run: str
    mpx: float
    hours: float
    validation: str
    image: str


def status(models: list[ZooModel], place: Place) -> list[Status]:
    """Every run of the zoo as it is now."""
    return [_status(f"{m.name}/{s.name}", place.run(m, s)) for m in models for s in m.stage]


def _megapixels(run: Path, done: int) -> float:
    """Of the crops that a run has seen in its `done` steps, in millions."""
    recipe = tomllib.loads((run / "recipe.toml").read_text(encoding="utf-8"))
    seen = {name: recipe[name] for name in ("batch", "crop", "grow_every") if name in recipe}
    return Recipe(steps=done, grown=tuple(recipe.get("grown", ())), **seen).megapixels(done)


def _status(name: str, run: Path) -> Status:
    done, hours = _progress(run)
    if not done:
        return Status(name, 0.0, 0.0, "", "")
    places = [*reversed(cooled_copies(run)), run]
    logged = next((place for place in places if (place / "log.csv").exists()), None)
    figures = {n: v for n, v in (_last_line(logged) if logged else {}).items() if n.startswith("val_")}
    cooled = " cooled" if logged not in (None, run) else ""
    validation = "".join(f"{name} {value:.4g}{cooled}" for name, value in list(figures.items())[:1])
    images = sorted(run.glob("**/pictures/*.png"), key=os.path.getmtime)
    return Status(name, _megapixels(run, done), hours, validation, str(images[-1]) if images else "")
