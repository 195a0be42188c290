"""Classical inequalities of perturbation theory, as non-negative terms for proofs by words.

Each function states one inequality that holds for all real matrices of fitting shapes and returns its right
minus its left side; the docstring says why it holds. Notation: |.| spectral norm, |.|_F Frobenius norm,
s_1 >= s_2 >= ... singular values. Standard library only.
"""

from __future__ import annotations

from typing import Any

from theory.kits.words import _EARNED, NonNegative, ProofFails, Words
from theory.protocol import Mat


def norm_of_product(k: Words, A: Mat, B: Mat) -> NonNegative:
    """|A| |B| - |A B|."""
    return NonNegative(k.op(A) * k.op(B) - k.op(A @ B), "|AB| <= |A| |B|", _EARNED)


def norm_of_sum(k: Words, A: Mat, B: Mat) -> NonNegative:
    """|A| + |B| - |A + B|."""
    return NonNegative(k.op(A) + k.op(B) - k.op(A + B), "|A + B| <= |A| + |B|", _EARNED)


def singular_value(k: Words, A: Mat, i: Any) -> NonNegative:
    """s_i(A)."""
    return NonNegative(k.sv(A, i), "a singular value", _EARNED)


def stretched_tail(k: Words, A: Mat, r: Any, Y: Mat, source: Mat) -> NonNegative:
    """s_{r+1} |Y - X|_F^2 - 2 s_r <Y, N> for X = SVD_r(A), N = A - X and Y = SVD_r(source).

    X stays a best rank-r part of X + c N for 0 <= c <= s_r / s_{r+1}, so for Y of rank at most r
    |X + c N - Y|_F >= |c N|_F, that is |Y - X|_F^2 >= 2 c <Y - X, N> = 2 c <Y, N>.
    """
    if k.normal(Y - k.svd_r(source, r, f"stretched {len(k._known)}")).data:
        msg = "Y is not the best rank-r part of the matrix named"
        raise ProofFails(msg)
    X = k.svd_r(A, r, f"kept {len(k._known)}")
    value = k.sv(A, r + 1) * k.fro2(Y - X) - 2 * (k.sv(A, r) * k.dot(Y, A - X))
    return NonNegative(value, "Eckart-Young for the stretched tail", _EARNED)


def rank_square(k: Words, a: Any, b: Any, r: Any, A: Mat, B: Mat, E: Mat) -> NonNegative:
    """a^2 |Z|_F^2 + 2 r b^2 |E|^2 - 2 a b <Z, E> for Z = SVD_r(B) - SVD_r(A), whose rank is at most 2 r.

    <Z, E> <= |Z|_* |E| <= sqrt(2 r) |Z|_F |E|, and a^2 u^2 + b^2 v^2 >= 2 |a b| u v.
    """
    Z = k.svd_r(B, r, f"one {len(k._known)}") - k.svd_r(A, r, f"other {len(k._known)}")
    size = k.op(E) * k.op(E)
    value = a * a * k.fro2(Z) + 2 * (k.number(str(r)) * (b * b * size)) - 2 * (a * b * k.dot(Z, E))
    return NonNegative(value, "<Z, E> <= sqrt(2r) |Z|_F |E|", _EARNED)


def root_lipschitz(k: Words, A: Mat, B: Mat, low: Any, above: str, psd: str) -> NonNegative:
    """|B^2 - A^2| - low |B - A| when the hypothesis `above` says A - low I psd and `psd` says B psd.

    B^2 - A^2 = B E + E A with E = B - A; at a unit eigenvector v of E for the eigenvalue +-|E| the form
    v'(B E + E A)v is +-|E| (v'Bv + v'Av), of size at least low |E|.
    """
    _require_psd(k, above, A - low * k.eye(A.shape[0]))
    _require_psd(k, psd, B)
    return NonNegative(k.op(B @ B - A @ A) - low * k.op(B - A), "roots: |B - A| low <= |B^2 - A^2|", _EARNED)


def top_share(k: Words, A: Mat, r: Any, p: Any) -> NonNegative:
    """P |SVD_r(A)|_F^2 - r |A|_F^2 for p = min(rows, columns) and 0 <= r <= p (static sizes).

    The r largest of p squares s_1^2 >= ... >= s_p^2 hold at least the share r / p of their sum.
    """
    best = k.svd_r(A, r, f"top {len(k._known)}")
    value = k.number(str(p)) * k.fro2(best) - k.number(str(r)) * k.fro2(A)
    return NonNegative(value, "the top r of p squares hold their share", _EARNED)


def relative_roots(
    k: Words, X: Mat, Y: Mat, w: Any, below: str, above: str, psd: tuple[str, str]
) -> NonNegative:
    """W |X| - |Y - X| when hypotheses say (1 - w)^2 X^2 <= Y^2 <= (1 + w)^2 X^2, X, Y psd and 0 <= w <= 1.

    The square root keeps the order of psd matrices (Loewner, Heinz), so -w X <= Y - X <= w X.

    Args:
        k: The kit.
        X: The reference.
        Y: The perturbed matrix.
        w: The relative size of the perturbation.
        below: Name of the hypothesis that Y^2 - (1 - w)^2 X^2 is psd; "0 <= w" and "w <= 1" must be named so.
        above: Name of the hypothesis that (1 + w)^2 X^2 - Y^2 is psd.
        psd: Names of the hypotheses that X and that Y is psd.
    """
    if (k.hypothesis("0 <= w").value - w).terms or (k.hypothesis("w <= 1").value - (1 - w)).terms:
        msg = "the hypotheses '0 <= w' and 'w <= 1' speak of another number"
        raise ProofFails(msg)
    shrunk, grown = (1 - w) * (1 - w), (1 + w) * (1 + w)
    _require_psd(k, below, Y @ Y - shrunk * (X @ X))
    _require_psd(k, above, grown * (X @ X) - Y @ Y)
    _require_psd(k, psd[0], X)
    _require_psd(k, psd[1], Y)
    return NonNegative(w * k.op(X) - k.op(Y - X), "square roots keep the order of psd matrices", _EARNED)


def _require_psd(k: Words, name: str, S: Mat) -> None:
    """The hypothesis of that name says that S is psd."""
    relation = dict(k.givens).get(name)
    if relation is None or relation.op != "psd" or k.normal(relation.args[0] - S).data:
        msg = f"the hypothesis {name!r} does not say that the matrix needed is psd"
        raise ProofFails(msg)


def eckart_young_product(k: Words, A: Mat, r: Any, B: Mat, C: Mat) -> NonNegative:
    """|A - B C|_F^2 - |A - SVD_r(A)|_F^2 where B has r columns or C has r rows: the product has rank at most r."""
    if str(B.shape[1]) != str(r) or B.shape[1] != C.shape[0]:
        msg = f"the inner size of the product is {B.shape[1]}, not {r}"
        raise ProofFails(msg)
    best = k.svd_r(A, r, f"product {len(k._known)}")
    return NonNegative(k.fro2(A - B @ C) - k.fro2(A - best), "Eckart-Young for a product", _EARNED)


def descending(k: Words, A: Mat, i: Any, j: Any) -> NonNegative:
    """s_i(A) - s_j(A) for j the successor of i, written f"{i} + 1"."""
    if str(j) != f"{i} + 1":
        msg = f"{j} is not the successor of {i}"
        raise ProofFails(msg)
    return NonNegative(k.sv(A, i) - k.sv(A, j), "singular values descend", _EARNED)
