"""How much of the loss a method can gain on a sample, by the quadratic model of each layer.

Near the pretrained weights the loss of one layer is modelled as `<G, D> + b/2 tr(D Sigma D')` for a change `D`
(d_out x d_in): `G` the gradient, `Sigma` the second moment of the layer's inputs, `b` the mean curvature of the
loss along the layer's outputs (from the outputs' gradients; Martens and Grosse 2015 with one number in place of
the output factor). Its Hessian is a Kronecker product, so the theorems hold for it exactly:

* whole weights gain `|N|_F^2 / (2 b)` with the whitened gradient `N = G Sigma^(-1/2)`;
* the best change of rank r gains the r largest squared singular values of `N` (peft_vs_fft/thm_3_critical_rank);
* with fixed input directions `T` (k x d_in: columns that train, or a frozen `A`) the gain is the part of `N`
  whose rows lie in the row space of `T Sigma^(1/2)`; with rows that train, those rows of `N`.

That the loss of a language model is not this quadratic is the one thing that remains unknown, and said.

A gradient of a few batches is noisy, and noise has full rank. So a method's change is found on one half of the
sample and its first-order gain measured on the other: `<P(N_1), N_2>`, whose mean for a fixed space is free of noise.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from llm_experiments.advise.sample import IGNORED, Sample, batches
from llm_experiments.errors import UserError
from llm_experiments.tuners.architectures import kinds

NOT_FINITE = "the loss of --task-sample has no finite gradient; load the model in float32"
DAMPING = 1e-2  # share of the mean eigenvalue that is added to Sigma: few tokens do not span the inputs


@dataclass
class Layer:
    """Whitened gradients of one linear layer, from the two halves of the sample.

    Attributes:
        halves: `N_1` and `N_2` (d_out x d_in), divided by the root of the curvature so that layers add up.
        root: `Sigma^(1/2)` (d_in x d_in), damped.
    """

    halves: tuple[Tensor, Tensor]
    root: Tensor

    @property
    def whole(self) -> float:
        """What changing all weights gains on the other half, up to the common factor 1/2."""
        return float((self.halves[0] * self.halves[1]).sum())

    def by_rank(self, ranks: int) -> Tensor:
        """The same for the best change of rank 1, 2, ..., `ranks`, found on one half, measured on the other."""
        return self._captured[:ranks]

    @cached_property
    def _captured(self) -> Tensor:
        first, second = self.halves
        return (_captured(first, second) + _captured(second, first)) / 2

    def of_directions(self, T: Tensor) -> float:
        """The same where the change is `B T` with `B` free (T: k x d_in)."""
        Q = torch.linalg.qr((T.to(self.root.dtype) @ self.root).T).Q
        return float(((self.halves[0] @ Q) * (self.halves[1] @ Q)).sum())

    def of_columns(self, columns: Tensor) -> float:
        """The same where some columns of the weight train."""
        Q = torch.linalg.qr(self.root[:, columns]).Q
        return float(((self.halves[0] @ Q) * (self.halves[1] @ Q)).sum())

    def of_rows(self, rows: Tensor) -> float:
        """The same where some rows of the weight train."""
        return float((self.halves[0][rows] * self.halves[1][rows]).sum())


def _captured(found_on: Tensor, measured_on: Tensor) -> Tensor:
    """Gains on one half of the leading singular triples of the other, added up."""
    U, s, Vh = torch.linalg.svd(found_on, full_matrices=False)
    gains = s * ((U.T @ measured_on) * Vh).sum(1)
    return gains.cumsum(0)


@contextmanager
def _watched(layers: dict[str, nn.Linear], seen: dict[str, list[Tensor]]) -> Iterator[None]:
    """While open, adds up for every layer the inputs' second moment and the squared output gradients."""
    handles = []
    for name, layer in layers.items():

        def inputs(_: nn.Module, args: tuple[Tensor, ...], name: str = name) -> None:
            X = args[0].detach().flatten(0, -2)[seen["mask"][0]].double()
            seen[name][0] += X.T @ X

        def outputs(_: nn.Module, args: object, out: Tensor, name: str = name) -> None:
            def add(grad: Tensor) -> None:
                seen[name][1] += grad.detach().double().square().sum()

            out.register_hook(add)

        handles += [layer.register_forward_pre_hook(inputs), layer.register_forward_hook(outputs)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def measured(model: nn.Module, sample: Sample, size: int = 2) -> dict[str, Layer]:
    """Whitened gradients of every linear layer of the blocks, by its full name.

    Args:
        model: untuned; its weights stay as they are.
        sample: see `sample.py`.
        size: examples in memory at a time.

    Raises:
        UserError: the gradient is zero everywhere or not finite.
    """
    wanted = {id(layer) for group in _kinds(model).values() for layer in group}
    layers = {name: m for name, m in model.named_modules() if id(m) in wanted}
    model.requires_grad_(False)
    for layer in layers.values():
        layer.weight.requires_grad_(True)
    gradients: list[dict[str, Tensor]] = []
    seen: dict[str, list[Tensor]] = {
        name: [torch.zeros(layer.in_features, layer.in_features, dtype=torch.float64), torch.zeros(())]
        for name, layer in layers.items()
    }
    tokens = 0
    was_training = model.training
    model.eval()
    try:
        with _watched(layers, seen):
            for half in sample.halves():
                counted = 0
                for indices in batches(half, size):
                    inputs, targets = sample.batch(indices)
                    seen["mask"] = [inputs["attention_mask"].flatten().bool()]
                    sample.loss(model, inputs, targets).backward()
                    tokens += int(inputs["attention_mask"].sum())
                    counted += len(indices) if sample.head is not None else int((targets != IGNORED).sum())
                gradients.append({n: layer.weight.grad.double() / counted for n, layer in layers.items()})
                for layer in layers.values():
                    layer.weight.grad = None
    finally:
        model.train(was_training)
        for layer in layers.values():
            layer.weight.requires_grad_(False)
    found: dict[str, Layer] = {}
    last: tuple[Tensor, Roots] | None = None
    for name, layer in layers.items():
        second_moment, squares = seen.pop(name)
        if last is None or not torch.equal(
            last[0], second_moment
        ):  # query, key and value read the same inputs
            last = second_moment, _roots(second_moment / tokens)
        curvature = float(squares) / tokens / layer.out_features
        found[name] = _whitened([g.pop(name) for g in gradients], last[1], curvature)
    if not any(layer.halves[0].any() for layer in found.values()):
        message = "the loss of --task-sample has no gradient: the model predicts every example with certainty"
        raise UserError(message)
    return found


def _kinds(model: nn.Module) -> dict[str, list[nn.Linear]]:
    try:
        return kinds(model)
    except ValueError as error:
        raise UserError(str(error)) from None


Roots = tuple[Tensor, Tensor]  # Sigma^(1/2) and its inverse


def _roots(Sigma: Tensor) -> Roots:
    """The root of the damped second moment, and its inverse."""
    damped = Sigma + DAMPING * Sigma.trace() / len(Sigma) * torch.eye(len(Sigma), dtype=Sigma.dtype)
    if not torch.isfinite(damped).all():
        raise UserError(NOT_FINITE)
    values, vectors = torch.linalg.eigh(damped)
    values = values.clamp(min=1e-12 * float(values[-1]) or 1.0)
    return (vectors * values.sqrt()) @ vectors.T, (vectors / values.sqrt()) @ vectors.T


def _whitened(gradients: list[Tensor], roots: Roots, curvature: float) -> Layer:
    if not all(torch.isfinite(G).all() for G in gradients):
        raise UserError(NOT_FINITE)
    scale = curvature**-0.5 if curvature else 0.0  # no gradient at its outputs: the layer gains nothing
    first, second = (scale * G @ roots[1] for G in gradients)
    return Layer((first, second), roots[0])


@dataclass(frozen=True)
class CriticalRank:
    """The rank that one number for all layers needs.

    Attributes:
        rank: the smallest that reaches `share` of the largest gain of any rank, measured on the other half.
        share: 0.9.
        gains: gain of each rank as a share of the largest.
    """

    rank: int
    share: float
    gains: list[float]


def critical_rank(layers: dict[str, Layer], share: float = 0.9) -> CriticalRank | None:
    """The critical rank over all layers; None where no rank gains anything on the other half (all is noise)."""
    most = max(min(layer.halves[0].shape) for layer in layers.values())
    total = torch.zeros(most, dtype=torch.float64)
    for layer in layers.values():
        gains = layer.by_rank(most)
        total += torch.cat([gains, gains[-1].expand(most - len(gains))])
    best = float(total.max())
    if best <= 0:
        return None
    return CriticalRank(int((total >= share * best).nonzero()[0]) + 1, share, (total / best).tolist())
