"""What the stages of DTPM start from, and whether it fits the recipe."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from torch import nn

from ...errors import UsageError
from ...models.checkpoints import Checkpoint, from_dict
from ...models.dtpm import Dtpm, DtpmConfig
from ...models.semantic import NO_SEMANTIC, NoEncoder, encoder_of

__all__ = ["check_model", "frozen_encoder", "trained_parts"]


def frozen_encoder(earlier: Mapping[str, Checkpoint], model: DtpmConfig) -> nn.Module:
    """The semantic encoder of a run, none of a model without a code. Raises UsageError unless `model` names it."""
    encoder = encoder_of(earlier["semantic"]) if "semantic" in earlier else NoEncoder()
    _check("semantic", {"semantic": encoder.config}, model)
    return encoder


def check_model(kind: str, checkpoint: Checkpoint, model: DtpmConfig, *names: str) -> None:
    """Raise UsageError, with the settings to give, unless the fields `names` are those of the checkpoint's model."""
    theirs = from_dict(DtpmConfig, checkpoint.config)
    _check(kind, {name: getattr(theirs, name) for name in names}, model)


def trained_parts(dtpm: Dtpm, predictor_rate: float) -> dict[str, float]:
    """What stage II trains of a DTPM, with its share of the rate: the adapters, and the predictor at `predictor_rate`.

    Raises UsageError for a calibrated predictor that is to learn: its sigma would no longer be that of its errors.
    """
    if predictor_rate == 0:
        return {"adapters": 1.0}
    if dtpm.predictor.calibrated:
        raise UsageError(
            f"a calibrated predictor stays as it is in stage II, got predictor_rate={predictor_rate:g}; give "
            "--set predictor_rate=0"
        )
    return {"adapters": 1.0, **dict.fromkeys(dtpm.predictor_parts(), predictor_rate)}


def _check(kind: str, theirs: Mapping[str, Any], model: DtpmConfig) -> None:
    if kind == "semantic" and theirs["semantic"] == NO_SEMANTIC != model.semantic:
        raise UsageError("this model has a semantic code; give the encoder's checkpoint (--semantic FILE)")
    wanted = [s for name, value in theirs.items() for s in _settings(f"model.{name}", value, getattr(model, name))]
    if wanted:
        raise UsageError(
            f"the '{kind}' checkpoint has another model than this run; give the --size it was trained with, "
            f"or: {' '.join(f'--set {setting}' for setting in wanted)}"
        )


def _settings(name: str, theirs: Any, ours: Any) -> Iterator[str]:
    """The settings that turn `ours` into `theirs`."""
    if is_dataclass(theirs):
        for field in fields(theirs):
            yield from _settings(f"{name}.{field.name}", getattr(theirs, field.name), getattr(ours, field.name))
    elif theirs != ours:
        yield f"{name}={','.join(map(str, theirs)) if isinstance(theirs, tuple) else theirs}"
