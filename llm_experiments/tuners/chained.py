"""A LoRA layer whose frozen weight has taken in the finished links of its chain, and can give them back.

peft takes the frozen weight of a layer for the pretrained one: with its adapters disabled, or another adapter
active, that weight alone is what computes. In a chain it is `W0 + sum_i B_i A_i`. This layer takes the links out
of it whenever the chained adapter is not at work, and puts them back, bit for bit, when it is.
"""

from __future__ import annotations

from typing import Any

import torch
from peft import LoraConfig
from peft.tuners.lora import Linear as LoraLinear
from torch import Tensor, nn

CHAINED = "default"  # the adapter that the links belong to


def chain_config(**settings: Any) -> LoraConfig:
    """A `LoraConfig` under which peft builds `ChainedLinear` layers."""
    config = LoraConfig(**settings)
    config._register_custom_module({nn.Linear: ChainedLinear})
    return config


class ChainedLinear(LoraLinear):
    """peft's LoRA layer with the finished links of a chain in its frozen weight.

    While the chained adapter is disabled or another one is active, the weight is `W0`: the links are subtracted in
    float64, which leaves the rounding of the merges (one unit in the last place each, that of the weight's type).
    The weight with the links waits meanwhile in a copy.

    Attributes:
        links: the factors `(A_i, B_i)` of finished links on the CPU, scale included in `B_i`.
    """

    def __init__(self, *arguments: Any, **named: Any) -> None:
        self.links: list[tuple[Tensor, Tensor]] = []
        self._waiting: Tensor | None = None
        super().__init__(*arguments, **named)

    @property
    def chained_weight(self) -> Tensor:
        """The frozen weight with the links in it."""
        return self.get_base_layer().weight.detach() if self._waiting is None else self._waiting

    @torch.no_grad()
    def replace_links(self, links: list[tuple[Tensor, Tensor]], weight: Tensor | None) -> None:
        """Puts the layer at another place of a chain.

        Args:
            links: the finished links there.
            weight: the frozen weight with those links in it; None for the pretrained one, without links.
        """
        self._place(False)
        self.links, self._waiting = links, None
        if weight is not None:
            self.get_base_layer().weight.copy_(weight)
        self._follow()

    @torch.no_grad()
    def _place(self, inside: bool) -> None:
        """Brings the weight to hold the links, or not to."""
        if not self.links or inside == (self._waiting is None):
            return
        weight = self.get_base_layer().weight
        if self._waiting is not None:
            weight.copy_(self._waiting)
            self._waiting = None
            return
        self._waiting = weight.detach().clone()
        total = weight.double()
        for A, B in self.links:
            total -= B.to(total) @ A.to(total)
        weight.copy_(total)

    def _follow(self) -> None:
        """The links are where the active adapters want them."""
        if self.links:
            self._place(not self.disable_adapters and CHAINED in self.active_adapters)

    # -- peft's switches ------------------------------------------------------------------------------

    def enable_adapters(self, enabled: bool) -> None:
        """Turns the adapters on, or off; see peft."""
        if self.merged and not enabled:
            self.unmerge()
        super().enable_adapters(enabled)
        self._follow()

    def set_adapter(self, *arguments: Any, **named: Any) -> None:
        """Chooses the active adapters; see peft. An adapter that is merged is taken out first."""
        if self.links and self.merged:
            self.unmerge()
        super().set_adapter(*arguments, **named)
        self._follow()

    def delete_adapter(self, adapter_name: str) -> None:
        """Deletes an adapter; the chained one takes its links with it."""
        super().delete_adapter(adapter_name)
        if adapter_name == CHAINED:
            self.replace_links([], None)

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Merges adapters into the weight, the links counting as part of the chained one.

        Raises:
            ValueError: the chained adapter would be merged after another.
        """
        names = adapter_names or self.active_adapters
        if not self.merged:
            self._place(CHAINED in names)
        elif CHAINED in names and self._waiting is not None:
            msg = f"adapter {CHAINED!r} has finished links and must be merged first; merged is {self.merged_adapters}"
            raise ValueError(msg)
        super().merge(safe_merge=safe_merge, adapter_names=adapter_names)

    def unmerge(self) -> None:
        """Takes merged adapters out of the weight; the links stay with the chained one."""
        super().unmerge()
        self._follow()

    def unload_and_optionally_merge_module(
        self, merge: bool, safe_merge: bool, adapter_names: list[str] | None
    ) -> nn.Module:
        """The plain layer: pretrained, or with adapters and their links merged."""
        if merge:
            self.merge(safe_merge=safe_merge, adapter_names=adapter_names)
        else:
            if self.merged:
                self.unmerge()
            self._place(False)
        return self.get_base_layer()

    def _mixed_batch_forward(self, x: Tensor, *arguments: Any, **named: Any) -> Tensor:
        if self.links:
            msg = (
                f"adapters cannot be mixed in one batch while the frozen weight holds the links of {CHAINED!r}; "
                "save the chain and load it as one LoRA"
            )
            raise ValueError(msg)
        return super()._mixed_batch_forward(x, *arguments, **named)
