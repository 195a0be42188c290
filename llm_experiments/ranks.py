"""Several processes under one launcher (`accelerate launch`, `torchrun`): each takes its share of the seeds.

A seed is trained by one process from beginning to end, so no gradients are exchanged and every record is the one that
a single process writes; only the seeds are spread.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from llm_experiments.errors import UserError

Item = TypeVar("Item")


@dataclass(frozen=True)
class Rank:
    """This process among those of the launcher: 0 of 1 without one.

    Attributes:
        number: of the process among all machines.
        world: how many processes there are.
        local: of the process on its machine, which is its GPU.
    """

    number: int = 0
    world: int = 1
    local: int = 0

    def share(self, items: Sequence[Item]) -> list[Item]:
        """The items of this process; together the processes have each item once."""
        return list(items[self.number :: self.world])


def rank(environment: Mapping[str, str] = os.environ) -> Rank:
    """What the launcher has told this process.

    Raises:
        UserError: the launcher's variables are no numbers that fit together.
    """
    given = {name: environment.get(name) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    if given["WORLD_SIZE"] is None or given["RANK"] is None:
        return Rank()
    try:
        found = Rank(int(given["RANK"]), int(given["WORLD_SIZE"]), int(given["LOCAL_RANK"] or 0))
    except ValueError:
        found = Rank(world=0)
    if not (0 <= found.number < found.world and found.local >= 0):
        message = f"RANK, WORLD_SIZE and LOCAL_RANK must satisfy 0 <= rank < world; got {given}"
        raise UserError(message)
    return found


def take_gpu(device: str, own: Rank) -> None:
    """Make `cuda` mean this process's own GPU; a device with a number, and the processor, stay as they are.

    Raises:
        UserError: this machine has fewer GPUs than processes.
    """
    import torch

    if device != "cuda" or own.world == 1 or not torch.cuda.is_available():
        return
    if own.local >= torch.cuda.device_count():
        message = f"process {own.local} of this machine has no GPU: there are {torch.cuda.device_count()}; start fewer"
        raise UserError(message)
    torch.cuda.set_device(own.local)
