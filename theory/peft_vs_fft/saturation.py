"""How much a rank or a number of coordinates can gain, known before training.

Source: ours, after Theorem 3 (second-hand); see the claims of `thm_3`. The loss is |Ra (X - M) Rb|_F^2 with invertible
Ra (m x m) and Rb (n x n), roots of the Hessian's Kronecker factors; E(r) is its smallest value over X of rank r.
"""

from __future__ import annotations

from typing import Any

from theory.protocol import Kit, Mat


def best_loss(k: Kit, Ra: Mat, M: Mat, Rb: Mat, r: int) -> Any:
    """E(r): the energy of the whitened target beyond its r largest singular values."""
    return k.tail2(Ra @ M @ Rb, r)


def critical_rank(losses: list[Any], share: Any) -> int:
    """The first r with E(r) <= share E(0), from E(0), E(1), ... down to 0."""
    return next(r for r, value in enumerate(losses) if value <= share * losses[0])


def near_kronecker(loss: Any, distance: Any) -> tuple[Any, Any]:
    """Bounds of E(r) when (1 - distance) H <= H' <= (1 + distance) H and E(r) = loss for the Hessian H.

    Both inequalities hold for every X, hence for the smallest values; attained by H' = (1 +- distance) H.
    """
    return (1 - distance) * loss, (1 + distance) * loss


def coordinate_gains(k: Kit, gradient: list[Any], curvature: list[Any]) -> list[Any]:
    """Gains g_i^2 / (2 h_i) of the coordinates of a diagonal quadratic at zero; the best r hold the r largest."""
    return [k.sq(g) / (2 * h) for g, h in zip(gradient, curvature, strict=True)]
