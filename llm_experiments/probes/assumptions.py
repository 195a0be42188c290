"""The constants that the theory assumes, measured on a model: each as a number, with what it is a number of.

| assumption | measured by | where it is assumed |
|---|---|---|
| few channels hold the change | `channel_sparsity` | S2FT F.4 (`s2ft/lemma_f14_right`, `s2ft/thm_f7_bias`) |
| inputs in and out of distribution are alike | `shift` | S2FT So = Si (`s2ft/thm_f8_lora`, `s2ft/ood_crossover`) |
| a gap after the s-th or r-th eigenvalue | `eigengap` | S2FT F.7 (`s2ft/thm_f7_bias`) |
| gradients change slowly, constant L | `PathSmoothness` | rates of PESO and of LoRA variants (`peso/thm_5_1`) |
| a subspace holds the gradient, error delta | `subspace_error`, `left_out` | PESO Theorem 5.1 (`peso/thm_5_1`) |

A constant along a path is a lower bound of the constant that a theorem asks for: other weights may be worse.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from llm_experiments.data import Split
from llm_experiments.learner import Learner
from llm_experiments.probes.distance import outside
from llm_experiments.probes.effective import matrix_names, plain_model
from llm_experiments.probes.gradients import whitened
from llm_experiments.probes.on_text import watched
from llm_experiments.train import Run

Weights = Mapping[str, Tensor]

# --- channels ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ChannelSparsity:
    """How much of a change lies outside its s largest channels, as a share of its norm.

    Attributes:
        rows: s -> delta of Assumption F.4 for the best s output channels.
        columns: s -> the same for the best s input channels.
        even_rows: s -> what equal energies would give, sqrt(1 - s / d_out): no sparsity at all.
        even_columns: s -> sqrt(1 - s / d_in).
        chosen_rows: the share outside given output channels; None without any.
        chosen_columns: the share outside given input channels; None without any.
    """

    rows: dict[int, float]
    columns: dict[int, float]
    even_rows: dict[int, float]
    even_columns: dict[int, float]
    chosen_rows: float | None
    chosen_columns: float | None


def channel_sparsity(
    delta_W: Tensor,
    counts: Sequence[int],
    Sigma_x: Tensor | None = None,
    rows: Sequence[int] | None = None,
    columns: Sequence[int] | None = None,
) -> ChannelSparsity:
    """Row and column sparsity of a change.

    F.4 speaks of the rows of `delta_W Sigma_x^(1/2)`; without `Sigma_x` the identity stands for it. Columns are those
    of `delta_W` itself: a root of `Sigma_x` would mix them.

    Args:
        delta_W: change of a layer (d_out x d_in).
        counts: values of s.
        Sigma_x: second moments of the layer's inputs (d_in x d_in).
        rows: output channels that a method trains.
        columns: input channels that a method trains.
    """
    delta_W = delta_W.double()
    by_row = ((delta_W if Sigma_x is None else delta_W @ Sigma_x.double()) * delta_W).sum(1).clamp(min=0)
    by_column = delta_W.square().sum(0)
    n, m = delta_W.shape

    def best(energies: Tensor) -> dict[int, float]:
        ordered = energies.sort(descending=True).values
        return {s: outside(ordered, min(s, len(energies))) for s in counts}

    def given(energies: Tensor, chosen: Sequence[int] | None) -> float | None:
        if chosen is None:
            return None
        kept = torch.zeros(len(energies), dtype=torch.bool)
        kept[list(chosen)] = True
        return outside(torch.cat([energies[kept], energies[~kept]]), int(kept.sum()))

    return ChannelSparsity(
        rows=best(by_row),
        columns=best(by_column),
        even_rows={s: math.sqrt(max(0.0, 1 - s / n)) for s in counts},
        even_columns={s: math.sqrt(max(0.0, 1 - s / m)) for s in counts},
        chosen_rows=given(by_row, rows),
        chosen_columns=given(by_column, columns),
    )


# --- spectra of inputs -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Eigengap:
    """The spectrum of second moments around one place.

    Attributes:
        rank: r.
        gap: (lambda_r - lambda_{r+1}) / lambda_1.
        ratio: lambda_{r+1} / lambda_r: 1 is no gap, 0 a spectrum that ends at r; 0 if both are 0.
        energy: share of the trace in the first r eigenvalues.
        condition: lambda_1 / lambda_d; infinite for a singular matrix.
    """

    rank: int
    gap: float
    ratio: float
    energy: float
    condition: float


def eigengap(Sigma: Tensor, rank: int) -> Eigengap:
    """The gap after the `rank`-th eigenvalue of second moments (d x d).

    Raises:
        ValueError: no eigenvalue stands behind that one, or `Sigma` is zero.
    """
    values = torch.linalg.eigvalsh(Sigma.double()).flip(0).clamp(min=0)
    if not 1 <= rank < len(values) or not float(values[0]):
        message = f"rank must satisfy 1 <= rank < {len(values)} and Sigma must not be zero; got rank {rank}"
        raise ValueError(message)
    before, after, first, last = (float(values[i]) for i in (rank - 1, rank, 0, -1))
    return Eigengap(
        rank=rank,
        gap=(before - after) / first,
        ratio=after / before if before else 0.0,
        energy=float(values[:rank].sum() / values.sum()),
        # Below rounding of the decomposition a value is no evidence of regularity.
        condition=first / last if last > 1e-14 * first * len(values) else math.inf,
    )


@dataclass(frozen=True)
class Shift:
    """How the inputs of a layer differ between two sets; `before` is the first.

    Moments of few tokens differ by chance too: two halves of one set show by how much.

    Attributes:
        relative: |after - before|_F / |before|_F.
        whitened: smallest, mean and largest eigenvalue of before^(-1/2) after before^(-1/2), damped: by what factor
            the energy along a direction changes; all 1 without a shift.
        angle: largest principal angle (radians) between the leading eigenspaces; near pi / 2 as soon as one of many
            directions differs.
        apart: mean squared sine of all their principal angles: 0 for equal spaces, 1 for orthogonal ones.
        missed: share of the energy of `after` outside the leading eigenspace of `before`.
        own: the same share of `before`, for comparison.
        dimensions: of the leading eigenspaces: the smallest number that holds the share asked for in `before`.
    """

    relative: float
    whitened: tuple[float, float, float]
    angle: float
    apart: float
    missed: float
    own: float
    dimensions: int


def shift(before: Tensor, after: Tensor, damping: float = 1e-3, share: float = 0.9) -> Shift:
    """Compares second moments (d x d) of two sets of inputs.

    Args:
        before: of the first set, such as inputs in distribution.
        after: of the second set.
        damping: added to `before` as `damping * tr / d`, since directions without energy have no ratio.
        share: of the energy that the leading eigenspace holds.

    Raises:
        ValueError: shapes differ, or `before` stays singular with that damping.
    """
    if before.shape != after.shape:
        message = f"before and after must have one shape; got {tuple(before.shape)} and {tuple(after.shape)}"
        raise ValueError(message)
    before, after = before.double(), after.double()
    # Both damped alike, so that no shift gives exactly 1 everywhere.
    floor = damping * before.diagonal().mean() * torch.eye(len(before), dtype=torch.float64)
    once = whitened(after + floor, damping, before)
    ratios = torch.linalg.eigvalsh(whitened(once.mT, damping, before))
    values, vectors = torch.linalg.eigh(before)
    held = values.flip(0).clamp(min=0).cumsum(0) / values.clamp(min=0).sum()
    k = int((held >= share - 1e-12).nonzero()[0]) + 1
    first = vectors[:, -k:]
    second = torch.linalg.eigh(after).eigenvectors[:, -k:]
    angles = principal_angles(first, second)
    return Shift(
        relative=float((after - before).norm() / before.norm()),
        whitened=(float(ratios[0]), float(ratios.mean()), float(ratios[-1])),
        angle=max(angles),
        apart=sum(math.sin(angle) ** 2 for angle in angles) / k,
        missed=1 - float((first.T @ after @ first).trace() / after.trace()),
        own=1 - float(held[k - 1]),
        dimensions=k,
    )


def input_moments(run: Run, split: Split, limit: int | None = None, batch: int = 32) -> dict[str, Tensor]:
    """Second moments of every tuned layer's inputs over the tokens of a split: name -> d_in x d_in, float64.

    Args:
        run: prepared; its model as it is now, which is left alone.
        split: encoded examples, such as those of `run.splits`.
        limit: how many of them.
        batch: examples a forward pass.

    Raises:
        MethodError: the method has no plain model.
    """
    network = plain_model(run).eval()
    learner = Learner(network, run.encoding, None, run.device)
    moments: dict[str, Tensor] = {}
    tokens = 0
    for indices in split.by_length(batch, limit):
        inputs = learner.batch(split, indices).inputs
        mask = inputs["attention_mask"].bool().flatten()

        def see(name: str, X: Tensor, mask: Tensor = mask) -> None:
            real = X[mask]
            moments[name] = moments.get(name, 0) + (real.T @ real).double().cpu()

        with torch.no_grad(), watched(network, matrix_names(network), see):
            network(**inputs)
        tokens += int(mask.sum())
    return {name: total / tokens for name, total in moments.items()}


# --- subspaces -------------------------------------------------------------------------------------------------


def principal_angles(U: Tensor, V: Tensor) -> list[float]:
    """Principal angles (radians, ascending) between the column spaces of U and V (d x k and d x l).

    Small angles come from sines, large ones from cosines, so that both are accurate.
    """
    U, V = (torch.linalg.qr(basis.double()).Q for basis in (U, V))
    if V.shape[1] < U.shape[1]:
        U, V = V, U
    left, cosines, _ = torch.linalg.svd(U.T @ V, full_matrices=False)
    vectors = U @ left
    sines = (vectors - V @ (V.T @ vectors)).norm(dim=0)
    return torch.atan2(sines, cosines).sort().values.tolist()


def subspace_error(U: Tensor, V: Tensor) -> float:
    """The sine of the largest principal angle: |(I - P_V) P_U| for k <= l; 0 for a subspace of V, 1 at worst."""
    return math.sin(max(principal_angles(U, V)))


def left_out(G: Tensor, A: Tensor | None = None, B: Tensor | None = None) -> float:
    """PESO's delta over |G|: the share of a gradient's norm outside what a subspace can move.

    Args:
        G: full gradient (d_out x d_in).
        A: rows span the directions of inputs that are trained (r x d_in).
        B: columns span the directions of outputs that are trained (d_out x r).

    Changes `B X + Y A` with any X and Y can be made, the tangent space of `B A`; with one factor alone its part.
    """
    rest, size = G.double(), float(G.double().norm())
    if A is not None:
        Q = torch.linalg.qr(A.double().T).Q
        rest = rest - (rest @ Q) @ Q.T
    if B is not None:
        Q = torch.linalg.qr(B.double()).Q
        rest = rest - Q @ (Q.T @ rest)
    return float(rest.norm()) / size if size else 0.0


# --- smoothness ------------------------------------------------------------------------------------------------


@dataclass
class PathSmoothness:
    """The largest ratio |g_i - g_j| / |w_i - w_j| between points of a path: a lower bound of the constant L.

    Points and gradients are kept in float32 and all pairs are compared: a few checkpoints, not every step.
    """

    points: list[Tensor] = field(default_factory=list)
    gradients: list[Tensor] = field(default_factory=list)

    def add(self, weights: Weights, gradients: Weights) -> None:
        """Adds a point of the path and the gradient there; names and shapes must agree."""
        flat = [
            torch.cat([part[n].detach().float().cpu().flatten() for n in weights])
            for part in (weights, gradients)
        ]
        self.points.append(flat[0])
        self.gradients.append(flat[1])

    def ratios(self) -> dict[tuple[int, int], float]:
        """The ratio of every pair i < j of points that differ."""
        found = {}
        for j in range(len(self.points)):
            for i in range(j):
                apart = float(torch.linalg.vector_norm(self.points[j] - self.points[i], dtype=torch.float64))
                if apart:
                    change = self.gradients[j] - self.gradients[i]
                    found[i, j] = float(torch.linalg.vector_norm(change, dtype=torch.float64)) / apart
        return found

    def constant(self) -> float | None:
        """The largest ratio; None if no two points differ."""
        return max(self.ratios().values(), default=None)


def loss_gradients(run: Run, indices: Sequence[int], part: int = 16) -> dict[str, Tensor]:
    """Gradients of the mean training loss of some examples in the plain model's matrices, at the run's model now.

    Args:
        run: prepared; left as it is.
        indices: of training examples.
        part: examples a forward pass.

    Raises:
        MethodError: the method has no plain model.
    """
    network = plain_model(run).eval().requires_grad_(False)
    learner = Learner(network, run.encoding, run.learner.head, run.device)
    names = matrix_names(network)
    weights = [network.get_parameter(name).requires_grad_(True) for name in names]
    total, count = [torch.zeros_like(weight, dtype=torch.float32) for weight in weights], 0
    for begin in range(0, len(indices), part):
        batch = learner.batch(run.splits["train"], list(indices[begin : begin + part]))
        summed, counted = learner.loss(batch)
        count += counted
        for sum_, gradient in zip(total, torch.autograd.grad(summed, weights), strict=True):
            sum_ += gradient.float()
    return {name: (sum_ / count).cpu() for name, sum_ in zip(names, total, strict=True)}
