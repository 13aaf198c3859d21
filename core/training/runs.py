"""Training and evaluation from Python: the functions that `pocketprior train` and `pocketprior evaluate` call."""

from __future__ import annotations

import shutil
from collections.abc import Generator, Mapping, Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

import torch

from ..arrays import Image
from ..degradations import TASKS
from ..errors import UnknownNameError, UsageError
from ..files import write_text
from ..models import checkpoints
from ..models.dtpm import DtpmConfig
from ..models.gen2res import SHIPPED_BASE, build, load_base
from ..models.initial_predictor import Predictor
from ..models.semantic_code import encoder_of, open_semantic, semantic_file
from ..photo.io import read
from ..photo.listing import clean_photos
from .data.pairs import PairUse
from .data.photos import TrainingData, to_8_bits
from .data.sources import file_hash, open_data
from .evaluation import diffir, dtpm, gen2res
from .evaluation.score import ResultTable, page, square
from .loop.loop import CHECKPOINT_NAME, SavedStep
from .loop.loop import train as train_stage
from .loop.processes import Threads, close, parse_threads, processes
from .loop.recipe import Recipe
from .loop.run_folder import COOLED_PREFIX, RECIPE_NAME, STATE_NAME, check_run, claim_run, clear_errors, steps_done
from .loop.stage import TrainingStage
from .stages import SEMANTIC, find_stage

__all__ = ["configured", "cool", "evaluate", "read_recipe", "run_options", "train"]

R = TypeVar("R", bound=Recipe)

NOISY_PHOTOS, NOISY_SIDE = 6, 192  # evenly spaced, their centres: BM3D is slow


def read_recipe(
    system: str,
    stage: str,
    path: Path | None = None,
    *,
    size: str | None = None,
    task: str | None = None,
    settings: Sequence[str] = (),
) -> Recipe:
    """The recipe of a stage.

    Args:
        system: "dtpm", "diffir" or "gen2res".
        stage: A stage of it; see `stages.SYSTEMS`.
        path: A recipe file (.toml or .json); None for the stage's default, which is for models of size mobile.
        size: Replaces the model by the one of this name in CONFIGS.
        task: Replaces the task; one of `degradations.TASKS`.
        settings: Changes, "name=value", applied last; see `Recipe.with_settings`.

    Raises:
        UsageError: For an unknown name or a value that does not fit.
        TrainingError: For a file that is not a recipe of this stage.
    """
    model = None
    if size is not None:
        sizes = import_module(f"..models.{system}", __package__).CONFIGS
        if size not in sizes:
            raise UnknownNameError("size", size, sizes)
        model = sizes[size]
    return configured(find_stage(system, stage).load().recipe, path, settings, model=model, task=task)


def configured(default: R, path: Path | None, settings: Sequence[str], **changes: Any) -> R:
    """`default`, or the recipe in the file `path`, with the changes that are not None and then the settings.

    Raises UsageError for an unknown task or a value that does not fit, TrainingError for a file of another recipe.
    """
    recipe = type(default).load(path) if path else default
    recipe = replace(recipe, **{name: value for name, value in changes.items() if value is not None})
    recipe = recipe.with_settings(settings)
    task = getattr(recipe, "task", "")
    if task and task not in TASKS:
        raise UnknownNameError("task", task, TASKS)
    return recipe


def run_options(workers: int, minutes: float | None, threads: str, out: Path) -> dict[str, Any]:
    """The options of `loop.train` for the use of the machine. Raises UsageError for numbers out of range."""
    if workers < 0:
        raise UsageError(f"expected 0 workers (draw in the training process) or more, got {workers}")
    if minutes is not None and not minutes > 0:
        raise UsageError(f"expected more than 0 minutes, got {minutes:g}")
    return {"workers": workers, "minutes": minutes, "threads": Threads(parse_threads(threads), out)}


def train(
    recipe: Recipe,
    *,
    system: str,
    stage: str,
    data: str,
    out: Path,
    val: str | None = None,
    use: PairUse = "any",
    earlier: Mapping[str, str | Path] | None = None,
    start: Path | None = None,
    cool_steps: int | None = None,
    workers: int = 1,
    minutes: float | None = None,
    threads: str = "auto",
) -> Generator[SavedStep]:
    """Train one stage of one system, or resume its run; yields the figures of each save.

        recipe = read_recipe("dtpm", "predictor", settings=["steps=2000"])
        for saved in train(recipe, system="dtpm", stage="predictor", data="photos", out=Path("runs/predictor")):
            print(saved.step, saved.figures)

    Args:
        recipe: As `read_recipe` returns it.
        system: "dtpm", "diffir" or "gen2res".
        stage: A stage of it; see `stages.SYSTEMS`.
        data: Folder of photos or of pairs, or shards.
        out: The run folder; an unfinished run in it is continued.
        val: Held-back photos if they are not a part of `data`.
        use: Pairs to take, by their licence; see `find_pairs`.
        earlier: Checkpoint files by kind, for a stage that starts from others.
        start: A checkpoint of this stage, from whose weights a new run starts; it counts steps on from there.
        cool_steps: Instead: train a copy of the run for so many steps while its rate falls to zero; see `cool`.
        workers: Processes that draw batches; 0 to draw in this one.
        minutes: Save the state and return after this time.
        threads: "auto" or a number of threads.

    Raises:
        UsageError: For arguments that do not fit each other or the photos.
        TrainingError, CheckpointError: As `loop.train` does.
        KeyboardInterrupt: On Ctrl-C and SIGTERM, after the state is saved.
    """
    entry = find_stage(system, stage)
    options = run_options(workers, minutes, threads, out)
    paths = {kind: str(path) for kind, path in (earlier or {}).items()}
    missing = [kind for kind in entry.earlier if kind not in {*paths, SEMANTIC}]
    if missing:
        raise UsageError(f"the stage '{stage}' starts from a '{missing[0]}' checkpoint; name its file")
    try:
        opened = {
            kind: open_semantic(path) if kind == SEMANTIC else checkpoints.load(Path(path), kind)
            for kind, path in paths.items()
        }
        semantic = getattr(getattr(recipe, "model", None), "semantic", None)
        side, structures = semantic.size if semantic else 0, entry.structures
        photos, inputs = open_data(
            data, val, use=use, seed=recipe.seed, crop=recipe.largest_crop, side=side, structures=structures
        )
        inputs |= {kind: file_hash(semantic_file(path)) for kind, path in paths.items()}
        torch.manual_seed(recipe.seed)
        made = entry.load().build(recipe, opened, photos)
        if cool_steps is not None:
            yield from cool(made, photos, recipe, out, cool_steps, inputs=inputs, **options)
        else:
            weights = checkpoints.load(start, made.kind) if start else None
            yield from train_stage(made, photos, recipe, out, inputs=inputs, start=weights, **options)
    finally:
        close()


def cool(
    stage: TrainingStage,
    data: TrainingData,
    recipe: Recipe,
    run: Path,
    steps: int,
    *,
    inputs: Mapping[str, str] | None = None,
    **options: Any,
) -> Generator[SavedStep]:
    """Train a copy of the run `run`, whose recipe is given, for `steps` more steps while the rate falls to zero.

    It shows how good a run with a constant rate is by now; the run itself stays as it is. The copy is an ordinary run,
    which resumes after a kill, in the run's folder under the number of steps that the run has done. It draws the
    samples that follow. Options are those of `loop.train`. Raises UsageError if the rate of the run is not constant or
    still rises, TrainingError if the run has no state.
    """
    check_run(run, recipe, inputs or {})
    done = steps_done(run)
    if steps < 1:
        raise UsageError(f"expected at least 1 step to cool for, got {steps}")
    if recipe.cooldown:
        raise UsageError(f"{run} has a cool-down of its own; only runs with --set cooldown=0 can be copied and cooled")
    if done < recipe.warmup:
        raise UsageError(f"{run} is at step {done} and warms up until step {recipe.warmup}; cool it later")
    out = run / f"{COOLED_PREFIX}{done:08d}"
    group = processes()
    if group.is_main_process and not (out / RECIPE_NAME).exists():
        with clear_errors(out):
            out.mkdir(exist_ok=True)
            shutil.copyfile(run / STATE_NAME, out / STATE_NAME)
        end = steps_done(out) + steps  # the run may have saved since
        claim_run(out, replace(recipe, steps=end, cooldown=steps / (end - recipe.warmup)), inputs or {})
    group.wait_for_everyone()
    yield from train_stage(stage, data, type(recipe).load(out / RECIPE_NAME), out, inputs=inputs, **options)


def evaluate(data: Path, out: Path, *, runs: Path, work: Path, side: int = 320, task: str = "noise") -> int:
    """Measure every trained system on held-back photos and write a page of tables.

    Args:
        data: Folder of photos with a manifest.csv; those with split=val and use=any are measured.
        out: The page, a Markdown file.
        runs: Folder of run folders: one per task for DTPM, "diffir", "diffir-pretrain", "predictor", ...
        work: Folder of the runs that constrain Gen2Res to albums; finished ones are used again.
        side: Side of the centre squares that are measured, pixels.
        task: Damage of the album photos; one of `degradations.TASKS`.

    Returns:
        The number of tables.

    Raises:
        UsageError: If the page cannot be written, or a photo is too small.
        CheckpointError: If a checkpoint is missing or of another kind.
        MissingExtraError: Without the package bm3d.
    """
    if not out.parent.is_dir():
        raise UsageError(f"the folder of '{out}' does not exist; create it, or choose another -o")
    listed = clean_photos(data, split="val", use="any")
    photos = [square(to_8_bits(read(row.path).pixels, halve=True), side) for row in listed if row.set != "dreambooth"]
    albums = sorted({row.path.parent for row in listed if row.set == "dreambooth"})
    tables = [*_with_tasks(runs, photos), *_with_noise(photos), *_with_albums(runs, albums, work, task, side)]
    text = page(
        f"pocketprior evaluate --data DATA --task {task} -o docs/results.md",
        f"the centre {side} x {side} of {len(photos)} held-back photos; {len(albums)} held-back albums",
        tables,
    )
    write_text(out, text)
    return len(tables)


def _with_tasks(folder: Path, photos: Sequence[Image]) -> list[ResultTable]:
    """A DTPM for each task, in the folder of that name; one DiffIR with its first stage, and V1 if it is there."""
    kinds = ("semantic", "diffir", "diffir-pretrain", "diffir-v1")
    semantic, model, pretrained, v1 = (folder / kind / CHECKPOINT_NAME for kind in kinds)
    encoder = encoder_of(checkpoints.load(semantic, "semantic")) if semantic.exists() else None
    tasks = [folder / task / CHECKPOINT_NAME for task in TASKS if (folder / task).is_dir()]
    found = [dtpm.evaluate(path, encoder, photos) for path in tasks]
    return [*found, diffir.evaluate(model, pretrained, photos, v1 if v1.exists() else None)]


def _with_noise(photos: Sequence[Image]) -> list[ResultTable]:
    """The base of Gen2Res on some of the photos, at each strength of the noise."""
    count = min(NOISY_PHOTOS, len(photos))
    chosen = [square(to_8_bits(photos[i * len(photos) // count], halve=False), NOISY_SIDE) for i in range(count)]
    denoiser = build(load_base(SHIPPED_BASE))
    return [gen2res.noise_table(denoiser, chosen, sigma) for sigma in gen2res.NOISE_SIGMAS]


def _with_albums(folder: Path, albums: Sequence[Path], work: Path, task: str, side: int) -> list[ResultTable]:
    checkpoint = checkpoints.load(folder / "predictor" / CHECKPOINT_NAME, "predictor")
    predictor = checkpoint.fill(Predictor(checkpoints.from_dict(DtpmConfig, checkpoint.config).predictor)).eval()
    tables = [
        gen2res.evaluate(album, SHIPPED_BASE, predictor, work / album.name, task=task, side=side) for album in albums
    ]
    return [*tables, gen2res.overall(tables)] if tables else []
