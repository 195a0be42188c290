"""SpFT: random single entries of all linear layers train."""

from __future__ import annotations

from torch import nn

from llm_experiments.recipes.base import Method, Request, Tuned, with_peft
from llm_experiments.tuners import SpftConfig
from llm_experiments.tuners.architectures import kinds


def spft(model: nn.Module, request: Request) -> Tuned:
    """The same share of the entries of every linear layer trains: `floor(p n m)` per layer."""
    sizes = [m.weight.numel() for members in kinds(model).values() for m in members]
    if request.budget < len(sizes):
        msg = (
            f"the budget must be at least {len(sizes)}, one entry of every linear layer; got {request.budget}"
        )
        raise ValueError(msg)
    settings = {"ratio": min(request.budget / sum(sizes), 1.0), "seed": request.seed, **request.options}
    formula = sum(max(1, int(settings["ratio"] * size)) for size in sizes)
    return with_peft(model, SpftConfig(**settings), formula, request.seed, settings)


METHODS = (
    Method(
        name="spft",
        recipe=spft,
        trains="a fixed random set of single entries of all linear layers of the blocks",
        source="S2FT (arXiv:2412.06289), Section 2",
        optimizer="AdamW on the entries alone; decay towards the pretrained ones",
    ),
)
