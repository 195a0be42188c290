"""A transformer block whose output is edited in a low-dimensional subspace."""

from __future__ import annotations

from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

UNMERGEABLE = "it edits the residual stream between blocks, where there is no weight"


def orthonormal_rows(M: Tensor) -> Tensor:
    """The orthonormal rows (r x d) that Gram-Schmidt makes of the rows of `M` (r x d), in M's type."""
    with torch.autocast(M.device.type, enabled=False):
        wide = M if M.dtype == torch.float64 else M.float()
        return torch.linalg.qr(wide.T).Q.T.to(M.dtype)


class LoreftLayer(nn.Module, BaseTunerLayer):
    """`h + R' (W h + b - R h)` on the hidden states that a block returns.

    `R` is kept as a free matrix and made orthonormal in every forward pass.

    Args:
        base_layer: the block; returns the hidden states, or a tuple that starts with them.
        name: its name in the model.
        width: width `d` of the hidden states.
    """

    adapter_layer_names = ("loreft_R", "loreft_W", "loreft_b")

    def __init__(self, base_layer: nn.Module, name: str, width: int) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.layer_name, self.width = name, width
        self.loreft_R, self.loreft_W, self.loreft_b = (nn.ParameterDict() for _ in range(3))
        self._disable_adapters = False
        self.merged_adapters: list[str] = []

    def add_adapter(self, adapter_name: str, r: int) -> None:
        """Adds an edit that changes nothing yet."""
        if r > self.width:
            msg = f"r must satisfy 1 <= r <= {self.width}, the width of {self.layer_name}; got {r}"
            raise ValueError(msg)
        like = next(self.base_layer.parameters())
        M = orthonormal_rows(torch.randn(r, self.width)).to(like.device, like.dtype)
        self.loreft_R[adapter_name] = nn.Parameter(M)
        self.loreft_W[adapter_name] = nn.Parameter(orthonormal_rows(M.detach()).clone())
        self.loreft_b[adapter_name] = nn.Parameter(torch.zeros(r, device=like.device, dtype=like.dtype))
        self.set_adapter(self.active_adapters)

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Always refused."""
        msg = f"{self.layer_name} cannot be merged: {UNMERGEABLE}"
        raise ValueError(msg)

    def unmerge(self) -> None:
        """Nothing is ever merged."""

    def edit(self, h: Tensor, adapter_name: str) -> Tensor:
        """The edited hidden states (.. x d)."""
        W, b = self.loreft_W[adapter_name], self.loreft_b[adapter_name]
        R = orthonormal_rows(self.loreft_R[adapter_name])
        x = h if torch.is_autocast_enabled(h.device.type) else h.to(W.dtype)
        difference = nn.functional.linear(x, W) - nn.functional.linear(x, R) + b
        return h + (difference @ R).to(h.dtype)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The block's result with edited hidden states."""
        result = self.base_layer(*args, **kwargs)
        if self._disable_adapters:
            return result
        h = result[0] if isinstance(result, tuple) else result
        for name in self.active_adapters:
            if name in self.loreft_R:
                h = self.edit(h, name)
        return (h, *result[1:]) if isinstance(result, tuple) else h

    def __getattr__(self, name: str) -> Any:
        # A model may ask its blocks for attributes of theirs.
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name == "base_layer":
                raise
            return getattr(self.base_layer, name)

    def __repr__(self) -> str:
        return "loreft." + super().__repr__()
