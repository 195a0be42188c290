"""How trainable numbers move: optimizers and parameter groups that the methods need beyond torch's own.

Decoupled weight decay on an ordinary adapter pulls its change to zero. A slice that trains inside the weight
holds `S = W0[:, J] + c B` instead of `B`, so its decay has to act on the difference from where it started.
The steps of `B` translate exactly (`c = alpha / r`):

* Adam: the same trajectory with learning rate `c lr`, epsilon `eps / c` and decay `wd / c`;
* SGD, with momentum or not: the same trajectory with learning rate `c^2 lr`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from llm_experiments.tuners.cla import ClaInPlaceLayer
from llm_experiments.tuners.slices import SliceLayer

OPTIMIZERS = ("adamw", "sgd")


class AnchoredAdamW(torch.optim.AdamW):
    """AdamW whose weight decay pulls chosen parameters towards anchors instead of zero.

    For a parameter `p` with anchor `a`, a step first does `p <- p - lr wd (p - a)`, then Adam's step. Without
    anchors it is `torch.optim.AdamW`.

    Args:
        params: parameters or groups, as for every optimizer.
        anchors: parameter -> function that returns its anchor, asked at every step.
        settings: `lr`, `betas`, `eps`, `weight_decay` and so on of AdamW.
    """

    def __init__(
        self,
        params: Iterable[Any],
        anchors: Mapping[nn.Parameter, Callable[[], Tensor]],
        **settings: Any,
    ) -> None:
        super().__init__(params, **settings)
        self.anchors = dict(anchors)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """One step; a closure is evaluated first, as in every optimizer."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        decays = [group["weight_decay"] for group in self.param_groups]
        for group, decay in zip(self.param_groups, decays, strict=True):
            anchored = [p for p in group["params"] if p in self.anchors]
            if not anchored:
                continue
            if len(anchored) < len(group["params"]):
                msg = "a parameter group must be anchored as a whole or not at all"
                raise ValueError(msg)
            for parameter in anchored:
                if decay and parameter.grad is not None:
                    parameter.lerp_(self.anchors[parameter](), float(group["lr"]) * decay)
            group["weight_decay"] = 0.0
        try:
            super().step()
        finally:
            for group, decay in zip(self.param_groups, decays, strict=True):
                group["weight_decay"] = decay
        return loss


def slices_of(model: nn.Module) -> dict[nn.Parameter, tuple[SliceLayer, str]]:
    """The trainable slices of a model, with the layer and the adapter that each belongs to."""
    return {
        parameter: (layer, name)
        for layer in model.modules()
        if isinstance(layer, SliceLayer) and layer.can_alias
        for name, parameter in layer.values.items()
        if parameter.requires_grad
    }


def make_optimizer(
    model: nn.Module,
    lr: float,
    weight_decay: float = 0.0,
    name: str = "adamw",
    **settings: Any,
) -> torch.optim.Optimizer:
    """The optimizer under which every method takes the steps that its definition gives.

    Args:
        model: a model with its trainable parameters marked.
        lr: learning rate of the method as defined; cLA in place gets the scaled one, see above.
        weight_decay: decoupled decay (AdamW) of the trainable numbers, of their change for slices.
        name: `adamw` or `sgd`; SGD takes no weight decay.
        settings: further settings of the optimizer, such as `betas`, `eps`, `momentum`.

    Raises:
        ValueError: unknown optimizer, SGD with weight decay, or nothing trains.
    """
    if name not in OPTIMIZERS:
        msg = f"optimizer must be one of {', '.join(OPTIMIZERS)}; got {name!r}"
        raise ValueError(msg)
    if name == "sgd" and weight_decay:
        msg = f"weight_decay must be 0 with sgd, whose decay is not decoupled; got {weight_decay}"
        raise ValueError(msg)
    slices = slices_of(model)
    groups: dict[tuple[str, float], list[nn.Parameter]] = {}
    for parameter in model.parameters():
        if not parameter.requires_grad:
            continue
        kind, scale = "plain", 1.0
        if parameter in slices:
            layer, adapter = slices[parameter]
            kind, scale = "slice", layer.scaling[adapter] if isinstance(layer, ClaInPlaceLayer) else 1.0
        groups.setdefault((kind, scale), []).append(parameter)
    if not groups:
        msg = "at least one parameter must require a gradient; none does"
        raise ValueError(msg)
    if name == "sgd":
        return torch.optim.SGD(
            [{"params": ps, "lr": scale**2 * lr} for (_, scale), ps in groups.items()], lr=lr, **settings
        )
    eps = settings.pop("eps", 1e-8)
    return AnchoredAdamW(
        [
            {"params": ps, "lr": scale * lr, "eps": eps / scale, "weight_decay": weight_decay / scale}
            for (_, scale), ps in groups.items()
        ],
        {p: _anchor(*place) for p, place in slices.items()},
        lr=lr,
        eps=eps,
        weight_decay=weight_decay,
        **settings,
    )


def _anchor(layer: SliceLayer, adapter_name: str) -> Callable[[], Tensor]:
    return lambda: layer.anchor[adapter_name]


def forget(optimizer: torch.optim.Optimizer, parameters: Iterable[nn.Parameter]) -> None:
    """Drops the optimizer's state (moments, step counts) of parameters, as if they were new."""
    for parameter in parameters:
        optimizer.state.pop(parameter, None)
