"""cLA and its chains: a block of columns of every linear layer trains, and in a chain moves on."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from llm_experiments.recipes.base import Method, PeftTuned, Request, Tuned, with_peft
from llm_experiments.schedules import Chain
from llm_experiments.tuners import ClaConfig
from llm_experiments.tuners.architectures import kinds
from llm_experiments.tuners.cla.layer import ClaLayer
from llm_experiments.tuners.cla.model import random_offset

_PLACE = "chain."  # prefix of the tensors that say where a chain stands


class ClaTuned(PeftTuned):
    """cLA with the place of its chain in the checkpoint."""

    def state(self) -> dict[str, Tensor]:
        """The adapter's tensors, and where its chain stands."""
        place = self.model.base_model.chain_state()
        return {**self.adapter_state(), **{_PLACE + name: tensor for name, tensor in place.items()}}

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Moves the chain to its saved place, then puts the numbers back."""
        place = {n.removeprefix(_PLACE): t for n, t in tensors.items() if n.startswith(_PLACE)}
        if place:
            self.model.base_model.load_chain_state(place)
        self.load_adapter_state({n: t for n, t in tensors.items() if not n.startswith(_PLACE)})

    def layers(self) -> list[ClaLayer]:
        """The wrapped layers."""
        return self.model.base_model.wrapped_layers


def cla(model: nn.Module, request: Request, offset: int | str, chained: bool = False) -> Tuned:
    """`W0 + (alpha / r) B [0, I_r, 0]`; with `chained` the block moves on every `every` steps.

    Options besides those of `ClaConfig`: `every` (steps a link; default 20) and `optimizer_state` (`reset` or
    `keep`) for chains.
    """
    options: dict[str, Any] = dict(request.options)
    every, policy = options.pop("every", 20), options.pop("optimizer_state", "reset")
    if not chained and request.options.keys() & {"every", "optimizer_state"}:
        msg = "every and optimizer_state are settings of chains, and this method is none"
        raise ValueError(msg)
    unknown = sorted(set(options) - {f.name for f in dataclasses.fields(ClaConfig)})
    if unknown:
        msg = f"options must be settings of ClaConfig; got {unknown}"
        raise ValueError(msg)
    layers = [layer for members in kinds(model).values() for layer in members]
    per_rank = sum(layer.out_features for layer in layers)
    rank = options.pop("r", request.budget // per_rank)
    if rank < 1:
        msg = (
            f"the budget must be at least {per_rank}, one column of every linear layer; got {request.budget}"
        )
        raise ValueError(msg)
    settings = {"r": rank, "alpha": 2.0 * rank, "offset": offset, "seed": request.seed, **options}
    config = ClaConfig(**settings)
    tuned = with_peft(model, config, rank * per_rank, request.seed, settings, tuned=ClaTuned)
    if chained:
        tuned.schedule = Chain(
            every,
            partial(_next_link, tuned, offset == "random", request.seed),
            lambda: [p for layer in tuned.layers() for p in layer.values.values()],
            policy,
        )
        tuned.settings |= {"every": every, "optimizer_state": policy}
    return tuned


def _next_link(tuned: ClaTuned, fresh: bool, seed: int, link: int) -> None:
    """The block moves `r` columns on, or to fresh random offsets drawn from the seed and the link's number."""
    offsets = None
    if fresh:
        generator = torch.Generator().manual_seed(seed * 1_000_003 + link)
        r = tuned.model.peft_config["default"].r
        offsets = {
            layer.layer_name: random_offset(layer.in_features, r, generator) for layer in tuned.layers()
        }
    tuned.model.base_model.shift_("default", offsets)


_PAPER = "LoRA past, present and future"

METHODS = (
    Method(
        name="cla",
        recipe=partial(cla, offset=0),
        trains="the first r columns of every linear layer, B of (alpha/r) B [I, 0]",
        source=f"{_PAPER}, eq. 5 and Algorithm 1",
        claims=("lora_variants/alg_1",),
        optimizer="AdamW; in place with the learning rate scaled by alpha/r",
    ),
    Method(
        name="random_cla",
        recipe=partial(cla, offset="random"),
        trains="r columns of every linear layer at a random offset drawn once",
        source=f"{_PAPER}, Algorithm 2 with an offset that reaches every column",
        claims=("lora_variants/alg_2_offset",),
        optimizer="AdamW; in place with the learning rate scaled by alpha/r",
    ),
    Method(
        name="c3la",
        recipe=partial(cla, offset=0, chained=True),
        trains="r columns of every linear layer, r further on in every link, wrapping around",
        source=f"{_PAPER}, eq. 6 and Algorithm 3 with wrap-around",
        claims=("lora_variants/alg_3_schedule", "lora_variants/prop_1"),
        optimizer="AdamW; in place with the learning rate scaled by alpha/r",
        schedule="chain: commit, shift by r, moments reset",
    ),
    Method(
        name="random_c3la",
        recipe=partial(cla, offset="random", chained=True),
        trains="r columns of every linear layer, at a fresh random offset in every link",
        source=f"{_PAPER}, Algorithm 4 with offsets that reach every column",
        claims=("lora_variants/alg_4_update",),
        optimizer="AdamW; in place with the learning rate scaled by alpha/r",
        schedule="chain: commit, fresh offset, moments reset",
    ),
)
