"""The singular values of a weight change, exact where the matrix is small, sketched where it is large.

A sketch projects the change on an orthonormal `Q` (d_out x l) found by subspace iteration. Its singular values
are those of `Q' delta_W`: never above the true ones, in order; the energy that it misses is known exactly,
`|delta_W|_F^2 - |Q' delta_W|_F^2`. So distances and ranks that follow from it are upper bounds.

Source: Halko, Martinsson, Tropp 2011 (randomised range finder); Roy and Vetterli 2007 (effective rank).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

EXACT_SIDE = 1024  # smaller sides up to here are decomposed exactly by default
SKETCH = 256  # dimensions of a sketch
_DIRECT_SIDE = 1024  # up to here singular values come from the matrix, above from its Gram matrix


@dataclass(frozen=True)
class Spectrum:
    """Singular values and what they leave out.

    Attributes:
        values: descending, float64.
        energy: squared Frobenius norm of the whole matrix.
        missed: energy outside the values: 0 if `exact`.
        exact: whether these are all singular values.
    """

    values: Tensor
    energy: float
    missed: float
    exact: bool

    def tail(self, rank: int) -> float:
        """Squared Frobenius distance to rank `rank`; an upper bound if not exact."""
        # Summed from the small end, not as a difference: a change of low rank leaves rounding noise only.
        return float(self.values[rank:].square().sum()) + self.missed

    def relative_tail(self, rank: int) -> float:
        """Frobenius distance to rank `rank` over the norm of the change; 0 for no change."""
        return math.sqrt(min(1.0, self.tail(rank) / self.energy)) if self.energy else 0.0

    def rank_for(self, share: float) -> int | None:
        """Smallest rank that holds `share` of the energy; None if a sketch does not reach that far."""
        if not self.energy:
            return 0
        held = self.values.square().cumsum(0) / self.energy
        # One unit of rounding below the share counts as reached: the sum of all must reach 1.
        reached = (held >= share - 1e-12).nonzero()
        return int(reached[0]) + 1 if len(reached) else None

    @property
    def stable_rank(self) -> float:
        """Squared Frobenius norm over squared spectral norm; 0 for no change."""
        return self.energy / float(self.values[0]) ** 2 if self.energy else 0.0

    @property
    def effective_rank(self) -> float | None:
        """Exponential of the entropy of `sigma / sum(sigma)`; None for a sketch, which lacks the small values."""
        if not self.exact:
            return None
        if not self.energy:
            return 0.0
        share = self.values[self.values > 0] / self.values.sum()
        return math.exp(-float((share * share.log()).sum()))


def norm(matrix: Tensor) -> float:
    """Frobenius norm, accumulated in float64."""
    return float(torch.linalg.vector_norm(matrix, dtype=torch.float64))


def spectrum(matrix: Tensor, exact_side: int = EXACT_SIDE, sketch: int = SKETCH, seed: int = 0) -> Spectrum:
    """The singular values of a matrix.

    Args:
        matrix: d_out x d_in.
        exact_side: all values are computed if the smaller side is at most this.
        sketch: how many values are computed otherwise.
        seed: of the sketch.
    """
    energy, side = norm(matrix) ** 2, min(matrix.shape)
    if energy == 0:
        return Spectrum(torch.zeros(side, dtype=torch.float64), 0.0, 0.0, True)
    if side <= max(exact_side, sketch):
        if side <= _DIRECT_SIDE:
            values = torch.linalg.svdvals(matrix.double())
        else:
            wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
            values = torch.linalg.eigvalsh(gram(wide)).flip(0).clamp(min=0).sqrt()
        return Spectrum(values, energy, 0.0, True)
    kept = sketched(matrix, sketch, seed)
    return Spectrum(kept, energy, max(0.0, energy - float(kept.square().sum())), False)


def gram(wide: Tensor, columns: int = 2048) -> Tensor:
    """`M M'` in float64, block of columns by block of columns."""
    total = torch.zeros(wide.shape[0], wide.shape[0], dtype=torch.float64)
    for block in wide.split(columns, dim=1):
        part = block.double()
        total.addmm_(part, part.T)
    return total


def sketched(matrix: Tensor, size: int, seed: int, rounds: int = 2) -> Tensor:
    """Singular values of the matrix projected on a subspace of dimension `size`; lower bounds, descending."""
    generator = torch.Generator().manual_seed(seed)
    Q = torch.linalg.qr(
        matrix @ torch.randn(matrix.shape[1], size, generator=generator, dtype=matrix.dtype)
    ).Q
    for _ in range(rounds):
        Q = torch.linalg.qr(matrix @ torch.linalg.qr(matrix.T @ Q).Q).Q
    return torch.linalg.eigvalsh(gram(Q.T @ matrix)).flip(0).clamp(min=0).sqrt()


def spectral_norm(matrix: Tensor, exact_side: int = EXACT_SIDE) -> float:
    """Largest singular value; from a small sketch, hence from below, where the matrix is large."""
    if min(matrix.shape) <= min(exact_side, _DIRECT_SIDE):
        return float(torch.linalg.matrix_norm(matrix.double(), ord=2))
    return float(sketched(matrix, 8, 0, rounds=6)[0])
