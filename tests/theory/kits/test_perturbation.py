"""The perturbation inequalities that proofs by words may use are valid on random matrices, and ask for what they need."""

from __future__ import annotations

import numpy as np
import pytest

from theory.kits.perturbation import norm_of_product, relative_roots, root_lipschitz, stretched_tail
from theory.kits.words import ProofFails, Words

RNG = np.random.default_rng(3)
ROUNDING = 1e-9


def op(A):
    return np.linalg.norm(A, 2)


def best(A, r):
    u, s, v = np.linalg.svd(A)
    return u[:, :r] * s[:r] @ v[:r]


def random_pairs(count=300):
    for _ in range(count):
        m, n = RNG.integers(1, 5, 2)
        A = RNG.standard_normal((m, n)) * 10.0 ** RNG.uniform(-2, 1)
        yield (
            A,
            A + RNG.standard_normal((m, n)) * 10.0 ** RNG.uniform(-3, 1),
            int(RNG.integers(1, min(m, n) + 1)),
        )


def root(S):
    w, v = np.linalg.eigh(S)
    return v * np.sqrt(np.maximum(w, 0)) @ v.T


def definite(n):
    C = RNG.standard_normal((n, n))
    return C @ C.T * 10.0 ** RNG.uniform(-2, 1)


def test_stretched_tail_holds_numerically() -> None:
    for A, B, r in random_pairs():
        s = np.append(np.linalg.svd(A, compute_uv=False), 0.0)
        X, Y = best(A, r), best(B, r)
        gap = s[r] * np.sum((Y - X) ** 2) - 2 * s[r - 1] * np.sum(Y * (A - X))
        assert gap >= -ROUNDING * (1 + s[0] * np.sum(Y**2))


def test_stretched_tail_is_sharp_where_the_best_parts_jump() -> None:
    A, Y = np.diag([1.0, 0.99]), np.diag([0.0, 0.995])
    X = best(A, 1)
    assert 0.99 * np.sum((Y - X) ** 2) <= 1.01 * 2 * np.sum(Y * (A - X))


def test_rank_square_holds_numerically() -> None:
    for A, B, r in random_pairs():
        Z, E = best(B, r) - best(A, r), RNG.standard_normal(A.shape)
        a, b = RNG.standard_normal(2)
        assert a * a * np.sum(Z**2) + 2 * r * b * b * op(E) ** 2 - 2 * a * b * np.sum(
            Z * E
        ) >= -ROUNDING * np.sum(Z**2)


def test_root_lipschitz_holds_numerically() -> None:
    for _ in range(300):
        n = int(RNG.integers(1, 5))
        A, B = definite(n), definite(n)
        low = np.linalg.eigvalsh(A)[0]
        assert op(B @ B - A @ A) >= low * op(B - A) * (1 - ROUNDING)


def test_relative_roots_holds_numerically() -> None:
    for _ in range(300):
        n = int(RNG.integers(1, 5))
        X, w = definite(n) + 1e-3 * np.eye(n), RNG.uniform(0, 1)
        inner = np.linalg.qr(RNG.standard_normal((n, n)))[0]
        factors = RNG.uniform((1 - w) ** 2, (1 + w) ** 2, n)
        S = X @ X
        R = np.linalg.cholesky(S)
        Y = root(R @ inner @ np.diag(factors) @ inner.T @ R.T)
        assert op(Y - X) <= w * op(X) + 1e-6 * op(X)


def letters(k: Words):
    return k.letter("A", "n", "n", symmetric=True), k.letter("B", "n", "n", symmetric=True)


def test_the_norm_does_not_see_the_sign() -> None:
    k = Words()
    A, B = letters(k)
    assert not (k.op(A - B) - k.op(B - A)).terms
    assert (k.op(A + B) - k.op(A - B)).terms


def test_roots_ask_for_the_hypothesis_that_they_need() -> None:
    k = Words()
    A, B = letters(k)
    k.given("A psd", k.psd(A))
    k.given("B psd", k.psd(B))
    with pytest.raises(ProofFails, match="does not say that the matrix needed is psd"):
        root_lipschitz(k, A, B, k.number("low"), "A psd", "B psd")
    with pytest.raises(ProofFails, match="'0 <= w'"):
        relative_roots(k, A, B, k.number("w"), "below", "above", ("A psd", "B psd"))


def test_relative_roots_checks_which_number_is_bounded() -> None:
    k = Words()
    A, B = letters(k)
    k.given("0 <= w", k.le(k.num(0), k.number("v")))
    k.given("w <= 1", k.le(k.number("v"), k.num(1)))
    with pytest.raises(ProofFails, match="another number"):
        relative_roots(k, A, B, k.number("w"), "below", "above", ("A psd", "B psd"))


def test_the_stretched_tail_is_about_a_best_part() -> None:
    k = Words()
    A, B = letters(k)

    with pytest.raises(ProofFails, match="not the best rank-r part"):
        stretched_tail(k, A, _Rank("r"), B, B)


class _Rank(str):
    __slots__ = ()

    def __add__(self, other):
        return f"{self} + {other}"


def test_the_product_rule_names_the_product() -> None:
    k = Words()
    A, B = letters(k)
    assert not (norm_of_product(k, A, B).value - (k.op(A) * k.op(B) - k.op(A @ B))).terms
