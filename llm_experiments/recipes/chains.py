"""Chains of LoRA: train, merge into the weights, start again with fresh factors.

CoLA restarts both factors, RAC-LoRA draws a new frozen `A` and trains `B` from zero. The finished links are
kept on the CPU, so that a chain of `k` links of rank `r` is saved as one ordinary LoRA of rank at most `k r`
(`[B_1 .. B_k] [A_1; ..; A_k]`), which peft loads anywhere; it gives the weights of the chain up to the
rounding of `k` merges. Disabling the adapter, or making another one active, takes them out of the weights again, up
to that rounding (`tuners/chained.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig
from safetensors.torch import save_file
from torch import Tensor, nn

from llm_experiments.recipes.base import Method, PeftTuned, Request, Tuned, with_peft
from llm_experiments.recipes.baselines import freeze_A, lora_layers
from llm_experiments.recipes.lora import lora_settings
from llm_experiments.schedules import Chain
from llm_experiments.tuners.chained import chain_config

_BASE, _A, _B = "base.", "links.A.", "links.B."


class ChainTuned(PeftTuned):
    """LoRA in a chain; its layers are `ChainedLinear`."""

    def __init__(self, *arguments: Any, std: float | None, chain_seed: int, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.std, self.seed = std, chain_seed

    @property
    def links(self) -> dict[str, list[tuple[Tensor, Tensor]]]:
        """Layer name -> the factors `(A, B)` of finished links, scale included in `B`."""
        return {name: layer.links for name, layer in lora_layers(self.model).items()}

    @torch.no_grad()
    def next_link(self, link: int) -> None:
        """Merges `(alpha / r) B A` into the frozen weight and starts from `B = 0` and a fresh `A`."""
        for layer in lora_layers(self.model).values():
            A, B = layer.lora_A["default"].weight, layer.lora_B["default"].weight
            delta_W = layer.get_delta_weight("default")
            layer.links.append((A.detach().cpu().clone(), (layer.scaling["default"] * B).cpu()))
            base = layer.get_base_layer().weight
            base += delta_W.to(base.dtype)
            B.zero_()
        if self.std is None:
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + link)
            for layer in lora_layers(self.model).values():
                A = layer.lora_A["default"].weight
                bound = A.shape[1] ** -0.5  # peft's Kaiming-uniform start with a = sqrt(5)
                A.copy_((2 * torch.rand(A.shape, generator=generator) - 1) * bound)
        else:
            freeze_A(self.model, self.std, self.seed * 1_000_003 + link)

    def state(self) -> dict[str, Tensor]:
        """The current factors, the finished links, and the merged weights."""
        tensors = self.adapter_state()
        for name, layer in lora_layers(self.model).items():
            if layer.links:
                tensors[_BASE + name] = layer.chained_weight
                tensors[_A + name] = torch.stack([A for A, _ in layer.links])
                tensors[_B + name] = torch.stack([B for _, B in layer.links])
        return tensors

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Puts back what `state` gave."""
        for name, layer in lora_layers(self.model).items():
            links = zip(tensors.get(_A + name, ()), tensors.get(_B + name, ()), strict=True)
            layer.replace_links(list(links), tensors.get(_BASE + name))
        own = {n: t for n, t in tensors.items() if not n.startswith((_BASE, _A, _B))}
        self.load_adapter_state(own)

    def save(self, path: str | Path) -> None:
        """Writes all links as one LoRA of their total rank, in peft's format."""
        super().save(path)
        if not any(self.links.values()):
            return
        config = self.model.peft_config["default"]
        factors, ranks = {}, {}
        for name, layer in lora_layers(self.model).items():
            A, B = layer.lora_A["default"].weight, layer.lora_B["default"].weight
            last = (A.detach().cpu(), (layer.scaling["default"] * B.detach()).cpu())
            factors[f"{name}.lora_A.weight"] = torch.cat([a for a, _ in (*layer.links, last)])
            factors[f"{name}.lora_B.weight"] = torch.cat([b for _, b in (*layer.links, last)], dim=1)
            ranks[name.removeprefix("base_model.model.")] = len(factors[f"{name}.lora_A.weight"])
        whole = LoraConfig(
            r=min(ranks.values()),
            lora_alpha=min(ranks.values()),
            rank_pattern={rf"^{name}$": rank for name, rank in ranks.items()},
            alpha_pattern={rf"^{name}$": rank for name, rank in ranks.items()},
            target_modules=config.target_modules,
            inference_mode=True,
        )
        whole.save_pretrained(str(path))
        save_file(factors, Path(path) / "adapter_model.safetensors")


def chain(model: nn.Module, request: Request, asymmetric: bool) -> Tuned:
    """LoRA, or LoRA with a frozen `A`, merged and restarted every `every` (20) steps.

    Options besides those of `LoraConfig`: `every`, `optimizer_state` (`reset` or `keep`), and `std` of a
    frozen `A` (0.02).
    """
    request.options = dict(request.options)
    every = request.options.pop("every", 20)
    policy = request.options.pop("optimizer_state", "reset")
    std = request.options.pop("std", 0.02) if asymmetric else None
    settings, formula = lora_settings(model, request, cost="r n" if asymmetric else "r (m + n)")
    tuned = with_peft(
        model,
        chain_config(**settings),
        formula,
        request.seed,
        settings | {"every": every, "optimizer_state": policy, "std": std},
        tuned=ChainTuned,
        std=std,
        chain_seed=request.seed,
    )
    if std is not None:
        freeze_A(tuned.model, std, request.seed)
    tuned.schedule = Chain(
        every, tuned.next_link, lambda: [p for p in tuned.model.parameters() if p.requires_grad], policy
    )
    return tuned


METHODS = (
    Method(
        name="cola",
        recipe=partial(chain, asymmetric=False),
        trains="B and A on all linear layers of the blocks, started afresh in every link",
        source="LoRA past, present and future, eq. 7 (Xia et al., CoLA)",
        schedule="chain: merge, fresh A, B = 0, moments reset",
    ),
    Method(
        name="rac_lora",
        recipe=partial(chain, asymmetric=True),
        trains="B on all linear layers of the blocks, with a fresh frozen A in every link",
        source="LoRA past, present and future, eq. 9 (Malinovsky et al., RAC-LoRA)",
        claims=("lora_variants/thm_2_chain", "lora_variants/injectivity_rac"),
        schedule="chain: merge, A resampled, B = 0, moments reset",
    ),
)
