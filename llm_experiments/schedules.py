"""What happens between optimizer steps: links of a chain, blocks that take turns, restarts.

A schedule is asked after every step. Whoever changes what a parameter means has to say what becomes of the
optimizer's moments that belonged to its old meaning; the policy is an argument, never an accident:

* `reset`: the moments and step counts of the parameters concerned are dropped (the default of every paper
  that restarts a low-rank factor);
* `keep`: they stay.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

from llm_experiments.optimizers import forget

POLICIES = ("reset", "keep")


class Schedule:
    """Nothing happens between steps."""

    def on_step_end(self, step: int, optimizer: torch.optim.Optimizer) -> bool:
        """Called after step `step` (from 0 on); returns whether anything changed."""
        return False

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint needs to go on."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Puts back what `state_dict` gave."""


class Chain(Schedule):
    """Every `every` steps the link ends: `next_link` commits what was learned and starts afresh.

    The first link starts with the training, so `every * k` steps make `k` links.

    Args:
        every: optimizer steps a link.
        next_link: called with the number of the link that starts (1, 2, ...).
        parameters: the parameters whose meaning changes.
        optimizer_state: `reset` or `keep`.
    """

    def __init__(
        self,
        every: int,
        next_link: Callable[[int], None],
        parameters: Callable[[], Iterable[nn.Parameter]],
        optimizer_state: str = "reset",
    ) -> None:
        if every < 1:
            msg = f"a link must last at least 1 step; got every={every}"
            raise ValueError(msg)
        if optimizer_state not in POLICIES:
            msg = f"optimizer_state must be one of {', '.join(POLICIES)}; got {optimizer_state!r}"
            raise ValueError(msg)
        self.every, self.next_link, self.parameters = every, next_link, parameters
        self.optimizer_state = optimizer_state
        self.link = 0

    def on_step_end(self, step: int, optimizer: torch.optim.Optimizer) -> bool:
        """Starts the next link after every `every` steps."""
        if (step + 1) % self.every:
            return False
        self.link += 1
        self.next_link(self.link)
        if self.optimizer_state == "reset":
            forget(optimizer, self.parameters())
        return True

    def state_dict(self) -> dict[str, Any]:
        """The number of the current link."""
        return {"link": self.link}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Puts back the number of the current link."""
        self.link = state["link"]
