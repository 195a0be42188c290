"""How large the image of LoRA is: its dimension, and how near Gaussian targets lie to it.

Source: the dimension is the classical one of matrices of rank r; the law of the smallest singular value of a Gaussian
n x (n + 1) matrix is Edelman's (Eigenvalues and condition numbers of random matrices, 1988); see the claims of
`thm_1_manifold`. Sizes are integers.
"""

from __future__ import annotations

from math import exp
from typing import Any


def dimension(m: int, n: int, r: int) -> int:
    """R (m + n - r), the dimension of the m x n matrices of rank r <= min(m, n)."""
    return r * (m + n - r)


def derivative_rank(m: int, n: int, rank_B: int, rank_A: int) -> int:
    """Rank of (X, Y) -> X A + B Y, the derivative of B A: m rank A + n rank B - rank A rank B.

    X A runs over a space of dimension m rank A and B Y over one of dimension n rank B; their intersection holds the
    matrices with rows in A's row space and columns in B's column space.
    """
    return m * rank_A + n * rank_B - rank_A * rank_B


def mean_distance2(n: int) -> Any:
    """Mean squared distance of a standard Gaussian n x (n + 1) target from rank n - 1: 2 / n."""
    return 2 / n


def share_within(n: int, distance: Any) -> Any:
    """Probability that such a target lies within a distance of rank n - 1: 1 - exp(-n distance^2 / 2)."""
    return 1 - exp(-n * distance * distance / 2)


def reachable(inputs: int, rows: int, r: int) -> bool:
    """Whether every change of a layer with that many outputs is reached by rank r on so many generic inputs."""
    return min(inputs, rows) <= r


def head_dimension(d: int, h: int, tokens: int, inputs: int) -> int:
    """Dimension of what full tuning of an attention head reaches near generic weights, on sequences of some tokens.

    The outputs lie in the space of Wo's h columns, which d - h numbers each turn: h (d - h) + h tokens inputs, until the
    4 h d weights less the 2 h^2 that two changes of basis move without effect are used up. Found in simulation for
    tokens >= h; not proved.
    """
    return min(h * (d - h) + h * tokens * inputs, 4 * h * d - 2 * h * h)


def head_dimension_lora(d: int, h: int, r: int) -> int:
    """The most that LoRA on its four matrices reaches: their dimensions less r^2 for each of the two changes of basis.

    A change of basis I + c B_q B_k' between queries and keys, and likewise one between values and outputs, stays within
    the factors; `thm_1_functions` rests on the larger bound without that.
    """
    return 4 * dimension(h, d, r) - 2 * r * r


def hidden_dimension(d: int, h: int, q: int, inputs: int) -> int:
    """Dimension for one hidden layer of a smooth activation: outputs, or all weights. Found in simulation; not proved."""
    return min(q * inputs, h * (d + q))


def hidden_dimension_lora(d: int, h: int, q: int, r: int) -> int:
    """The most that LoRA on its two matrices reaches."""
    return dimension(h, d, r) + dimension(q, h, r)
