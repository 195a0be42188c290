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


class GaLoreAdamW(torch.optim.Optimizer):
    """AdamW whose moments live in a low-rank image of the gradient.

    For a weight `W` (n x m, n <= m) the gradient `G` is seen through `P' G` with `P` (n x r) the top left
    singular vectors of the gradient at every `gap`-th step (the top right ones, from the other side, if
    n > m); Adam runs on `P' G` and the step is `scale P N`. Other parameters take AdamW's steps. The moments
    are kept when `P` changes. The full gradient and the workspace of the SVD exist at every such step: they
    belong to the method's memory.

    Source: Zhao et al., GaLore (arXiv:2403.03507), Algorithm 2.

    Args:
        params: groups; the key `rank` (0 for plain AdamW) says which weights are projected.
        lr: learning rate.
        betas: decay rates of the moments.
        eps: added to the root of the second moment.
        weight_decay: decoupled decay.
        gap: steps between two projections.
        scale: factor of the projected step.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        gap: int = 200,
        scale: float = 0.25,
    ) -> None:
        if gap < 1:
            msg = f"gap must be at least 1 step; got {gap}"
            raise ValueError(msg)
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, {**defaults, "gap": gap, "scale": scale, "rank": 0})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """One step; a closure is evaluated first, as in every optimizer."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, group)
        return loss

    def _update(self, parameter: nn.Parameter, group: dict[str, Any]) -> None:
        state, gradient = self.state[parameter], parameter.grad
        step = state.get("step", 0)
        left, project = parameter.shape[0] <= parameter.shape[-1], group["rank"] and parameter.dim() == 2
        if project:
            if step % group["gap"] == 0:
                U, _, Vh = torch.linalg.svd(gradient.float(), full_matrices=False)
                rank = group["rank"]
                state["P"] = (U[:, :rank] if left else Vh[:rank].T).to(gradient.dtype).contiguous()
            P = state["P"]
            gradient = P.T @ gradient if left else gradient @ P
        if not step:
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(gradient), torch.zeros_like(gradient)
        state["step"] = step + 1
        beta1, beta2 = group["betas"]
        state["exp_avg"].lerp_(gradient, 1 - beta1)
        state["exp_avg_sq"].mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        root = (state["exp_avg_sq"] / (1 - beta2 ** (step + 1))).sqrt() + group["eps"]
        update = state["exp_avg"] / (1 - beta1 ** (step + 1)) / root
        if project:
            update = group["scale"] * (state["P"] @ update if left else update @ state["P"].T)
        parameter.mul_(1 - group["lr"] * group["weight_decay"]).add_(update, alpha=-group["lr"])
