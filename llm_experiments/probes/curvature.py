"""The largest eigenvalues of the training loss's Hessian, by Lanczos with Hessian-vector products.

The Hessian `H` (p x p, p the number of parameters) is never formed. After k products with it the eigenvalues of a
k x k tridiagonal matrix, the Ritz values, lie inside its spectrum, and an eigenvalue of `H` lies within each one's
residual: `min_i |theta - lambda_i| <= |H y - theta y|` for the unit Ritz vector y. Every vector is made orthogonal to
all earlier ones twice, so that no eigenvalue appears again by rounding.

Source: Lanczos 1950; Parlett, The Symmetric Eigenvalue Problem, 4.5 (residual bound) and 13.8 (reorthogonalisation);
Pearlmutter 1994 (products by differentiating the gradient).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from llm_experiments.learner import Learner
from llm_experiments.probes.effective import matrix_names, plain_model
from llm_experiments.train import Run

Loss = Callable[[], Tensor]
Product = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Ritz:
    """Approximate eigenvalues of a symmetric operator.

    Attributes:
        values: Ritz values, descending.
        residuals: for each of them, how far the nearest eigenvalue can be away; rounding of the products not counted.
        products: how many products were formed.
        dimension: p.
    """

    values: tuple[float, ...]
    residuals: tuple[float, ...]
    products: int
    dimension: int

    @property
    def top(self) -> float:
        """The largest Ritz value: at most the largest eigenvalue."""
        return self.values[0]


def lanczos(product: Product, dimension: int, steps: int = 20, seed: int = 0) -> Ritz:
    """Ritz values of a symmetric operator on vectors of length `dimension`.

    Args:
        product: v (p) -> H v (p), in any dtype; the recursion runs in float64.
        dimension: p.
        steps: largest number of products; fewer if an invariant subspace is found.
        seed: of the random start.

    Raises:
        ValueError: no step, or a product that is not finite.
    """
    if steps < 1 or dimension < 1:
        message = f"steps and dimension must be at least 1; got {steps} and {dimension}"
        raise ValueError(message)
    generator = torch.Generator().manual_seed(seed)
    v = torch.randn(dimension, generator=generator, dtype=torch.float64)
    basis = [v / v.norm()]
    diagonal: list[float] = []
    beside: list[float] = []
    while True:
        w = product(basis[-1]).double().cpu()
        if not bool(torch.isfinite(w).all()):
            message = (
                "products with the Hessian must be finite; got NaN or infinity, the loss is not smooth here"
            )
            raise ValueError(message)
        diagonal.append(float(w @ basis[-1]))
        size = float(w.norm())
        for _ in range(2):
            for u in basis:
                w -= (w @ u) * u
        beside.append(float(w.norm()))
        # Rounding alone is left: the vectors so far span an invariant subspace.
        if len(diagonal) == min(steps, dimension) or beside[-1] <= 1e-12 * max(size, 1e-300):
            break
        basis.append(w / beside[-1])
    T = torch.diag(torch.tensor(diagonal, dtype=torch.float64))
    edge = torch.tensor(beside[:-1], dtype=torch.float64)
    T += torch.diag(edge, 1) + torch.diag(edge, -1)
    values, vectors = torch.linalg.eigh(T)
    residuals = beside[-1] * vectors[-1].abs()
    return Ritz(tuple(values.flip(0).tolist()), tuple(residuals.flip(0).tolist()), len(diagonal), dimension)


def exact_product(losses: Sequence[Loss], parameters: Sequence[Tensor]) -> Product:
    """Products with the Hessian of the sum of the losses, by differentiating the gradient.

    Args:
        losses: closures that give scalars (several for a batch that is taken in parts), twice differentiable.
        parameters: leaves that require gradients; a vector is their concatenation.
    """

    def product(v: Tensor) -> Tensor:
        parts = _split(v, parameters)
        total = [torch.zeros_like(p) for p in parameters]
        # Fused attention has no second derivative.
        with sdpa_kernel(SDPBackend.MATH):
            for loss in losses:
                gradients = torch.autograd.grad(
                    loss(), parameters, create_graph=True, allow_unused=True, materialize_grads=True
                )
                inner = sum(
                    ((g * part).sum() for g, part in zip(gradients, parts, strict=True)), torch.zeros(())
                )
                if not inner.requires_grad:
                    continue  # linear in the parameters: no curvature
                seconds = torch.autograd.grad(inner, parameters, allow_unused=True, materialize_grads=True)
                for sum_, second in zip(total, seconds, strict=True):
                    sum_ += second.detach()
        return _joined(total)

    return product


def difference_product(losses: Sequence[Loss], parameters: Sequence[Tensor], step: float = 1e-3) -> Product:
    """Products by central differences of gradients, where the gradient itself cannot be differentiated.

    The parameters are moved by `step` times their norm along the vector and put back bit for bit. The error is of the
    order of `step^2` plus rounding over `step`: about 1e-3 of the largest eigenvalue in float32.
    """

    def gradient() -> Tensor:
        total = torch.zeros(sum(p.numel() for p in parameters), dtype=torch.float64)
        for loss in losses:
            parts = torch.autograd.grad(loss(), parameters, allow_unused=True, materialize_grads=True)
            total += _joined(parts)
        return total

    def product(v: Tensor) -> Tensor:
        saved = [p.detach().clone() for p in parameters]
        size = float(_joined(saved).norm()) or 1.0
        shift = step * size / float(v.norm())
        ends = []
        try:
            for sign in (1, -1):
                with torch.no_grad():
                    for p, old, part in zip(parameters, saved, _split(v, parameters), strict=True):
                        p.copy_(old + sign * shift * part)
                ends.append(gradient())
        finally:
            with torch.no_grad():
                for p, old in zip(parameters, saved, strict=True):
                    p.copy_(old)
        return (ends[0] - ends[1]) / (2 * shift)

    return product


def run_curvature(
    run: Run, indices: Sequence[int], over: str = "weights", steps: int = 20, part: int = 16, seed: int = 0
) -> Ritz:
    """Curvature of the mean training loss on a fixed batch, at the run's model as it is now.

    Args:
        run: prepared; it is left as it is.
        indices: of training examples.
        over: `weights`, the matrices of the tuned layers in the plain model (the same space for all methods, exact
            products), or `trained`, the method's own parameters (products by differences, head left out).
        steps: largest number of products; one costs about two (`weights`) or four (`trained`) backward passes.
        part: examples a forward pass.
        seed: of the start.

    Raises:
        MethodError: `weights` of a method that has no plain model.
        ValueError: another word for `over`, or no trained parameter.
    """
    if over not in ("weights", "trained"):
        message = f"over must be weights or trained; got {over!r}"
        raise ValueError(message)
    learner = run.learner
    plain = plain_model(run).requires_grad_(False) if over == "weights" else learner.network
    split = run.splits["train"]
    parts = [list(indices[begin : begin + part]) for begin in range(0, len(indices), part)]
    batches = [learner.batch(split, chosen) for chosen in parts]
    judge = Learner(plain, run.encoding, learner.head, run.device)
    counted = float(sum(int((batch.targets >= 0).sum()) for batch in batches))
    losses: list[Loss] = [lambda batch=batch: judge.loss(batch)[0] / counted for batch in batches]
    if over == "weights":
        parameters = [plain.get_parameter(name).requires_grad_(True) for name in matrix_names(plain)]
    else:
        held = (p for group in run.optimizer.param_groups for p in group["params"])
        parameters = [p for p in held if p.requires_grad]
    if not parameters:
        message = (
            f"{run.settings.method} must train a parameter to have a curvature; none requires a gradient"
        )
        raise ValueError(message)
    was_training = plain.training
    plain.eval()
    try:
        make = exact_product if over == "weights" else difference_product
        return lanczos(make(losses, parameters), sum(p.numel() for p in parameters), steps, seed)
    finally:
        plain.train(was_training)


def _split(v: Tensor, parameters: Sequence[Tensor]) -> list[Tensor]:
    parts = v.split([p.numel() for p in parameters])
    return [part.view(p.shape).to(p) for part, p in zip(parts, parameters, strict=True)]


def _joined(parts: Sequence[Tensor]) -> Tensor:
    return torch.cat([part.detach().double().cpu().flatten() for part in parts])
