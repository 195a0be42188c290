"""Classical inequalities between singular values, as non-negative terms for proofs by words.

Each function states one inequality that holds for all real matrices of fitting shapes and returns its right
minus its left side; the one-line reason stands in its docstring. They are trusted like the kit of words: what
they need of a matrix (that it is a partial isometry, a product) is checked by rewriting, never assumed.
Notation: |.| spectral norm, |.|_F Frobenius norm, s_1 >= s_2 >= ... singular values, (.)_+ positive part.
Standard library only.
"""

from __future__ import annotations

from typing import Any

from theory.kits.words import _EARNED, NonNegative, ProofFails, Words
from theory.protocol import Mat


def _require_partial_isometry(k: Words, Z: Mat) -> None:
    """Z Z' Z = Z, so |Z| is 1, or 0 for Z = 0."""
    if k.normal(Z @ Z.T @ Z - Z).data:
        msg = "a factor is not seen to be a partial isometry by rewriting"
        raise ProofFails(msg)


def norm(k: Words, A: Mat) -> NonNegative:
    """|A|, a norm."""
    return NonNegative(k.op(A), "a norm", _EARNED)


def rank(k: Words, Z: Mat) -> NonNegative:
    """The rank of Z Z', a number of dimensions."""
    return NonNegative(k.rank(Z @ Z.T), "a rank", _EARNED)


def positive_part(k: Words, a: Any) -> NonNegative:
    """(a)_+, by definition."""
    return NonNegative(k.pos_part(a), "a positive part", _EARNED)


def submultiplicative_right(k: Words, Z: Mat, A: Mat) -> NonNegative:
    """|Z|_F^2 |A|^2 - |Z A|_F^2: every row of Z A is at most |A| times as long as that of Z."""
    return NonNegative(k.op(A) * k.op(A) * k.fro2(Z) - k.fro2(Z @ A), "|ZA|_F <= |Z|_F |A|", _EARNED)


def contraction(k: Words, left: Mat, right: Mat) -> NonNegative:
    """1 - |left right| for partial isometries, whose norms are at most 1."""
    for Z in (left, right):
        _require_partial_isometry(k, Z)
    return NonNegative(k.num(1) - k.op(left @ right), "|VW| <= 1 for partial isometries", _EARNED)


def between_contractions(k: Words, left: Mat, K: Mat, right: Mat) -> NonNegative:
    """|K|^2 - |left K right|^2 for partial isometries left and right."""
    for Z in (left, right):
        _require_partial_isometry(k, Z)
    A = left @ K @ right
    return NonNegative(k.op(K) * k.op(K) - k.op(A) * k.op(A), "|VKW| <= |K| for partial isometries", _EARNED)


def tail_by_norm(k: Words, A: Mat, r: Any) -> NonNegative:
    """(rank A - r)_+ |A|^2 - sum_{i>r} s_i(A)^2: so many terms, each at most |A|^2."""
    count = k.pos_part(k.rank(A) - r)
    return NonNegative(count * (k.op(A) * k.op(A)) - k.tail2(A, r), "(rank - r)_+ tail values", _EARNED)


def tail_share(k: Words, left: Mat, Z: Mat, right: Mat, r: Any) -> NonNegative:
    """(R - r)_+ |A|_F^2 - R sum_{i>r} s_i(A)^2 for A = left Z right and R = rank(Z Z').

    rank A <= rank Z = R, and the R - r smallest of the R squares s_1^2 >= ... >= s_R^2 have at most the mean
    of all; for r >= R both sides vanish.
    """
    A, R = left @ Z @ right, k.rank(Z @ Z.T)
    value = k.pos_part(R - r) * k.fro2(A) - R * k.tail2(A, r)
    return NonNegative(value, "the tail holds at most its share", _EARNED)


def rank_of_product(k: Words, left: Mat, Z: Mat, right: Mat, r: Any) -> NonNegative:
    """(rank(Z Z') - r)_+ - (rank(left Z right) - r)_+: a product has no larger rank."""
    inner, outer = k.rank(Z @ Z.T), k.rank(left @ Z @ right)
    return NonNegative(k.pos_part(inner - r) - k.pos_part(outer - r), "rank of a product", _EARNED)


def condition_number(k: Words, Z: Mat) -> NonNegative:
    """(kap(Z Z')^2 - 1) |Z|_F^2: kap >= 1 unless Z = 0, where both factors make it 0."""
    kappa = k.kap(Z @ Z.T)
    return NonNegative((kappa * kappa - 1) * k.fro2(Z), "kap >= 1", _EARNED)


def flatness(k: Words, Z: Mat) -> NonNegative:
    """kap(Z Z')^2 |Z|_F^2 - rank(Z Z') |Z|^2.

    |Z|_F^2 is a sum of rank Z squares, each at least |Z|^2 / kap(Z)^2, and kap(Z Z') = kap(Z)^2 >= kap(Z)
    unless Z = 0.
    """
    kappa = k.kap(Z @ Z.T)
    value = kappa * kappa * k.fro2(Z) - k.rank(Z @ Z.T) * (k.op(Z) * k.op(Z))
    return NonNegative(value, "rank |Z|^2 <= kap(ZZ')^2 |Z|_F^2", _EARNED)
