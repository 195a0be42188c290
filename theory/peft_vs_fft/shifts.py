"""What shifts of the gradient, the weights and the inputs cost PEFT and full tuning; every formula once.

Source: ours, after Theorem 4 (second-hand); see the claims of `thm_4`. Symbols: H (d x d) positive definite Hessian,
P (d x k) a basis of the PEFT subspace, eps (d x 1) a shift, g (d x 1) the gradient of the full loss at PEFT's
optimum, C = H^-1 - P (P'HP)^+ P'.
"""

from __future__ import annotations

from typing import Any

from theory.protocol import Kit, Mat


def unanswered(k: Kit, H: Mat, P: Mat) -> Mat:
    """C = H^-1 - P (P'HP)^+ P', the part of H^-1 that the subspace cannot use."""
    return k.inv(H) - P @ k.pinv(P.T @ H @ P) @ P.T


def reoptimised_gap(k: Kit, H: Mat, P: Mat, eps: Mat) -> Any:
    """PEFT's minus full tuning's loss change when both re-optimise after a gradient shift: (C eps)' H (C eps) / 2."""
    C = unanswered(k, H, P)
    return k.tr((C @ eps).T @ H @ (C @ eps)) / 2


def mean_gap(k: Kit, H: Mat, P: Mat, variance: Any) -> Any:
    """Its mean over shifts of mean zero and covariance variance I: variance tr(C) / 2, since C H C = C."""
    return variance * k.tr(unanswered(k, H, P)) / 2


def frozen_change(k: Kit, H: Mat, g: Mat, eps: Mat) -> Any:
    """Loss change of a frozen model at gradient g under a shift of its weights: g' eps + eps' H eps / 2."""
    return k.tr(g.T @ eps) + k.tr(eps.T @ H @ eps) / 2


def mean_frozen(k: Kit, H: Mat, variance: Any) -> Any:
    """Its mean over shifts of mean zero and covariance variance I: the gradient does not enter."""
    return variance * k.tr(H) / 2


def worst_frozen(values: Any, g: Any, radius: Any, total: Any, largest: Any, root: Any) -> Any:
    """The largest frozen change over |eps| = radius, by its dual.

    The largest of g'e + e'He/2 on the sphere is the smallest over mu > h_max of
    (mu radius^2 + sum g_i^2 / (mu - h_i)) / 2; the derivative in mu grows, and its zero is found by bisection.

    Args:
        values: Eigenvalues of H, in the last axis.
        g: The gradient in the eigenbasis.
        radius: Length of the shifts, positive.
        total: Sum over the last axis, which is kept.
        largest: Maximum over the last axis, which is kept.
        root: Square root.
    """
    low = largest(values) + 0 * total(g)
    high = low + root(total(g * g)) / radius
    for _ in range(200):
        middle = (low + high) / 2
        gap = middle - values
        slope = radius * radius - total(g * g / (gap * gap + (gap == 0) * 1e300))
        low, high = low + (slope < 0) * (middle - low), high + (slope >= 0) * (middle - high)
    gap = high - values
    gap = gap + (gap == 0) * 1e-300
    return (high * radius * radius + total(g * g / gap)) / 2


def noise_cost(k: Kit, w: Mat, variance: Any) -> Any:
    """What input noise of covariance variance I adds to the mean squared error of weights w: variance |w|^2."""
    return variance * k.fro2(w)
