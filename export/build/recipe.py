"""The recipe of a build, a TOML file: what is trained, in how few steps and bits it ends, and where it is to run."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ...core.errors import PackError, UsageError
from ...core.pack.json import decode
from ...core.training.stages import SEMANTIC, SYSTEMS, find_stage

__all__ = ["BuildRecipe", "Distillation", "Export", "Parity", "Quantization", "kind_of", "load"]


@dataclass(frozen=True)
class Distillation:
    """One run of `pocketprior distill`. set: settings of its recipe, NAME=VALUE."""

    method: str
    steps: int
    set: tuple[str, ...] = ()


@dataclass(frozen=True)
class Export:
    """What `pocketprior export` writes. options: further ones of the command, such as "--trained-on=FILE"."""

    to: tuple[str, ...] = ("onnx",)
    precision: tuple[str, ...] = ("fp32",)
    options: tuple[str, ...] = ()


@dataclass(frozen=True)
class Quantization:
    """What `pocketprior quantize` makes of the pack, for the same targets. options: further ones of the command."""

    budget_db: float
    options: tuple[str, ...] = ()


@dataclass(frozen=True)
class Parity:
    """What packs are held against. photos: files or folders, relative to the recipe; none: the first `val` photos.

    side: of the squares that are cut out of them, in pixels.
    """

    photos: tuple[str, ...] = ()
    side: int = 128


@dataclass(frozen=True)
class BuildRecipe:
    """A build. data: a folder, relative to the recipe. train: stage -> settings of its recipe, NAME=VALUE.

    sampling: how the model samples, options that `export` and `parity record` share, such as "--gain=0.5".

    All stages that the last of them needs must be named, so that none runs with settings that nobody chose. Raises
    UsageError for a system or stage that does not exist, and for one that is missing.
    """

    system: str
    data: str
    train: Mapping[str, tuple[str, ...]]
    task: str | None = None
    size: str | None = None
    sampling: tuple[str, ...] = ()
    distill: tuple[Distillation, ...] = ()
    export: Export = field(default_factory=Export)
    quantize: Quantization | None = None
    parity: Parity = field(default_factory=Parity)

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
                    raise UsageError(f"[train]: the stage '{stage}' needs a stage that gives '{kind}'; name that too")
        if self.system not in provided:
            stages = [s for s in SYSTEMS[self.system] if kind_of(self.system, s) == self.system]
            raise UsageError(f"[train]: no stage gives a whole {self.system}; name one of: {', '.join(stages)}")
        if self.quantize and ("onnx" not in self.export.to or self.export.precision[:1] != ("fp32",)):
            raise UsageError("[quantize] starts from ONNX graphs in fp32; name these in [export]")

    @property
    def stages(self) -> list[str]:
        """The named stages in the order in which they are trained."""
        return [stage for stage in SYSTEMS[self.system] if stage in self.train]


def kind_of(system: str, stage: str) -> str:
    """The kind of checkpoint that a stage gives."""
    whole = {"dtpm": ("adapters", "finish"), "diffir": ("joint", "adversarial"), "gen2res": ("base", "constrain")}
    if stage in whole.get(system, ()):
        return system
    return f"diffir-{stage}" if system == "diffir" else stage


def load(path: Path) -> BuildRecipe:
    """The recipe in a TOML file. Raises UsageError, naming the field, for one that cannot be read or is wrong."""
    try:
        tree = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"the recipe {path} cannot be read: {error}") from error
    try:
        return decode(BuildRecipe, tree, str(path))
    except PackError as error:  # what to do about it is said of packs there
        raise UsageError(f"{str(error).removesuffix('; export the pack again')}; mend the recipe") from error
