"""A layer of a real model with a change of known rank to be found: the only task whose critical rank is known.

The last feed-forward projection W0 of the model is changed by a planted `delta_W` of rank R; a LoRA of rank r is
trained to give the same outputs after the layer's normalisation, on the model's own activations. Since only this
layer changes, its inputs and the sum it is added to are computed once.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from llm_experiments.probes.gradients import whitened
from llm_experiments.train import Run
from theory.peft_vs_fft.saturation import critical_rank


@dataclass(frozen=True)
class Layer:
    """Tokens as the layer sees them.

    Attributes:
        X: inputs (tokens x d_in).
        before: `W0 x + b` plus the residual, before normalisation (tokens x d_out).
        W0: the weight (d_out x d_in).
        normalise: what follows.
    """

    X: Tensor
    before: Tensor
    W0: Tensor
    normalise: torch.nn.Module


@torch.no_grad()
def last_layer(run: Run, texts: int) -> Layer:
    """The last output projection of a prepared encoder run, on its first training texts."""
    block = run.learner.network.encoder.layer[-1].output
    inputs, sums = [], []
    handles = [
        block.dense.register_forward_hook(lambda _, given, __: inputs.append(given[0])),
        block.LayerNorm.register_forward_hook(lambda _, given, __: sums.append(given[0])),
    ]
    split = run.splits["train"]
    masks = []
    for indices in split.by_length(32, texts):
        batch = run.learner.batch(split, indices)
        run.learner.pooled(batch)
        masks.append(batch.inputs["attention_mask"].bool().flatten())
    for handle in handles:
        handle.remove()

    def flat(parts: list[Tensor]) -> Tensor:
        return torch.cat([p.flatten(0, 1)[mask] for p, mask in zip(parts, masks, strict=True)])

    return Layer(flat(inputs), flat(sums), block.dense.weight.detach().clone(), block.LayerNorm)


def plant(layer: Layer, rank: int, seed: int, size: float = 0.3) -> Tensor:
    """A change of this rank, whose outputs are `size` times those of the weight (d_out x d_in)."""
    generator = torch.Generator().manual_seed(seed)
    n, m = layer.W0.shape
    delta_W = torch.randn(n, rank, generator=generator) @ torch.randn(rank, m, generator=generator)
    return delta_W * (size * (layer.X @ layer.W0.T).norm() / (layer.X @ delta_W.T).norm())


def predicted_losses(layer: Layer, target: Tensor, damping: float = 1e-3) -> list[float]:
    """E(r) / E(0) for r = 0, 1, ..., from the whitened gradient at the untuned weight: nothing is trained."""
    W = layer.W0.clone().requires_grad_(True)
    out = layer.normalise(layer.before + layer.X @ (W - layer.W0).T)
    (gradient,) = torch.autograd.grad(functional.mse_loss(out, target), W)
    Sigma = (layer.X.T @ layer.X / len(layer.X)).double()
    energies = torch.linalg.svdvals(whitened(gradient.double(), damping, Sigma)).square()
    left = energies.flip(0).cumsum(0).flip(0)
    return [*(left / left[0]).tolist(), 0.0]


def trained_loss(layer: Layer, target: Tensor, rank: int, lr: float, steps: int, seed: int) -> float:
    """The loss of a LoRA of this rank after training, over that of the untuned layer; all tokens, AdamW."""
    generator = torch.Generator().manual_seed(seed)
    n, m = layer.W0.shape
    A = ((2 * torch.rand(rank, m, generator=generator) - 1) * m**-0.5).requires_grad_(True)
    B = torch.zeros(n, rank, requires_grad=True)
    optimizer = torch.optim.AdamW([A, B], lr=lr, weight_decay=0.0)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = lr * (1 - step / steps)
        chosen = torch.randint(0, len(layer.X), (512,), generator=generator)
        out = layer.normalise(layer.before[chosen] + 2.0 * (layer.X[chosen] @ A.T) @ B.T)
        optimizer.zero_grad()
        functional.mse_loss(out, target[chosen]).backward()
        optimizer.step()
    with torch.no_grad():
        start = functional.mse_loss(layer.normalise(layer.before), target)
        end = functional.mse_loss(layer.normalise(layer.before + 2.0 * (layer.X @ A.T) @ B.T), target)
    return float(end / start)


def target_of(layer: Layer, delta_W: Tensor) -> Tensor:
    """What the changed layer gives (tokens x d_out)."""
    with torch.no_grad():
        return layer.normalise(layer.before + layer.X @ delta_W.T)


def critical(losses: dict[int, float], share: float) -> int | None:
    """The first rank of a grid with E(r) <= share * E(0); None if none."""
    ranks = sorted(losses)
    values = [1.0, *(losses[r] for r in ranks)]
    if min(values) > share:
        return None
    return ranks[critical_rank(values, share) - 1]
