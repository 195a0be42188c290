"""PESO-LoRA: LoRA factors that move to another subspace every so often, around an anchor that keeps the iterate.

The weight is `anchor + (alpha / r) B A`. What a restart subtracts from the product it adds to the anchor, so
that the iterate stays; only the subspace in which training goes on is another.

Source: Lou, Ye and Chen, PESO (arXiv:2512.02216), from its abstract and theorems; pseudo-code was not at hand.
Choices made here:

* R (full gradient restart): every `every` steps the full gradient `G` of the batch just used (at the point
  before that step) is decomposed, and the factors restart at `B = U_r`, `A = V_r'`, where one gradient step is
  the projected full gradient step; moments are reset. Until the first restart it is plain LoRA.
* T (transport): every `every` steps the product is merged into the anchor, `A` becomes the right singular
  basis `V_r'` of the learned product and `B = 0`; moments of `B` follow the change of basis (first moments
  exactly, second ones entry by entry). `fresh` of the rows, those of the smallest singular values, are
  replaced by random ones orthogonal to the rest: without them a subspace that has become stationary, such as
  the top `r` of `r + 1` directions, would never be left.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from llm_experiments.optimizers import forget
from llm_experiments.recipes.base import Method, Request, Tuned, with_peft
from llm_experiments.recipes.baselines import lora_layers
from llm_experiments.recipes.chains import ChainTuned
from llm_experiments.recipes.lora import lora_settings
from llm_experiments.schedules import Schedule
from llm_experiments.tuners.chained import chain_config


class Restarts(Schedule):
    """Counts the steps and restarts the factors.

    Args:
        tuned: the model.
        every: steps between restarts.
        transport: T instead of R.
        fresh: rows of `A` that T replaces by random ones.
    """

    def __init__(self, tuned: PesoTuned, every: int, transport: bool, fresh: int) -> None:
        if every < 1:
            msg = f"every must be at least 1 step; got {every}"
            raise ValueError(msg)
        self.tuned, self.every, self.transport, self.fresh = tuned, every, transport, fresh
        self.restart = 0
        self.gradients: dict[str, Tensor] = {}
        self._handles: list[Any] = []
        self._listen(every == 1)

    def _listen(self, on: bool) -> None:
        """Lets the backward passes of the next step form full gradients of the frozen weights, or stops it.

        They are taken away as soon as they are there, so that nobody clips by them or steps along them.
        """
        for handle in self._handles:
            handle.remove()
        self._handles, self.gradients = [], {}
        on = on and not self.transport
        for name, layer in lora_layers(self.tuned.model).items():
            weight = layer.get_base_layer().weight
            weight.requires_grad_(on)
            if on:
                self._handles.append(weight.register_post_accumulate_grad_hook(partial(self._keep, name)))

    def _keep(self, name: str, weight: Tensor) -> None:
        gradient = weight.grad
        self.gradients[name] = gradient if name not in self.gradients else self.gradients[name] + gradient
        weight.grad = None

    def on_step_end(self, step: int, optimizer: torch.optim.Optimizer) -> bool:
        """Restarts after every `every` steps."""
        due = (step + 1) % self.every == 0
        if due:
            self.restart += 1
            for number, (name, layer) in enumerate(lora_layers(self.tuned.model).items()):
                links = layer.links
                if self.transport:
                    seed = self.tuned.seed * 1_000_003 + 997 * self.restart + number
                    links += transport(layer, optimizer, self.fresh, seed)
                else:
                    links += gradient_restart(layer, self.gradients[name], optimizer)
        if not self.transport:
            self._listen((step + 2) % self.every == 0)
        return due

    def state_dict(self) -> dict[str, Any]:
        """The number of restarts, and whether the next step has to form full gradients."""
        return {"restart": self.restart, "listening": bool(self._handles)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Puts back what `state_dict` gave."""
        self.restart = state["restart"]
        self._listen(state["listening"])


class PesoTuned(ChainTuned):
    """LoRA around a moving anchor; a checkpoint holds the anchors."""

    def counted(self) -> int:
        """The factors; an anchor whose gradient is listened to does not train."""
        anchors = {id(layer.get_base_layer().weight) for layer in lora_layers(self.model).values()}
        return sum(p.numel() for p in self.model.parameters() if p.requires_grad and id(p) not in anchors)

    def optimizer(self, lr: float, weight_decay: float = 0.0, **settings: Any) -> torch.optim.Optimizer:
        """AdamW on the factors alone."""
        flags = {
            layer.get_base_layer().weight: layer.get_base_layer().weight.requires_grad
            for layer in lora_layers(self.model).values()
        }
        for weight in flags:
            weight.requires_grad_(False)
        optimizer = super().optimizer(lr, weight_decay, **settings)
        for weight, flag in flags.items():
            weight.requires_grad_(flag)
        return optimizer


def factors(layer: LoraLayer) -> tuple[Tensor, Tensor, float]:
    """`A` (r x m), `B` (n x r) and the scale of a LoRA layer."""
    return layer.lora_A["default"].weight, layer.lora_B["default"].weight, layer.scaling["default"]


def _link(layer: LoraLayer, sign: int = 1) -> tuple[Tensor, Tensor]:
    A, B, scale = factors(layer)
    return A.detach().cpu().clone(), (sign * scale * B.detach()).cpu()


@torch.no_grad()
def gradient_restart(
    layer: LoraLayer, gradient: Tensor, optimizer: torch.optim.Optimizer
) -> list[tuple[Tensor, Tensor]]:
    """Factors restart in the top singular subspace of the full gradient; the iterate stays.

    Returns:
        What the anchor gained, as factors: the old product, and the new one with a minus sign.
    """
    A, B, scale = factors(layer)
    weight = layer.get_base_layer().weight
    U, _, Vh = torch.linalg.svd(gradient.float(), full_matrices=False)
    r, gained = A.shape[0], [_link(layer)]
    old = scale * B @ A
    A.copy_(Vh[:r])
    B.copy_(U[:, :r])
    weight += (old - scale * B @ A).to(weight.dtype)
    forget(optimizer, [A, B])
    return [*gained, _link(layer, sign=-1)]


@torch.no_grad()
def transport(
    layer: LoraLayer, optimizer: torch.optim.Optimizer, fresh: int, seed: int
) -> list[tuple[Tensor, Tensor]]:
    """The product is merged, its right singular basis stays (but for fresh rows), moments of `B` follow.

    Returns:
        What the anchor gained, as factors.
    """
    A, B, scale = factors(layer)
    gained = _link(layer)
    weight = layer.get_base_layer().weight
    # SVD of a product of thin factors: of an r x r core between orthonormal bases
    Q_B, R_B = torch.linalg.qr(B.float())
    Q_A, R_A = torch.linalg.qr(A.float().T)
    V = Q_A @ torch.linalg.svd(R_B @ R_A.T).Vh.T
    r = A.shape[0]
    kept = r - min(fresh, r)
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(V.shape[0], r - kept, generator=generator).to(V)
    basis = torch.linalg.qr(torch.cat([V[:, :kept], noise], dim=1)).Q
    basis[:, :kept] = V[:, :kept]
    weight += (scale * B @ A).to(weight.dtype)
    state = optimizer.state.get(B, {})
    if "exp_avg" in state:
        # dL/dB = G A' and A = T V' give dL/dB_new = dL/dB T^-T on the kept directions
        back = torch.linalg.pinv(A.float() @ V[:, :kept]).T.to(B.dtype)
        for name, change in (("exp_avg", back), ("exp_avg_sq", back.square())):
            moved = torch.zeros_like(B)
            moved[:, :kept] = state[name] @ change
            state[name].copy_(moved)
    forget(optimizer, [A])
    A.copy_(basis.T)
    B.zero_()
    return [gained]


def peso(model: nn.Module, request: Request, moved: bool) -> Tuned:
    """PESO-LoRA-R or, with `moved`, -T. Options: `every` (20), `fresh` (rows replaced by T; a quarter of r)."""
    request.options = dict(request.options)
    every = request.options.pop("every", 20)
    fresh = request.options.pop("fresh", None)
    settings, formula = lora_settings(model, request)
    fresh = max(1, settings["r"] // 4) if fresh is None else fresh
    tuned = with_peft(
        model,
        chain_config(**settings),
        formula,
        request.seed,
        settings | {"every": every} | ({"fresh": fresh} if moved else {}),
        tuned=PesoTuned,
        std=None,
        chain_seed=request.seed,
    )
    tuned.schedule = Restarts(tuned, every, moved, fresh)
    return tuned


METHODS = (
    Method(
        name="peso_lora_r",
        recipe=partial(peso, moved=False),
        trains="B and A on all linear layers of the blocks, around an anchor",
        source="Lou et al., PESO (arXiv:2512.02216), full gradient restart",
        claims=("peso/thm_5_1", "peso/thm_5_1_svd_restart", "peso/tangent_map", "peso/anchor_offset"),
        schedule="every K steps: factors restart in the top-r part of the full gradient, moments reset",
    ),
    Method(
        name="peso_lora_t",
        recipe=partial(peso, moved=True),
        trains="B and A on all linear layers of the blocks, around an anchor",
        source="Lou et al., PESO (arXiv:2512.02216), the variant with aligned optimizer state",
        claims=("peso/state_alignment", "peso/synthetic_curves", "peso/lora_trap"),
        schedule="every K steps: product merged, basis by SVD, moments of B aligned",
    ),
)
