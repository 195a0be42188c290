"""A linear layer with a bottleneck after it or beside the sublayer that it ends."""

from __future__ import annotations

import math

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

UNMERGEABLE = "a bottleneck with a nonlinearity has no place in a weight"


class BottleneckLayer(nn.Module, BaseTunerLayer):
    """`y + U relu(D h + d) + u` with `y` the output of the layer.

    `h` is `y` itself in series, and the input of the sublayer in parallel. `U = 0` and `u = 0` at the start.

    Args:
        base_layer: the linear layer that ends the sublayer.
        name: its name in the model.
        entrance: in parallel, the layer whose input is the input of the sublayer; None in series.
    """

    adapter_layer_names = ("bottleneck_down", "bottleneck_up")

    def __init__(self, base_layer: nn.Module, name: str, entrance: nn.Linear | None = None) -> None:
        super().__init__()
        if not isinstance(base_layer, nn.Linear):
            msg = f"{name} must be a torch.nn.Linear to end a sublayer; got {type(base_layer).__name__}"
            raise TypeError(msg)
        self.base_layer = base_layer
        self.layer_name = name
        self.in_features, self.out_features = base_layer.in_features, base_layer.out_features
        self.bottleneck_down = nn.ModuleDict()
        self.bottleneck_up = nn.ModuleDict()
        self._disable_adapters = False
        self.merged_adapters: list[str] = []
        self._width_in = self.out_features if entrance is None else entrance.in_features
        self._seen: list[Tensor] = []
        self._handle = None if entrance is None else entrance.register_forward_pre_hook(self._see)

    @property
    def needs_sublayer(self) -> bool:
        """Whether the layer works only inside its block, whose input it has to see."""
        return self._handle is not None

    def _see(self, module: nn.Module, args: tuple[Tensor, ...]) -> None:
        self._seen = [args[0]]

    def close(self) -> None:
        """Stops listening at the entrance of the sublayer."""
        if self._handle is not None:
            self._handle.remove()

    def add_adapter(self, adapter_name: str, width: int) -> None:
        """Adds a bottleneck that changes nothing yet."""
        weight = self.base_layer.weight
        down = nn.Linear(self._width_in, width, device=weight.device, dtype=weight.dtype)
        up = nn.Linear(width, self.out_features, device=weight.device, dtype=weight.dtype)
        nn.init.kaiming_uniform_(down.weight, a=math.sqrt(5))
        nn.init.zeros_(up.weight)
        nn.init.zeros_(up.bias)
        self.bottleneck_down[adapter_name], self.bottleneck_up[adapter_name] = down, up
        self.set_adapter(self.active_adapters)

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Always refused."""
        msg = f"{self.layer_name} cannot be merged: {UNMERGEABLE}"
        raise ValueError(msg)

    def unmerge(self) -> None:
        """Nothing is ever merged."""

    def forward(self, x: Tensor, *args, **kwargs) -> Tensor:  # type: ignore[no-untyped-def]
        """The layer's output plus the bottleneck's."""
        y = self.base_layer(x, *args, **kwargs)
        seen, self._seen = self._seen, []  # not kept longer than needed: it is an activation
        if self._disable_adapters:
            return y
        if self.needs_sublayer and not seen:
            msg = f"{self.layer_name} works beside its sublayer, whose input it has not seen; run the whole block"
            raise RuntimeError(msg)
        result = y
        for name in self.active_adapters:
            if name in self.bottleneck_down:
                down, up = self.bottleneck_down[name], self.bottleneck_up[name]
                h = seen[0] if self.needs_sublayer else y
                if not torch.is_autocast_enabled(x.device.type):
                    h = h.to(down.weight.dtype)
                result = result + up(torch.relu(down(h))).to(y.dtype)
        return result

    def __repr__(self) -> str:
        return "bottleneck." + super().__repr__()
