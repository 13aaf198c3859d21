"""The processes and devices of a run, as `accelerate launch` or `torchrun` started them."""

from __future__ import annotations

import os
from datetime import timedelta

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin, InitProcessGroupKwargs

from ..errors import UsageError

__all__ = ["accelerator"]

PATIENCE = timedelta(hours=2)  # that processes wait for the main one, which validates alone
SUPPORTED = (DistributedType.NO, DistributedType.MULTI_CPU, DistributedType.MULTI_GPU, DistributedType.FSDP)


def accelerator() -> Accelerator:
    """Accelerate's view of this process: one, DDP or FSDP2, on the GPU if there is one.

    Precision and accumulation are the recipe's, whatever the launcher says. Raises UsageError for FSDP version 1 and
    for engines that are not supported.
    """
    found = Accelerator(
        cpu=not torch.accelerator.is_available(),  # without it several CPU processes would not find each other
        mixed_precision="no",
        gradient_accumulation_steps=1,
        kwargs_handlers=[InitProcessGroupKwargs(timeout=PATIENCE)],
    )
    if found.distributed_type == DistributedType.MULTI_CPU and _asked_for("ACCELERATE_USE_FSDP"):
        # Accelerate shards on accelerators alone and would go on with DDP in silence; torch shards on CPUs as well.
        found.state.fsdp_plugin = FullyShardedDataParallelPlugin()
        found.state.distributed_type = DistributedType.FSDP
    kind = found.distributed_type
    if kind not in SUPPORTED:
        raise UsageError(f"launched with {kind.value}; supported: {', '.join(s.value for s in SUPPORTED)}")
    if kind == DistributedType.FSDP and not found.is_fsdp2:
        raise UsageError("launched with FSDP version 1; ask for version 2 (accelerate launch --fsdp_version 2)")
    return found


def _asked_for(name: str) -> bool:
    return os.environ.get(name, "false").lower() in ("1", "true", "yes")
