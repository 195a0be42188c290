"""S2FT in its nine selections: random, and four scores with the largest or the smallest kept."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

from torch import nn

from llm_experiments.recipes.base import Method, Request, Tuned, with_peft
from llm_experiments.tuners.architectures import Structure, linear, structures
from llm_experiments.tuners.s2ft import S2FTConfig, calibrate


def default_size(model: nn.Module, budget: int) -> dict[str, int]:
    """Heads and channels for a budget: equal parts to output and down projections, uniform over the blocks.

    Heads are whole, so their part is what whole heads cost; channels take the rest. With grouped queries all
    of the budget goes to the down projections.

    Source: S2FT (arXiv:2412.06289), Section 5 ("Where to fine-tune").

    Raises:
        ValueError: the budget does not buy one channel in every block, or the model is not in the table.
    """
    found = structures(model)
    if not found:
        msg = "the model must be in the table of architectures for a default budget"
        raise ValueError(msg)
    return size_of_structures(model, found, budget)


def size_of_structures(model: nn.Module, found: list[Structure], budget: int) -> dict[str, int]:
    """The same for some of the model's structures."""
    attention = [s for s in found if s.kind == "heads"]
    feed_forward = [s for s in found if s.kind == "channels"]
    per_head = sum(s.width * linear(model, s.outgoing).out_features for s in attention)
    per_channel = sum(linear(model, s.outgoing).out_features for s in feed_forward)
    heads = 0
    if all(s.group == 1 for s in attention):
        heads = min(budget // 2 // per_head, min(s.count for s in attention))
    channels = min((budget - heads * per_head) // per_channel, min(s.count for s in feed_forward))
    if channels < 1:
        msg = f"the budget must be at least {per_channel}, one channel of every down projection; got {budget}"
        raise ValueError(msg)
    return {"heads": heads, "channels": channels}


def trained_numbers(model: nn.Module, config: S2FTConfig) -> int:
    """Numbers in all slices: `s` columns of an n x m weight are `s n`, `s` rows are `s m`."""
    from llm_experiments.tuners.s2ft.selection import targeted_structures

    total = 0
    for structure, names in targeted_structures(model, config).items():
        units = len(config.selected[structure.name]) if config.selected else getattr(config, structure.kind)
        for name in names:
            weight = linear(model, name).weight
            if name == structure.outgoing:
                total += units * structure.width * weight.shape[0]
            else:
                shared = structure.group if structure.shares_key_values(name) else 1
                total += units // shared * structure.width * weight.shape[1]
    return total


def s2ft(model: nn.Module, request: Request, selection: str, direction: str | None) -> Tuned:
    """The chosen heads and channels train as dense slices of the weights."""
    options: dict[str, Any] = dict(request.options)
    known = {f.name for f in dataclasses.fields(S2FTConfig)}
    unknown = sorted(set(options) - known)
    if unknown:
        msg = f"options must be settings of S2FTConfig; got {unknown}"
        raise ValueError(msg)
    if not options.keys() & {"heads", "channels", "inputs", "selected"}:
        options |= default_size(model, request.budget)
    config = S2FTConfig(**{"selection": selection, "direction": direction, "seed": request.seed, **options})
    if config.selected is None:
        calibrate(model, config, request.calibration, request.loss)
    formula = trained_numbers(model, config)
    settings = {
        name: getattr(config, name) for name in ("heads", "channels", "layout", "selection", "direction")
    }
    return with_peft(model, config, formula, request.seed, settings)


_SCORES = {"w": "weight", "a": "activation", "s": "product", "g": "gradient"}
_SOURCE = "S2FT (arXiv:2412.06289), Sections 3.2-3.3, Appendix D"
_CLAIMS = ("s2ft/partial_backprop", "s2ft/masked_equivalence", "s2ft/lemma_f12")

METHODS = (
    Method(
        name="s2ft_r",
        recipe=partial(s2ft, selection="random", direction=None),
        trains="columns of output and down projections: random heads and feed-forward channels",
        source=_SOURCE,
        claims=_CLAIMS,
        optimizer="AdamW on the slice; decay towards the pretrained slice",
    ),
    *(
        Method(
            name=f"s2ft_{letter}:{direction}",
            recipe=partial(s2ft, selection=score, direction=direction),
            trains=f"the same, heads and channels of {direction} {score} norm",
            source=_SOURCE,
            claims=_CLAIMS,
            optimizer="AdamW on the slice; decay towards the pretrained slice",
            calibrated=score != "weight",
        )
        for letter, score in _SCORES.items()
        for direction in ("largest", "smallest")
    ),
)
