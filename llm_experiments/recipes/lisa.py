"""LISA: a few random blocks train at a time, and take turns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from llm_experiments.optimizers import forget, make_optimizer
from llm_experiments.recipes.base import Method, Request, Tuned
from llm_experiments.schedules import POLICIES, Schedule
from llm_experiments.tuners.architectures import blocks


class Turns(Schedule):
    """Every `every` steps other blocks, drawn at random, are unfrozen.

    Args:
        model: the model.
        active: how many blocks train at a time.
        every: steps between two draws.
        seed: of the draws; the draw of a turn depends on the seed and the turn's number alone.
        optimizer_state: `reset` drops the moments of blocks that stop, `keep` leaves them for their next turn.
    """

    def __init__(self, model: nn.Module, active: int, every: int, seed: int, optimizer_state: str) -> None:
        self.blocks = list(blocks(model).values())
        if not 1 <= active <= len(self.blocks):
            msg = f"active must satisfy 1 <= active <= {len(self.blocks)} blocks; got {active}"
            raise ValueError(msg)
        if every < 1:
            msg = f"every must be at least 1 step; got {every}"
            raise ValueError(msg)
        if optimizer_state not in POLICIES:
            msg = f"optimizer_state must be one of {', '.join(POLICIES)}; got {optimizer_state!r}"
            raise ValueError(msg)
        self.active, self.every, self.seed, self.policy = active, every, seed, optimizer_state
        self.turn = 0
        self.draw()

    def draw(self) -> list[nn.Module]:
        """Unfreezes the blocks of the current turn; returns those that are frozen now."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.turn)
        chosen = set(torch.randperm(len(self.blocks), generator=generator)[: self.active].tolist())
        for number, block in enumerate(self.blocks):
            block.requires_grad_(number in chosen)
        return [block for number, block in enumerate(self.blocks) if number not in chosen]

    def on_step_end(self, step: int, optimizer: torch.optim.Optimizer) -> bool:
        """Starts another turn after every `every` steps."""
        if (step + 1) % self.every:
            return False
        self.turn += 1
        for block in self.draw():
            for parameter in block.parameters():
                parameter.grad = None
            if self.policy == "reset":
                forget(optimizer, block.parameters())
        return True

    def state_dict(self) -> dict[str, Any]:
        """The number of the current turn."""
        return {"turn": self.turn}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Puts back the number of the current turn and its blocks."""
        self.turn = state["turn"]
        self.draw()


class LisaTuned(Tuned):
    """A model whose blocks take turns; all of them may have changed."""

    def optimizer(self, lr: float, weight_decay: float = 0.0, **settings: Any) -> torch.optim.Optimizer:
        """AdamW over all blocks; it passes over those without gradients and holds no state for them."""
        flags = {p: p.requires_grad for p in self.model.parameters()}
        for block in blocks(self.model).values():
            block.requires_grad_(True)
        optimizer = make_optimizer(self.model, lr, weight_decay, **settings)
        for parameter, flag in flags.items():
            parameter.requires_grad_(flag)
        return optimizer

    def state(self) -> dict[str, Tensor]:
        """All weights that have had a turn or may get one."""
        frozen = not self.settings["embeddings"]
        inside = {id(p) for block in blocks(self.model).values() for p in block.parameters()}
        return {n: p.detach() for n, p in self.model.named_parameters() if id(p) in inside or not frozen}

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Puts back what `state` gave."""
        super().load_state(tensors)


def lisa(model: nn.Module, request: Request) -> Tuned:
    """`active` (2, or half of a smaller model) blocks train, drawn anew every `every` (20) steps.

    Options besides: `embeddings` (True, as in the paper: embeddings, final norm and head always train) and
    `optimizer_state` (`reset` or `keep`).
    """
    total = len(blocks(model))
    settings = {
        "active": max(1, min(2, total // 2)),
        "every": 20,
        "embeddings": True,
        "optimizer_state": "reset",
    }
    unknown = sorted(set(request.options) - set(settings))
    if unknown:
        msg = f"options must be among {sorted(settings)}; got {unknown}"
        raise ValueError(msg)
    settings |= request.options
    model.requires_grad_(bool(settings["embeddings"]))
    schedule = Turns(model, settings["active"], settings["every"], request.seed, settings["optimizer_state"])
    sizes = [sum(p.numel() for p in block.parameters()) for block in blocks(model).values()]
    outside = sum(p.numel() for p in model.parameters()) - sum(sizes) if settings["embeddings"] else 0
    return LisaTuned(model, settings["active"] * sizes[0] + outside, settings, schedule)


METHODS = (
    Method(
        name="lisa",
        recipe=lisa,
        trains="a few random blocks at a time; embeddings and head always, unless frozen",
        source="Pan et al., LISA (arXiv:2403.17919); a baseline of S2FT",
        schedule="blocks take turns, moments of blocks that stop are reset",
        uses_budget=False,
    ),
)
