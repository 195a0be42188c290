"""LoRA as peft has it, with ranks that spend a budget on all linear layers of the blocks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from peft import LoraConfig
from torch import nn

from llm_experiments.recipes.base import Method, Request, Tuned, with_peft
from llm_experiments.tuners.architectures import kinds, layers_named


def spread_rank(costs: Mapping[str, int], budget: int, fixed: int = 0) -> dict[str, int]:
    """Ranks by kind of layer that spend the budget as evenly as whole ranks allow.

    Every kind gets the same rank first; what is left buys one rank more for one kind after the other, in the
    order of `costs`. A kind that gets none is left out.

    Args:
        costs: kind -> numbers that one rank costs in all its layers together.
        budget: how many numbers may train.
        fixed: numbers of the budget that go elsewhere.

    Raises:
        ValueError: the budget does not buy one rank of the cheapest kind.
    """
    common = max(budget - fixed, 0) // sum(costs.values())
    left = budget - fixed - common * sum(costs.values())
    ranks = dict.fromkeys(costs, common)
    for kind, cost in costs.items():
        if cost <= left:
            ranks[kind] += 1
            left -= cost
    ranks = {kind: rank for kind, rank in ranks.items() if rank}
    if not ranks:
        least = min(costs.values()) + fixed
        msg = f"the budget must be at least {least}, one rank of the cheapest layers; got {budget}"
        raise ValueError(msg)
    return ranks


def lora_settings(
    model: nn.Module,
    request: Request,
    cost: str = "r (m + n)",
    fixed: Callable[[nn.Linear], int] = lambda layer: 0,
    **extra: Any,
) -> tuple[dict[str, Any], int]:
    """Settings of a `LoraConfig` for the budget, and the parameters that its formula gives.

    The scale is `alpha / r = 2` in every layer unless the option `scale` is given.

    Args:
        model: the pretrained model.
        request: its options are settings of `LoraConfig`; `r` sets the rank of all layers.
        cost: per linear layer (n x m) a rank costs `m + n` numbers, or `n` where only `B` trains (`r n`).
        fixed: numbers that a layer costs whatever its rank.
        extra: further settings of `LoraConfig`.
    """
    layers = kinds(model)

    def per_rank(layer: nn.Linear) -> int:
        return layer.out_features + (layer.in_features if cost == "r (m + n)" else 0)

    costs = {kind: sum(per_rank(m) for m in members) for kind, members in layers.items()}
    constant = {kind: sum(fixed(m) for m in members) for kind, members in layers.items()}
    options = dict(request.options)
    scale = options.pop("scale", 2.0)
    if "r" in options:
        ranks = dict.fromkeys(costs, options.pop("r"))
    else:
        ranks = spread_rank(costs, request.budget, sum(constant.values()))
    low = min(ranks.values())
    higher = {layers_named(kind): rank for kind, rank in ranks.items() if rank != low}
    settings = {
        "r": low,
        "lora_alpha": scale * low,
        "rank_pattern": higher,
        "alpha_pattern": {kind: scale * rank for kind, rank in higher.items()},
        "target_modules": layers_named(*ranks),
        **extra,
        **options,
    }
    return settings, sum(costs[kind] * rank + constant[kind] for kind, rank in ranks.items())


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
