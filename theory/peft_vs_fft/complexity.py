"""Rademacher complexities of linear classes on given inputs and in the mean over Gaussian ones.

Source: ours, after Theorem 5 (second-hand); see the claim `thm_5_rademacher`. The class is {x -> w'x : |w| <= 1}, with w
on all coordinates (full tuning) or on the tuned ones (PEFT). On inputs x_1, ..., x_N its complexity is the mean over all
signs of |sum e_i x_i| / N, since the best w points along that sum.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from math import exp, lgamma, sqrt


def signs(N: int) -> Iterator[tuple[int, ...]]:
    """All signs with the first one +1; the others give the same lengths."""
    return ((1, *rest) for rest in product((-1, 1), repeat=N - 1))


def mean_length(d: int) -> float:
    """Mean length of a standard Gaussian vector in R^d: sqrt(2) Gamma((d + 1) / 2) / Gamma(d / 2)."""
    return sqrt(2) * exp(lgamma((d + 1) / 2) - lgamma(d / 2))


def gaussian(d: int, N: int) -> float:
    """Mean complexity over N standard Gaussian inputs: for any signs the sum is Gaussian of covariance N I."""
    return mean_length(d) / sqrt(N)


def jensen(energy: float, N: int) -> float:
    """The bound sqrt(energy) / N, energy = sum |x_i|^2; Khintchine: the complexity is at least its part 1 / sqrt(2)."""
    return sqrt(energy) / N
