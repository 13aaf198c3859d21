"""The processes and devices of a run, as `accelerate launch` or `torchrun` started them."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import TYPE_CHECKING

import torch

from ..errors import MissingExtraError, UsageError

if TYPE_CHECKING:
    from accelerate import Accelerator

__all__ = ["close", "processes"]

PATIENCE = timedelta(hours=2)  # that processes wait for the main one, which validates alone


def processes() -> Accelerator:
    """Return Accelerate's view of this process: one, DDP or FSDP2, on the GPU if there is one.

    Precision and accumulation are the recipe's, whatever the launcher says.

    Raises:
        MissingExtraError: if Accelerate is not installed.
        UsageError: for FSDP version 1 and for engines that are not supported.
    """
    try:
        from accelerate import Accelerator
        from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin, InitProcessGroupKwargs
    except ModuleNotFoundError as error:
        raise MissingExtraError("accelerate", "train", "training") from error

    supported = (DistributedType.NO, DistributedType.MULTI_CPU, DistributedType.MULTI_GPU, DistributedType.FSDP)
    found = Accelerator(
        cpu=not torch.accelerator.is_available(),  # without it several CPU processes would not find each other
        mixed_precision="no",
        gradient_accumulation_steps=1,
        kwargs_handlers=[InitProcessGroupKwargs(timeout=PATIENCE)],
    )
    if found.distributed_type == DistributedType.MULTI_CPU and _asked_for("ACCELERATE_USE_FSDP"):
        # Accelerate only shards on accelerators and would silently use DDP; torch shards on CPUs as well.
        found.state.fsdp_plugin = FullyShardedDataParallelPlugin()
        found.state.distributed_type = DistributedType.FSDP
    kind = found.distributed_type
    if kind not in supported:
        raise UsageError(f"launched with {kind.value}; supported: {', '.join(s.value for s in supported)}")
    if kind == DistributedType.FSDP and not found.is_fsdp2:
        raise UsageError("launched with FSDP version 1; ask for version 2 (accelerate launch --fsdp_version 2)")
    return found


def close() -> None:
    """End what `processes` began."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def _asked_for(name: str) -> bool:
    return os.environ.get(name, "false").lower() in ("1", "true", "yes")
