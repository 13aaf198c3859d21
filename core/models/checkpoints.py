"""Checkpoints: one safetensors file that carries its tensors and what is needed to build the model.

The header holds one JSON text: format, kind ("dtpm", "semantic", ...), the model's configuration and facts measured in
training. Tensors only: nothing in a checkpoint can run.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import safetensors
import safetensors.torch
from torch import Tensor, nn

from ..errors import CheckpointError
from ..pack.json import decode

__all__ = ["Checkpoint", "check_finite", "from_dict", "load", "misfits", "save"]

CHECKPOINT_FORMAT = 1
Config = TypeVar("Config")
Network = TypeVar("Network", bound=nn.Module)


@dataclass(frozen=True)
class Checkpoint:
    """The contents of a checkpoint file."""

    kind: str
    config: dict[str, Any]
    tensors: dict[str, Tensor]
    facts: dict[str, Any] = field(default_factory=dict)

    def part(self, prefix: str) -> dict[str, Tensor]:
        """The tensors whose names start with `prefix.`, without the prefix."""
        cut = len(prefix) + 1
        return {name[cut:]: tensor for name, tensor in self.tensors.items() if name.startswith(prefix + ".")}

    def fill(self, module: Network, prefix: str = "") -> Network:
        """Load the tensors, or the `part` of this prefix, into `module`. Raises CheckpointError unless all fit."""
        tensors = self.part(prefix) if prefix else self.tensors
        wrong = misfits(module.state_dict(), tensors)
        if wrong:
            raise CheckpointError(
                f"the '{self.kind}' checkpoint does not hold the tensors of its {type(module).__name__}: {len(wrong)} "
                f"are missing, unknown or of another shape, such as '{wrong[0]}'; train it again with this version"
            )
        module.load_state_dict(tensors)
        return module


def misfits(wanted: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> list[str]:
    """Names of the tensors that are missing from `given`, have another shape there, or are not wanted."""
    missing = [name for name in wanted if name not in given or given[name].shape != wanted[name].shape]
    return missing + sorted(set(given) - set(wanted))


def save(path: Path, kind: str, config: object, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Write a checkpoint; the file appears whole or not at all. `config` is a dataclass, or what `load` made of one."""
    plain_config = config if isinstance(config, dict) else asdict(config)  # type: ignore[call-overload]
    header = {"format": CHECKPOINT_FORMAT, "kind": kind, "config": plain_config, "facts": dict(facts)}
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    # The extension stays last, so that a killed run leaves nothing that looks like a checkpoint.
    temporary = path.with_name(f".{path.name}.part")
    try:
        # Not save_file: a killed one leaves a file of another name, a whole one that only its owner may read.
        temporary.write_bytes(safetensors.torch.save(plain, {"pocketprior": json.dumps(header, sort_keys=True)}))
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def load(path: Path, *kinds: str) -> Checkpoint:
    """Read a checkpoint of one of the given kinds; of any kind when none is given.

    Raises CheckpointError when the file is missing, damaged, of another kind or format, or holds NaN.
    """
    try:
        with safetensors.safe_open(path, "pt") as file:
            text = (file.metadata() or {}).get("pocketprior")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    except FileNotFoundError:
        raise CheckpointError(f"no checkpoint at {path}; train one with `pocketprior train`") from None
    except (OSError, safetensors.SafetensorError) as error:
        raise CheckpointError(f"{path} is not a whole safetensors file ({error}); copy or train it again") from None
    header = _header(text)
    if header.get("format", CHECKPOINT_FORMAT) != CHECKPOINT_FORMAT:
        raise CheckpointError(
            f"{path} has checkpoint format {header['format']}, this version reads format {CHECKPOINT_FORMAT}"
        )
    if not {"format", "kind", "config", "facts"} <= set(header):
        raise CheckpointError(f"{path} is a safetensors file, but not one that pocketprior wrote")
    if kinds and header["kind"] not in kinds:
        expected = " or ".join(f"'{kind}'" for kind in kinds)
        raise CheckpointError(f"{path} holds a '{header['kind']}' checkpoint, expected {expected}")
    check_finite(path, tensors)
    return Checkpoint(header["kind"], header["config"], tensors, header["facts"])


def check_finite(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Raise CheckpointError when a tensor read from `path` holds NaN or infinity."""
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise CheckpointError(f"{path}: weight '{name}' holds NaN or infinity; use an earlier checkpoint")


def _header(text: str | None) -> dict[str, Any]:
    """The JSON object in the file's metadata; empty for anything else."""
    try:
        header = json.loads(text or "")
    except ValueError:
        return {}
    return header if isinstance(header, dict) else {}


def from_dict(cls: type[Config], values: Mapping[str, Any]) -> Config:
    """Build the (nested, frozen) dataclass `cls` from its `asdict` form; fields that came later may be missing.

    Raises CheckpointError for an unknown field or a value of another type.
    """
    advice = "train it again with this version"
    return decode(cls, dict(values), cls.__name__, error=CheckpointError, advice=advice)
