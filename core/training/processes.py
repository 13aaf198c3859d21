"""The processes and devices of a run, as `accelerate launch` or `torchrun` started them."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from importlib import import_module
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from ..errors import MissingExtraError, UsageError

__all__ = ["Processes", "close", "processes"]

PATIENCE = timedelta(hours=2)  # that processes wait for the main one, which validates alone


class Processes(Protocol):
    """What the loop asks of Accelerate."""

    @property
    def num_processes(self) -> int: ...
    @property
    def process_index(self) -> int: ...
    @property
    def is_main_process(self) -> bool: ...
    @property
    def device(self) -> torch.device: ...
    def prepare(self, *args: Any) -> Any: ...
    def no_sync(self, model: nn.Module) -> AbstractContextManager[Any]: ...
    def reduce(self, tensor: Any, reduction: str) -> Any: ...
    def wait_for_everyone(self) -> None: ...


def processes() -> Processes:
    """Accelerate's view of this process: one, DDP or FSDP2, on the GPU if there is one.

    Precision and accumulation are the recipe's, whatever the launcher says. One process alone does without Accelerate
    where that is not installed. Raises MissingExtraError where several were launched without it, UsageError for FSDP
    version 1 and for engines that are not supported.
    """
    try:
        import_module("accelerate")
    except ModuleNotFoundError as error:
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise MissingExtraError("accelerate", "train", "training on several processes") from error
        return _Alone()
    return _accelerated()


def close() -> None:
    """End what `processes` began."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def _accelerated() -> Processes:
    from accelerate import Accelerator
    from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin, InitProcessGroupKwargs

    supported = (DistributedType.NO, DistributedType.MULTI_CPU, DistributedType.MULTI_GPU, DistributedType.FSDP)
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
    if kind not in supported:
        raise UsageError(f"launched with {kind.value}; supported: {', '.join(s.value for s in supported)}")
    if kind == DistributedType.FSDP and not found.is_fsdp2:
        raise UsageError("launched with FSDP version 1; ask for version 2 (accelerate launch --fsdp_version 2)")
    return found


def _asked_for(name: str) -> bool:
    return os.environ.get(name, "false").lower() in ("1", "true", "yes")


class _Prepared(NamedTuple):
    optimizer: torch.optim.Optimizer


class _Alone:
    """One process on one device."""

    num_processes = 1
    process_index = 0
    is_main_process = True

    def __init__(self) -> None:
        self.device = torch.accelerator.current_accelerator() or torch.device("cpu")

    def prepare(self, *args: Any) -> tuple[Any, ...]:
        module, *optimizers = args
        return module.to(self.device), *map(_Prepared, optimizers)

    def no_sync(self, model: nn.Module) -> AbstractContextManager[None]:
        del model
        return nullcontext()

    def reduce(self, tensor: Tensor, reduction: str) -> Tensor:
        del reduction
        return tensor

    def wait_for_everyone(self) -> None:
        pass
