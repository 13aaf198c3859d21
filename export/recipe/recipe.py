"""The recipe of a build, a TOML file: what is trained, distilled, exported and quantized, and for which targets."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ...core.errors import UsageError
from ...core.pack.json import decode
from ...core.training.stages import SEMANTIC, SYSTEMS, find_stage

__all__ = ["BuildRecipe", "Distillation", "ExportSection", "ParitySection", "QuantizeSection", "kind_of", "load_recipe"]


@dataclass(frozen=True)
class Distillation:
    """One run of `pocketprior distill`."""

    method: str
    steps: int  # of the student's sampler
    set: tuple[str, ...] = ()  # settings of its recipe, NAME=VALUE


@dataclass(frozen=True)
class ExportSection:
    """What `pocketprior export` writes."""

    to: tuple[str, ...] = ("onnx",)
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
        provided = {kind_of(self.system, stage) for stage in self.train}
        for stage in self.train:
            for kind in find_stage(self.system, stage).earlier:
                if kind not in provided | {SEMANTIC}:
                    raise UsageError(
                        f"[train]: the stage '{stage}' needs a '{kind}'; name the stage that trains it too"
                    )
        if self.system not in provided:
            stages = [s for s in SYSTEMS[self.system] if kind_of(self.system, s) == self.system]
            raise UsageError(f"[train]: no stage finishes a {self.system}; name one of: {', '.join(stages)}")
        if self.quantize and ("onnx" not in self.export.to or self.export.precision[:1] != ("fp32",)):
            raise UsageError(
                "[quantize] starts from float32 ONNX graphs; name onnx in [export] to, and fp32 first in its precision"
            )

    @property
    def stages(self) -> list[str]:
        """The named stages in training order."""
        return [stage for stage in SYSTEMS[self.system] if stage in self.train]


def kind_of(system: str, stage: str) -> str:
    """The kind of checkpoint that a stage trains."""
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
