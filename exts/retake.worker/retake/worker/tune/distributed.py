# SPDX-License-Identifier: Apache-2.0
"""One training run in several processes: adapters by gradient averaging, full weights sharded (FSDP2). One code path.

Started by `torchrun`/`accelerate launch` (environment variables) or by Ray Train (`ray_train`); a single process needs none.
"""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from retake.core.errors import InputError


@dataclass(frozen=True)
class World:
    """Who this process is among the processes of a run."""

    rank: int = 0
    size: int = 1

    @property
    def is_main(self) -> bool:
        """The one process that writes."""
        return self.rank == 0

    def mean(self, value: float) -> float:
        """A number averaged over all processes."""
        if self.size == 1:
            return value
        tensor = torch.tensor([value], dtype=torch.float64, device=_reduce_device())
        dist.all_reduce(tensor)
        return float(tensor[0]) / self.size

    def wait(self) -> None:
        """Until every process is here."""
        if self.size > 1:
            dist.barrier()


def join_world(device: torch.device) -> World:
    """Join the process group that the launcher describes in the environment; a world of one without a launcher."""
    if dist.is_available() and dist.is_initialized():
        return World(dist.get_rank(), dist.get_world_size())
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        return World()
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return World(dist.get_rank(), dist.get_world_size())


def leave_world() -> None:
    """Undo `join_world`."""
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


def shard(transformer: Any, world: World) -> None:
    """FSDP2: every block's weights, gradients and optimiser state are split over the processes. Raises InputError."""
    from torch.distributed.fsdp import fully_shard

    if world.size < 2:
        raise InputError("sharding needs at least two processes; start with torchrun or Ray")
    for block in transformer.transformer_blocks:
        fully_shard(block)
    fully_shard(transformer)


def replicate(parameters: dict[str, Any], world: World) -> None:
    """The same starting weights everywhere: rank 0's."""
    if world.size > 1:
        for parameter in parameters.values():
            dist.broadcast(parameter.data, 0)


def average_gradients(parameters: dict[str, Any], world: World) -> None:
    """Replace gradients by their mean over all processes (for replicated weights; FSDP2 does its own)."""
    if world.size == 1:
        return
    for parameter in parameters.values():
        if parameter.grad is not None:  # without one here there is none anywhere: all see the same kind of batch
            dist.all_reduce(parameter.grad)
            parameter.grad /= world.size


def whole(value: Tensor) -> Tensor:
    """A sharded tensor gathered; any other as it is. Every process must call this."""
    return value.full_tensor() if hasattr(value, "full_tensor") else value  # pyright: ignore[reportAttributeAccessIssue]


def like(value: Tensor, pattern: Any) -> Tensor:
    """A whole tensor split as `pattern` is; as it is where that one is whole."""
    if not hasattr(pattern, "full_tensor"):
        return value.to(pattern.device)
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(value.to(pattern.device), pattern.device_mesh, pattern.placements)


def no_sync(is_last: bool, transformer: Any) -> AbstractContextManager[Any]:
    """While gradients accumulate, FSDP2 need not exchange them before the last backward pass."""
    if hasattr(transformer, "set_requires_gradient_sync"):
        transformer.set_requires_gradient_sync(is_last)
    return nullcontext()


def _reduce_device() -> str:
    return "cuda" if dist.get_backend() == "nccl" else "cpu"
