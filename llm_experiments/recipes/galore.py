"""GaLore: all weights train, the optimizer's state is low-rank."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from llm_experiments.optimizers import GaLoreAdamW
from llm_experiments.recipes.base import Method, Request, Tuned
from llm_experiments.recipes.full import full
from llm_experiments.tuners.architectures import kinds


class GaLoreTuned(Tuned):
    """Full fine-tuning under `GaLoreAdamW`."""

    def optimizer(self, lr: float, weight_decay: float = 0.0, **settings: Any) -> torch.optim.Optimizer:
        """GaLore on the linear layers of the blocks, AdamW on everything else."""
        projected = {id(m.weight) for members in kinds(self.model).values() for m in members}
        parameters = [p for p in self.model.parameters() if p.requires_grad]
        groups = [
            {"params": [p for p in parameters if id(p) in projected], "rank": self.settings["rank"]},
            {"params": [p for p in parameters if id(p) not in projected], "rank": 0},
        ]
        named = {"gap": self.settings["gap"], "scale": self.settings["scale"], **settings}
        return GaLoreAdamW([g for g in groups if g["params"]], lr, weight_decay=weight_decay, **named)


def galore(model: nn.Module, request: Request) -> Tuned:
    """All weights train. The budget sets the rank that it would buy LoRA on all layers, at least 1.

    Options: `rank`, `gap` (steps between projections, 200), `scale` (0.25), `embeddings` (True).
    """
    layers = [layer for members in kinds(model).values() for layer in members]
    per_rank = sum(m.in_features + m.out_features for m in layers)
    options = dict(request.options)
    smallest = min(min(m.in_features, m.out_features) for m in layers)
    settings = {
        "rank": options.pop("rank", min(max(request.budget // per_rank, 1), smallest)),
        "gap": options.pop("gap", 200),
        "scale": options.pop("scale", 0.25),
    }
    if not 1 <= settings["rank"] <= smallest:
        msg = f"rank must satisfy 1 <= rank <= {smallest}, the smallest side of a weight; got {settings['rank']}"
        raise ValueError(msg)
    plain = full(model, Request(request.budget, request.seed, options=options))
    return GaLoreTuned(model, plain.formula, {**plain.settings, **settings})


METHODS = (
    Method(
        name="galore",
        recipe=galore,
        trains="all weights",
        source="Zhao et al., GaLore (arXiv:2403.03507); a baseline of S2FT",
        optimizer="AdamW on rank-r projections of the gradient",
        uses_budget=False,
    ),
)
