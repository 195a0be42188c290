"""The arms of the comparison: each puts one method on a fresh copy of the same pretrained model.

Every arm but `floor` goes through the registry of methods, so that what is measured is what `train` trains.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from llm_experiments import methods
from llm_experiments.methods import Budget
from llm_experiments.tuners.architectures import structures

LR = 1e-5  # small: the weights hardly move, the arithmetic is that of any other rate


@dataclass
class Built:
    """A model under a method, ready for steps.

    Attributes:
        core: the causal language model itself, with the method's layers in it.
        optimizer: None for the floor, which trains nothing.
        trainable: how many numbers train.
    """

    core: nn.Module
    optimizer: torch.optim.Optimizer | None
    trainable: int


@dataclass(frozen=True)
class Arm:
    """One row of the comparison.

    Attributes:
        name: as on the command line.
        label: what trains, in words.
        build: pretrained model, seed -> `Built`.
    """

    name: str
    label: str
    build: Callable[[nn.Module, int], Built]


def _tuned(method: str, model: nn.Module, seed: int, keep_type: bool = False, **options: Any) -> Built:
    """A method of the registry; its numbers in the weights' type unless `keep_type`."""
    dtype = next(model.parameters()).dtype
    with warnings.catch_warnings():
        # peft reads a property that transformers has renamed; there is nothing that a user could do.
        warnings.filterwarnings("ignore", ".*is_gradient_checkpointing.*", FutureWarning)
        tuned = methods.get(method).apply(model, Budget.ratio(0.01), seed, **options)
    core = tuned.model.get_base_model() if hasattr(tuned.model, "get_base_model") else tuned.model
    if not keep_type:
        for parameter in core.parameters():
            if parameter.requires_grad and parameter.dtype != dtype:
                parameter.data = parameter.data.to(dtype)
    return Built(core, tuned.optimizer(lr=LR), tuned.counted())


def _floor(model: nn.Module, seed: int) -> Built:
    """Forward pass and gradients of all inputs down to the embedding; no weight gradient, no optimizer."""
    return Built(model.requires_grad_(False), None, 0)


def s2ft_mix(
    model: nn.Module, seed: int, heads: float = 0.0625, channels: float = 0.02, matched_rank: int = 3
) -> dict[str, Any]:
    """Options of S2FT for a share of all heads and of all channels, spread over the blocks.

    The heads are drawn from all heads of the network, so some blocks train none; channels are spread evenly.
    Where queries share keys, heads stay as they are and the channels of the down projections take what LoRA of
    rank `matched_rank` on all linear layers would train.

    Source: the shares are those of the efficiency comparison of S2FT (arXiv:2412.06289), Figure 5.
    """
    found = structures(model)
    attention = [s for s in found if s.kind == "heads"]
    feed_forward = [s for s in found if s.kind == "channels"]
    generator = torch.Generator().manual_seed(seed)
    chosen: dict[str, list[int]] = {}
    if all(s.group == 1 for s in attention):
        places = [(s.name, head) for s in attention for head in range(s.count)]
        wanted = max(1, round(heads * len(places)))
        for index in torch.randperm(len(places), generator=generator)[:wanted].tolist():
            name, head = places[index]
            chosen.setdefault(name, []).append(head)
        total = max(len(feed_forward), round(channels * sum(s.count for s in feed_forward)))
    else:
        total = lora_parameters(model, matched_rank) // model.config.hidden_size
    for i, s in enumerate(feed_forward):
        share = total // len(feed_forward) + (i < total % len(feed_forward))
        chosen[s.name] = torch.randperm(s.count, generator=generator)[:share].tolist()
    outgoing = [s.outgoing for s in found if s.name in chosen]
    return {"selected": chosen, "target_modules": outgoing}


def lora_parameters(model: nn.Module, rank: int) -> int:
    """What LoRA of that rank trains on all linear layers of the blocks."""
    from llm_experiments.tuners.architectures import kinds

    return sum(
        rank * (layer.in_features + layer.out_features)
        for layers in kinds(model).values()
        for layer in layers
    )


def _lora(rank: int) -> Callable[[nn.Module, int], Built]:
    return lambda model, seed: _tuned("lora", model, seed, r=rank, scale=1.0)


def _cla(form: str) -> Callable[[nn.Module, int], Built]:
    return lambda model, seed: _tuned("cla", model, seed, r=16, alpha=16.0, form=form)


ARMS = {
    arm.name: arm
    for arm in (
        Arm("full", "full fine-tuning, AdamW", lambda m, seed: _tuned("full", m, seed)),
        Arm("floor", "nothing trains: forward pass and input gradients down to the embedding", _floor),
        Arm("lora", "peft LoRA, r = 3, all linear layers", _lora(3)),
        Arm(
            "lora_f32",
            "the same with peft's default of factors in float32",
            lambda m, seed: _tuned("lora", m, seed, keep_type=True, r=3, scale=1.0),
        ),
        Arm(
            "dora",
            "peft DoRA, r = 3, all linear layers",
            lambda m, seed: _tuned("dora", m, seed, r=3, scale=1.0),
        ),
        Arm(
            "dora_lean",
            "the same numbers as dora, LoRA's activations kept, one product more in the backward pass",
            lambda m, seed: _tuned("dora", m, seed, r=3, scale=1.0, lean=True),
        ),
        Arm(
            "s2ft",
            "S2FT in place: 1/16 of all heads, 1/50 of all channels",
            lambda m, seed: _tuned("s2ft_r", m, seed, **s2ft_mix(m, seed)),
        ),
        Arm("lora16", "peft LoRA, r = 16, all linear layers", _lora(16)),
        Arm("cla_factor", "cLA as B A, r = 16, all linear layers", _cla("factor")),
        Arm("cla", "cLA in place, r = 16, all linear layers", _cla("in_place")),
    )
}

# numerator, denominator: what is compared
PAIRS = (
    ("s2ft", "lora"),
    ("s2ft", "full"),
    ("s2ft", "floor"),
    ("lora", "full"),
    ("dora", "lora"),
    ("dora_lean", "lora"),
    ("dora_lean", "dora"),
    ("cla", "lora16"),
    ("cla", "cla_factor"),
    ("cla_factor", "lora16"),
    ("lora_f32", "lora"),
    ("full", "floor"),
)
