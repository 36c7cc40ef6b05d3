"""What the ranks of one run, a process per device, share and agree on."""

from __future__ import annotations

import inspect
from datetime import timedelta
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.strategies import DDPStrategy
from torch.nn.parallel import DistributedDataParallel

#: Steps between two agreements, by device: on a GPU each waits for the step to end.
AGREE_EVERY = {"cpu": 1, "cuda": 10}


def ddp(timeout: float = 10) -> DDPStrategy:
    """Each rank computes the gradients of its own photographs, and all step with their mean.

    Args:
        timeout: minutes after which a rank gives up to wait for another.
    """
    if not timeout > 0:
        raise ValueError(f"the ranks' timeout is {timeout} minutes; expected a number above 0")
    # Buffers hold the frozen encoder and are the same everywhere: sending them with every step would be waste.
    known = inspect.signature(DistributedDataParallel).parameters
    per_step = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"  # before torch 2.15
    options: dict[str, Any] = {per_step: False, "gradient_as_bucket_view": True}
    return DDPStrategy(timeout=timedelta(minutes=timeout), **options)


def agreeing(trainer: pl.Trainer) -> bool:
    """Whether the ranks agree on things at this step; the same on all of them."""
    return trainer.world_size == 1 or trainer.global_step % AGREE_EVERY.get(trainer.strategy.root_device.type, 1) == 0


def largest(trainer: pl.Trainer, value: int) -> int:
    """The largest of all ranks' values; every rank must ask."""
    return _reduced(trainer, [value], "max")[0]


def total(trainer: pl.Trainer, values: list[int]) -> list[int]:
    """The sum over all ranks of each value; every rank must ask."""
    return _reduced(trainer, values, "sum")


def _reduced(trainer: pl.Trainer, values: list[int], how: str) -> list[int]:
    if trainer.world_size == 1:
        return values
    mine = torch.tensor(values, dtype=torch.int64, device=trainer.strategy.root_device)
    found: Any = trainer.strategy.reduce(mine, reduce_op=how)
    return [int(value) for value in found.tolist()]


def gathered(trainer: pl.Trainer, mine: Any) -> list[Any]:
    """What each rank has, in the order of the ranks; every rank must ask."""
    if trainer.world_size == 1:
        return [mine]
    found: list[Any] = [None] * trainer.world_size
    torch.distributed.all_gather_object(found, mine)
    return found
