"""Algorithms on quadratics: the worst starting point in closed form.

For f(w) = w'Qw/2 and an algorithm whose iterates are linear in the start, w_t = Phi_t w_0, any sum of squared
quantities of the iterates is a quadratic form w_0' S w_0. Its largest ratio to w_0' G w_0 is a generalised
eigenvalue: a search over starts is replaced by one eigenproblem. Batched; for use as `Setting.inner`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from theory.protocol import Instance, Kit, Mat

Array = Any
Measure = Callable[[Kit, Instance, Mat], list[Mat]]


def worst_start(S: Array, G: Array, floor: float = 1e-10) -> tuple[Array, Array]:
    """The largest w'Sw / w'Gw over the range of G, and a w that attains it.

    Args:
        S: Symmetric, (batch, n, n).
        G: Symmetric psd, (batch, n, n).
        floor: Eigenvalues of G below this share of its largest count as zero; their directions are left out.

    Returns:
        Ratios (batch,) and starts (batch, n).
    """
    values, V = np.linalg.eigh((G + np.swapaxes(G, 1, 2)) / 2)
    kept = values > floor * np.maximum(values[:, -1:], 1e-300)
    W = V * np.where(kept, 1 / np.sqrt(np.where(kept, values, 1.0)), 0.0)[:, None]
    form = np.swapaxes(W, 1, 2) @ ((S + np.swapaxes(S, 1, 2)) / 2) @ W
    top, U = np.linalg.eigh(form)
    return top[:, -1], (W @ U[:, :, -1:])[:, :, 0]


def inner(start: str, left: Measure, right: Measure) -> Callable[[Kit, Instance], Instance]:
    """An inner maximisation for `Setting.inner`: replaces a start by the one with the worst ratio.

    Args:
        start: Name of the start in the instance, an n x 1 matrix.
        left: (kit, instance, W0) -> matrices L_i linear in the n x m matrix of starts W0; the left side of the
            conclusion is the sum of |L_i w_0|^2.
        right: The same for the right side.
    """

    def solve(k: Kit, x: Instance) -> Instance:
        n = x[start].shape[0]
        identity = k.eye(n)
        S, G = (
            sum(np.swapaxes(L.data, 1, 2) @ L.data for L in side(k, x, identity)) for side in (left, right)
        )
        batch = max(len(S), len(G))
        _, w = worst_start(np.broadcast_to(S, (batch, n, n)), np.broadcast_to(G, (batch, n, n)))
        return Instance({**x, start: Mat(k, w[:, :, None], (n, 1))})

    return solve
