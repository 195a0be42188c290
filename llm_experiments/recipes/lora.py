"""LoRA as peft has it, with ranks that spend a budget on all linear layers of the blocks."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from peft import LoraConfig
from torch import nn

from llm_experiments.recipes.base import Method, Request, Tuned, with_peft
from llm_experiments.tuners.architectures import kinds, layers_named


def spread_rank(costs: Mapping[str, int], budget: int) -> dict[str, int]:
    """Ranks by kind of layer that spend the budget as evenly as whole ranks allow.

    Every kind gets the same rank first; what is left buys one rank more for one kind after the other, in the
    order of `costs`. A kind that gets none is left out.

    Args:
        costs: kind -> numbers that one rank costs in all its layers together.
        budget: how many numbers may train.

    Raises:
        ValueError: the budget does not buy one rank of the cheapest kind.
    """
    common = budget // sum(costs.values())
    left = budget - common * sum(costs.values())
    ranks = dict.fromkeys(costs, common)
    for kind, cost in costs.items():
        if cost <= left:
            ranks[kind] += 1
            left -= cost
    ranks = {kind: rank for kind, rank in ranks.items() if rank}
    if not ranks:
        msg = f"the budget must be at least {min(costs.values())}, one rank of the cheapest layers; got {budget}"
        raise ValueError(msg)
    return ranks


def lora_settings(
    model: nn.Module, request: Request, cost: str = "r (m + n)", **extra: Any
) -> tuple[dict[str, Any], int]:
    """Settings of a `LoraConfig` for the budget, and the parameters that its formula gives.

    Per linear layer (n x m) a rank costs `m + n` numbers, or `n` where only `B` trains (`cost='r n'`).
    The scale is `alpha / r = 2` in every layer unless `scale` is given.
    """
    layers = kinds(model)
    per_layer = (
        (lambda m: m.in_features + m.out_features) if cost == "r (m + n)" else (lambda m: m.out_features)
    )
    costs = {kind: sum(per_layer(m) for m in members) for kind, members in layers.items()}
    options = dict(request.options)
    scale = options.pop("scale", 2.0)
    if "r" in options:
        ranks = dict.fromkeys(costs, options.pop("r"))
    else:
        ranks = spread_rank(costs, request.budget)
    low = min(ranks.values())
    higher = {kind: rank for kind, rank in ranks.items() if rank != low}
    settings = {
        "r": low,
        "lora_alpha": scale * low,
        "rank_pattern": {rf"(.*\.)?\d+\.{re.escape(kind)}": rank for kind, rank in higher.items()},
        "alpha_pattern": {rf"(.*\.)?\d+\.{re.escape(kind)}": scale * rank for kind, rank in higher.items()},
        "target_modules": layers_named(*ranks),
        **extra,
        **options,
    }
    return settings, sum(costs[kind] * rank for kind, rank in ranks.items())


def lora(model: nn.Module, request: Request) -> Tuned:
    """`W0 + (alpha / r) B A` with both factors trained; `A` by peft's Kaiming-uniform default, `B = 0`."""
    settings, formula = lora_settings(model, request)
    return with_peft(model, LoraConfig(**settings), formula, request.seed, settings)


METHODS = (
    Method(
        name="lora",
        recipe=lora,
        trains="B and A of (alpha/r) B A on all linear layers of the blocks",
        source="Hu et al., LoRA (arXiv:2106.09685), in peft's implementation and initialisation",
        claims=("s2ft/lemma_f9",),
    ),
)
