"""A build: its recipe, a TOML file, and its steps, calls of PocketPrior's other commands, each in a process.

Finished steps are listed in a file, so that a build resumes.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import NoReturn

from ..core.errors import INTERRUPTED, PackError, PocketPriorError, UsageError
from ..core.files import atomic_output
from ..core.pack.json import decode
from ..core.photo.listing import released_photos
from ..core.training import read_recipe
from ..core.training.stages import SEMANTIC, SYSTEMS, find_stage
from ..distill import distill_recipe
from .commands import export, quantize, record
from .systems import SamplingOptions, check_options
from .targets import BASE_TARGET, targets_of

__all__ = [
    "BuildRecipe",
    "BuildStep",
    "Distillation",
    "ExportSection",
    "ParitySection",
    "QuantizeSection",
    "build",
    "check_steps",
    "execute",
    "load_recipe",
    "planned",
    "run_steps",
    "steps_of",
]

BUILD_STATE = "build.json"
_MODEL = "model.safetensors"
_PHOTOS = 2  # of the reference, unless the recipe names some
# Steps whose options can be checked before.
_CHECKED = {"export": export, "quantize": quantize, "parity record": record}

Execute = Callable[[Sequence[str]], int]  # arguments of `pocketprior` -> exit code


@dataclass(frozen=True)
class Distillation:
    """One run of `pocketprior distill`."""

    method: str
    steps: int  # of the student's sampler
    set: tuple[str, ...] = ()  # settings of its recipe, NAME=VALUE


@dataclass(frozen=True)
class ExportSection:
    """What `pocketprior export` writes."""

    to: tuple[str, ...] = (BASE_TARGET,)
    precision: tuple[str, ...] = ("fp32",)
    options: tuple[str, ...] = ()  # further ones of the command, such as "--trained-on=FILE"


@dataclass(frozen=True)
class QuantizeSection:
    """What `pocketprior quantize` makes of the pack, for the same targets."""

    budget_db: float
    options: tuple[str, ...] = ()  # further ones of the command, such as "--max-size=4MB"


@dataclass(frozen=True)
class ParitySection:
    """The reference that packs are compared with."""

    photos: tuple[str, ...] = ()  # files or folders, relative to the recipe; none: the first `val` photos
    side: int = 128  # of their square crops, pixels


@dataclass(frozen=True)
class BuildRecipe:
    """A build. All stages that the last one needs must be named, so that none runs with settings that nobody chose.

    Raises UsageError for a system or stage that does not exist, and for a missing stage.
    """

    system: str
    data: str  # a folder, relative to the recipe
    train: Mapping[str, tuple[str, ...]]  # stage -> settings of its recipe, NAME=VALUE
    task: str | None = None
    size: str | None = None
    sampling: tuple[str, ...] = ()  # options that `export` and `parity record` share, such as "--gain=0.5"
    distill: tuple[Distillation, ...] = ()
    export: ExportSection = field(default_factory=ExportSection)
    quantize: QuantizeSection | None = None
    parity: ParitySection = field(default_factory=ParitySection)

    def __post_init__(self) -> None:
        if "delta" in self.train:
            raise UsageError(
                "[train]: 'delta' starts from the model of another task; build that first, and train this one with "
                "`pocketprior train`"
            )
        provided = {_kind_of(self.system, stage) for stage in self.train}
        for stage in self.train:
            for kind in find_stage(self.system, stage).earlier:
                if kind not in provided | {SEMANTIC}:
                    need = f"the stage '{stage}' needs a '{kind}'"
                    raise UsageError(f"[train]: {need}; name the stage that trains it too")
        if self.system not in provided:
            stages = [s for s in SYSTEMS[self.system] if _kind_of(self.system, s) == self.system]
            raise UsageError(f"[train]: no stage finishes a {self.system}; name one of: {', '.join(stages)}")
        if self.quantize and (BASE_TARGET not in self.export.to or self.export.precision[:1] != ("fp32",)):
            raise UsageError(
                f"[quantize] starts from {BASE_TARGET} graphs in fp32; name it in [export], and fp32 first"
            )

    @property
    def stages(self) -> list[str]:
        """The named stages in training order."""
        return [stage for stage in SYSTEMS[self.system] if stage in self.train]


def _kind_of(system: str, stage: str) -> str:
    whole = {"dtpm": ("adapters", "finish"), "diffir": ("joint", "adversarial"), "gen2res": ("base", "constrain")}
    if stage in whole.get(system, ()):
        return system
    return f"diffir-{stage}" if system == "diffir" else stage


def load_recipe(path: Path) -> BuildRecipe:
    """Read the recipe in a TOML file. Raises UsageError, naming the field, if it cannot be read or is wrong."""
    try:
        tree = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"the recipe {path} cannot be read: {error}") from error
    return decode(BuildRecipe, tree, str(path), error=UsageError, advice="correct the recipe")


@dataclass(frozen=True)
class BuildStep:
    """A call of a command."""

    name: str
    arguments: tuple[str, ...]  # of `pocketprior`
    output: Path  # what exists when it is done
    fresh: bool = False  # whether the output is removed before another call

    @property
    def digest(self) -> str:
        """sha256 (hex) of the call."""
        return hashlib.sha256(json.dumps(self.arguments).encode()).hexdigest()

    @property
    def place(self) -> Path:
        """The file or folder that it writes."""
        return self.output.parent if self.output.name in ("manifest.json", _MODEL) else self.output


def steps_of(recipe: BuildRecipe, folder: Path, root: Path) -> list[BuildStep]:
    """The steps of a build in `folder`; `root` is the folder of the recipe, to which its paths are relative."""
    data = str(root / recipe.data)
    training = list(_training(recipe, folder, data))
    checkpoints = {_kind_of(recipe.system, stage): folder / "train" / stage / _MODEL for stage in recipe.stages}
    semantic = ("--semantic", str(checkpoints["semantic"])) if "semantic" in checkpoints else ()
    distilling = list(_distilling(recipe, folder, data, checkpoints[recipe.system], semantic))
    model = distilling[-1].output if distilling else checkpoints[recipe.system]
    reference = _reference(recipe, folder, root, model, semantic)
    packing = list(_packing(recipe, folder, data, model, semantic))
    packs = [step.output.parent for step in packing]
    return [*training, *distilling, reference, *packing, *_proving(recipe, folder, reference.output, packs)]


class _OptionParser(argparse.ArgumentParser):
    """Raises UsageError where argparse would print and exit."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(message)


def check_steps(recipe: BuildRecipe, steps: Sequence[BuildStep]) -> None:
    """Raise UsageError, naming the step, for any option that its command would refuse hours later.

    The arguments go through the command's own parser and into the dataclass of options of its public function;
    settings of trainings go through their recipes.
    """
    for stage in recipe.stages:
        entry = find_stage(recipe.system, stage)
        size, task = recipe.size if entry.sized else None, recipe.task if entry.tasked else None
        with _naming(f"[train] {stage}"):
            read_recipe(recipe.system, stage, size=size, task=task, settings=recipe.train[stage])
    for run in recipe.distill:
        with _naming(f"[[distill]] {run.method}"):
            distill_recipe(run.method, sampling_steps=run.steps, settings=run.set)
    for step in steps:
        command, words = _CHECKED.get(step.name), len(step.name.split())
        if command is not None:
            with _naming(f"[{step.name}]"):
                parser = _OptionParser(allow_abbrev=False, add_help=False)
                command.add_arguments(parser)
                for options in command.options_of(parser.parse_args(step.arguments[words:])):
                    if isinstance(options, SamplingOptions):
                        check_options(recipe.system, options)


@contextmanager
def _naming(place: str) -> Iterator[None]:
    try:
        yield
    except PocketPriorError as error:
        raise UsageError(f"{place}: {error}") from error


def _training(recipe: BuildRecipe, folder: Path, data: str) -> Iterator[BuildStep]:
    made: dict[str, Path] = {}
    for stage in recipe.stages:
        entry, out = find_stage(recipe.system, stage), folder / "train" / stage
        arguments = ["train", recipe.system, stage, "--data", data, "--out", str(out)]
        models = {f"--{kind}": str(made[kind]) for kind in entry.earlier if kind in made or kind != SEMANTIC}
        size, task = recipe.size if entry.sized else None, recipe.task if entry.tasked else None
        arguments += _given({"--size": size, "--task": task, **models})
        yield BuildStep(f"train {stage}", (*arguments, *_settings(recipe.train[stage])), out / _MODEL)
        made[_kind_of(recipe.system, stage)] = out / _MODEL


def _distilling(
    recipe: BuildRecipe, folder: Path, data: str, teacher: Path, semantic: Sequence[str]
) -> Iterator[BuildStep]:
    """Each student starts from the one before it; a quantized one has that as its teacher."""
    student: Path | None = None
    for number, run in enumerate(recipe.distill, start=1):
        name = f"{number}-{run.method}-{run.steps}"
        out = folder / "distill" / name
        itself = run.method == "quantized"
        arguments = ["distill", str(student if itself and student else teacher), "--data", data, "--out", str(out)]
        arguments += ["--method", run.method, "--steps", str(run.steps), *semantic]
        arguments += _given({"--from": str(student) if student and not itself else None})
        yield BuildStep(f"distill {name}", (*arguments, *_settings(run.set)), out / _MODEL)
        student = out / _MODEL


def _packing(recipe: BuildRecipe, folder: Path, data: str, model: Path, semantic: Sequence[str]) -> Iterator[BuildStep]:
    targets, pack = ",".join(recipe.export.to), folder / "pack"
    arguments = ["export", str(model), "--data", data, "--to", targets, "-o", str(pack), *semantic]
    arguments += ["--precision", ",".join(recipe.export.precision), *recipe.sampling, *recipe.export.options]
    yield BuildStep("export", tuple(arguments), pack / "manifest.json", fresh=True)
    if recipe.quantize:
        small = folder / "pack-quantized"
        arguments = ["quantize", str(pack), "--data", data, "--to", targets, "-o", str(small)]
        arguments += ["--budget-db", str(recipe.quantize.budget_db), *recipe.quantize.options]
        yield BuildStep("quantize", tuple(arguments), small / "manifest.json", fresh=True)


def _reference(recipe: BuildRecipe, folder: Path, root: Path, model: Path, semantic: Sequence[str]) -> BuildStep:
    given = [str(root / photo) for photo in recipe.parity.photos]
    photos = given or [str(path) for path in released_photos(root / recipe.data, split="val")[:_PHOTOS]]
    reference = folder / "reference.npz"
    arguments = ["parity", "record", str(model), "--photos", *photos, "--side", str(recipe.parity.side)]
    arguments += ["-o", str(reference), *semantic, *recipe.sampling]
    return BuildStep("parity record", tuple(arguments), reference, fresh=True)


def _proving(recipe: BuildRecipe, folder: Path, reference: Path, packs: Sequence[Path]) -> Iterator[BuildStep]:
    """Every pack for every target; a quantized one is compared with the float one as well."""
    for pack in packs:
        for target in targets_of(recipe.export.to):
            report = folder / "parity" / f"{pack.name}-{target.name}"
            arguments = ["parity", "run", str(pack), "--against", str(reference), "--runtime", target.runtime]
            reports = {kind: report.with_suffix(f".{kind}") for kind in ("junit", "html", "json")}
            arguments += _given({"--float": None if pack == packs[0] else str(packs[0])})
            arguments += _given({f"--{kind}": str(path) for kind, path in reports.items()})
            yield BuildStep(f"parity {pack.name} {target.name}", tuple(arguments), reports["json"], fresh=True)


def _settings(settings: Sequence[str]) -> list[str]:
    return [word for setting in settings for word in ("--set", setting)]


def _given(options: Mapping[str, str | None]) -> list[str]:
    return [word for name, value in options.items() if value is not None for word in (name, value)]


def execute(arguments: Sequence[str]) -> int:
    """Run a command in a process of its own: its memory is freed, and a crash of a library ends only that step."""
    with subprocess.Popen([sys.executable, "-m", "pocketprior", *arguments]) as command:
        while True:
            try:
                return command.wait()
            except KeyboardInterrupt:  # the command gets it too, and saves its state
                _log("interrupted; waiting for the step to save its state")


def planned(recipe: Path, folder: Path | None = None) -> list[BuildStep]:
    """The steps of a build, every option of which has been validated; arguments and errors as those of `build`."""
    read, root = load_recipe(recipe), recipe.resolve().parent
    steps = steps_of(read, (folder or recipe.with_suffix("")).resolve(), root)
    check_steps(read, steps)
    return steps


def build(recipe: Path, folder: Path | None = None) -> int:
    """Run a build from photos to proved packs, or resume one; 0, or the exit code of the first step that failed.

    Args:
        recipe: A TOML file (docs/build.md).
        folder: Of the build; None for that of the recipe's name, next to it.

    Raises:
        UsageError: The recipe, or an option in it, is wrong, or a finished step was made by another recipe.
    """
    return run_steps(planned(recipe, folder), (folder or recipe.with_suffix("")).resolve())


def run_steps(steps: Sequence[BuildStep], folder: Path, run: Execute = execute) -> int:
    """Run what is not done yet; the exit code of the first step that fails, 0 if all are done.

    Raises UsageError if a finished step was another call: its result belongs to another recipe.
    """
    folder.mkdir(parents=True, exist_ok=True)
    done = _known(folder / BUILD_STATE)
    for step in steps:
        if done.get(step.name, step.digest) != step.digest:
            raise UsageError(
                f"'{step.name}' was run with other settings in {folder}; remove {step.place} and {BUILD_STATE}, or "
                "build in another folder"
            )
    for number, step in enumerate(steps, start=1):
        title = f"[{number}/{len(steps)}] {step.name}"
        if step.name in done and step.output.exists():
            _log(f"{title}: done before")
            continue
        # What comes after a step was made from its older result.
        older = done.keys() & {later.name for later in steps[number - 1 :]}
        if older:
            done = {name: digest for name, digest in done.items() if name not in older}
            _save(folder / BUILD_STATE, done)
        _clear(step, folder)
        _log(f"{title}: pocketprior {' '.join(step.arguments)}")
        start = monotonic()
        code = run(step.arguments)
        if code:
            again = "" if code == INTERRUPTED else "correct what it reports and "
            _log(f"{title}: ended with {code} after {monotonic() - start:.0f} s; {again}run the same command to resume")
            return code
        if not step.output.exists():
            _log(f"{title}: succeeded but did not write {step.output}; report it, with the recipe")
            return 1
        done[step.name] = step.digest
        _save(folder / BUILD_STATE, done)
        _log(f"{title}: done in {monotonic() - start:.0f} s")
    return 0


def _known(path: Path) -> dict[str, str]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else {}
    except (OSError, ValueError) as error:
        raise PackError(f"{path} cannot be read ({error}); remove it: finished trainings are recognised") from error


def _save(path: Path, done: dict[str, str]) -> None:
    with atomic_output(path, overwrite=True) as temporary:
        temporary.write_text(json.dumps(done, indent=1) + "\n", encoding="utf-8")


def _clear(step: BuildStep, folder: Path) -> None:
    """Remove what a killed step left behind, and an older result where the command would refuse to overwrite it."""
    for left in (*folder.glob(f".{step.place.name}-*"), *([step.place] if step.fresh else [])):
        shutil.rmtree(left) if left.is_dir() else left.unlink(missing_ok=True)
    step.place.parent.mkdir(parents=True, exist_ok=True)


def _log(text: str) -> None:
    print(f"pocketprior: {text}", file=sys.stderr)
