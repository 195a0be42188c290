"""Which finite data belong to a smooth loss: the exact condition, and the loss itself.

Points W_i with gradients G_i and values f_i (i = 0, ..., N) belong to a differentiable loss on the whole space with
1-Lipschitz gradient if and only if for all i, j

    f_i >= f_j + <G_i + G_j, W_i - W_j> / 2 + |G_i - G_j|^2 / 4 - |W_i - W_j|^2 / 4,

and then there is one whose infimum is min_i (f_i - |G_i|^2 / 2), the highest that such a loss can have.
Source: Taylor, Hendrickx, Glineur, "Smooth strongly convex interpolation", Mathematical Programming 161 (2017),
Theorem 4; Drori, Shamir, "The complexity of finding stationary points with stochastic gradient descent" (2020).

The loss in our words, so that nothing rests on the citation: put H_i = G_i + W_i, F_i = f_i + |W_i|^2 / 2,
c_i = W_i - H_i / 2, e_i = F_i - |H_i|^2 / 4 and

    F(w) = min over weights a of |w - sum_i a_i c_i|^2 + sum_i a_i e_i,      loss(w) = F(w) - |w|^2 / 2.

F is convex (a minimum over part of the variables of a jointly convex function) and 2-smooth (an infimal convolution
with |.|^2), so the loss is 1-smooth. Weight 1 on j gives F(W_j) <= F_j; bounding the square from below by its
tangent at H_j / 2 turns F(W_j) >= F_j into the condition above, for every i. The quadratic |w - c_j|^2 + e_j lies
above F and touches it at W_j, so the gradient there is H_j, and that of the loss G_j. Finally
|w - c|^2 - |w|^2 / 2 = |w - 2 c|^2 / 2 - |c|^2 with |c|^2 <= sum a_i |c_i|^2, hence
loss >= min_i (e_i - |c_i|^2) = min_i (f_i - |G_i|^2 / 2), attained at W_i - G_i for the i of the minimum.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from theory.protocol import Kit, Mat, Relation


def smooth(k: Kit, W: Sequence[Mat], G: Sequence[Mat], f: Sequence[Any]) -> Relation:
    """The condition, for every ordered pair of data."""
    pairs = [(i, j) for i in range(len(W)) for j in range(len(W)) if i != j]
    return k.all_(*(k.le(_least(k, W, G, f, i, j), f[i]) for i, j in pairs))


def _least(k: Kit, W: Sequence[Mat], G: Sequence[Mat], f: Sequence[Any], i: int, j: int) -> Any:
    way, turn = W[i] - W[j], G[i] - G[j]
    return f[j] + (2 * k.dot(G[i] + G[j], way) + k.fro2(turn) - k.fro2(way)) / 4


def bounded_below(k: Kit, G: Sequence[Mat], f: Sequence[Any], infimum: Any) -> Relation:
    """The infimum of the loss may be taken as `infimum`: f_i - |G_i|^2 / 2 is nowhere below it."""
    return k.all_(*(k.le(infimum + k.fro2(g) / 2, value) for g, value in zip(G, f, strict=True)))
