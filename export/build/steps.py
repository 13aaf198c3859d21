"""A build as calls of PocketPrior's other commands, in their order: each resumes by itself, so that the whole does."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...core.photo.listing import released_photos
from ...core.training.stages import SEMANTIC, find_stage
from .recipe import BuildRecipe, kind_of

__all__ = ["RUNTIMES", "Step", "steps_of"]

MODEL = "model.safetensors"
PHOTOS = 2  # that packs are held against, unless the recipe names some
RUNTIMES = {"onnx": "onnxruntime", "openvino": "openvino", "coreml": "coreml"}  # that prove a target


@dataclass(frozen=True)
class Step:
    """A call of a command. output: what is there when it is done; removed before it is called anew if `fresh`."""

    name: str
    arguments: tuple[str, ...]
    output: Path
    fresh: bool = False

    @property
    def digest(self) -> str:
        """sha256 (hex) of the call."""
        return hashlib.sha256(json.dumps(self.arguments).encode()).hexdigest()


def steps_of(recipe: BuildRecipe, folder: Path, beside: Path) -> list[Step]:
    """The steps of a build in `folder`. beside: the folder of the recipe, to which its paths are relative."""
    data = str(beside / recipe.data)
    training = list(_training(recipe, folder, data))
    checkpoints = {kind_of(recipe.system, stage): folder / "train" / stage / MODEL for stage in recipe.stages}
    semantic = ("--semantic", str(checkpoints["semantic"])) if "semantic" in checkpoints else ()
    distilling = list(_distilling(recipe, folder, data, checkpoints[recipe.system], semantic))
    model = distilling[-1].output if distilling else checkpoints[recipe.system]
    reference = _recording(recipe, folder, beside, model, semantic)
    packing = list(_packing(recipe, folder, data, model, semantic))
    packs = [step.output.parent for step in packing]
    return [*training, *distilling, reference, *packing, *_proving(recipe, folder, reference.output, packs)]


def _training(recipe: BuildRecipe, folder: Path, data: str) -> Iterator[Step]:
    made: dict[str, Path] = {}
    for stage in recipe.stages:
        entry, out = find_stage(recipe.system, stage), folder / "train" / stage
        arguments = ["train", recipe.system, stage, "--data", data, "--out", str(out)]
        arguments += _option("--size", recipe.size if entry.sized else None)
        arguments += _option("--task", recipe.task if entry.tasked else None)
        for kind in entry.earlier:
            arguments += _option(f"--{kind}", str(made[kind]) if kind in made or kind != SEMANTIC else None)
        yield Step(f"train {stage}", (*arguments, *_settings(recipe.train[stage])), out / MODEL)
        made[kind_of(recipe.system, stage)] = out / MODEL


def _distilling(recipe: BuildRecipe, folder: Path, data: str, teacher: Path, semantic: Sequence[str]) -> Iterator[Step]:
    """Each student goes on from the one before it; one in 8 bits learns from that itself."""
    student: Path | None = None
    for number, run in enumerate(recipe.distill, start=1):
        name = f"{number}-{run.method}-{run.steps}"
        out = folder / "distill" / name
        itself = run.method == "quantized"
        arguments = ["distill", str(student if itself and student else teacher), "--data", data, "--out", str(out)]
        arguments += ["--method", run.method, "--steps", str(run.steps), *semantic]
        arguments += _option("--from", str(student) if student and not itself else None)
        yield Step(f"distill {name}", (*arguments, *_settings(run.set)), out / MODEL)
        student = out / MODEL


def _packing(recipe: BuildRecipe, folder: Path, data: str, model: Path, semantic: Sequence[str]) -> Iterator[Step]:
    targets, pack = ",".join(recipe.export.to), folder / "pack"
    arguments = ["export", str(model), "--data", data, "--to", targets, "-o", str(pack), *semantic]
    arguments += ["--precision", ",".join(recipe.export.precision), *recipe.sampling, *recipe.export.options]
    yield Step("export", tuple(arguments), pack / "manifest.json", fresh=True)
    if recipe.quantize:
        small = folder / "pack-quantized"
        arguments = ["quantize", str(pack), "--data", data, "--to", targets, "-o", str(small)]
        arguments += ["--budget-db", str(recipe.quantize.budget_db), *recipe.quantize.options]
        yield Step("quantize", tuple(arguments), small / "manifest.json", fresh=True)


def _recording(recipe: BuildRecipe, folder: Path, beside: Path, model: Path, semantic: Sequence[str]) -> Step:
    given = [str(beside / photo) for photo in recipe.parity.photos]
    photos = given or [str(path) for path in released_photos(beside / recipe.data, split="val")[:PHOTOS]]
    reference = folder / "reference.npz"
    arguments = ["parity", "record", str(model), "--photos", *photos, "--side", str(recipe.parity.side)]
    arguments += ["-o", str(reference), *semantic, *recipe.sampling]
    return Step("parity record", tuple(arguments), reference, fresh=True)


def _proving(recipe: BuildRecipe, folder: Path, reference: Path, packs: Sequence[Path]) -> Iterator[Step]:
    """Every pack for every target; one of fewer bits is held against the float one as well."""
    for pack in packs:
        for target in recipe.export.to:
            report = folder / "parity" / f"{pack.name}-{target}"
            arguments = ["parity", "run", str(pack), "--against", str(reference), "--runtime", RUNTIMES[target]]
            arguments += _option("--float", None if pack == packs[0] else str(packs[0]))
            for kind in ("junit", "html", "json"):
                arguments += [f"--{kind}", str(report.with_suffix(f".{kind}"))]
            yield Step(f"parity {pack.name} {target}", tuple(arguments), report.with_suffix(".json"), fresh=True)


def _settings(settings: Sequence[str]) -> list[str]:
    return [word for setting in settings for word in ("--set", setting)]


def _option(name: str, value: str | None) -> list[str]:
    return [] if value is None else [name, value]
