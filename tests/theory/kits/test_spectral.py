"""Every inequality of `theory.kits.spectral` holds for numbers, and refuses what it cannot see by rewriting."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from theory.kits import spectral
from theory.kits.floats import Floats
from theory.kits.words import ProofFails, Words
from theory.protocol import Instance, Kit, Mat

BATCH = 300


class Numbers(Floats):
    """Floats in place of words: the same functions then return right minus left as numbers."""

    def normal(self, A: Mat) -> Any:
        """Rewriting has nothing to say about numbers; the tests hand in true partial isometries."""
        return SimpleNamespace(data=())


def matrices(k: Floats, rng: Any, rows: int, columns: int) -> Mat:
    """Random matrices of every rank, zero and flat spectra among them."""
    A = rng.standard_normal((BATCH, rows, columns)) * 10.0 ** rng.integers(-2, 3, (BATCH, 1, 1))
    small = min(rows, columns)
    for i in range(BATCH):
        U, values, Vt = np.linalg.svd(A[i], full_matrices=False)
        rank = i % (small + 1)
        kept = np.where(np.arange(small) < rank, values if i % 3 else values[0], 0.0)
        A[i] = (U * kept) @ Vt
    return k.wrap(A)


def isometries(k: Floats, rng: Any, rows: int, columns: int) -> Mat:
    """Random partial isometries."""
    A = matrices(k, rng, rows, columns).data
    out = np.zeros_like(A)
    for i in range(BATCH):
        U, values, Vt = np.linalg.svd(A[i], full_matrices=False)
        out[i] = (U * (values > 1e-9 * max(values[0], 1e-12))) @ Vt
    return k.wrap(out)


@pytest.mark.parametrize("r", [1, 2, 3, 5])
def test_every_inequality_holds_for_numbers(r: int) -> None:
    rng, k = np.random.default_rng(r), Numbers()
    A, B, Z = matrices(k, rng, 4, 3), matrices(k, rng, 3, 4), matrices(k, rng, 3, 3)
    V, W = isometries(k, rng, 4, 3), isometries(k, rng, 3, 5)
    terms = {
        "norm": spectral.norm(k, A),
        "a rank": spectral.rank(k, A),
        "positive part": spectral.positive_part(k, k.fro2(A) - k.fro2(B)),
        "submultiplicative": spectral.submultiplicative_right(k, A, B),
        "contraction": spectral.contraction(k, V, W),
        "between": spectral.between_contractions(k, V, Z, W),
        "tail by norm": spectral.tail_by_norm(k, A, r),
        "tail share": spectral.tail_share(k, A, Z, B, r),
        "rank": spectral.rank_of_product(k, A, Z, B, r),
        "condition": spectral.condition_number(k, A),
        "flat": spectral.flatness(k, A),
    }
    for name, term in terms.items():
        scale = 1e-9 * (1 + np.abs(term.value))
        sizes = [k.fro2(M) for M in (A, B, Z)]
        scale = scale + 1e-9 * (1 + sizes[0]) * (1 + sizes[1]) * (1 + sizes[2])
        if name not in ("condition", "flat"):
            assert (term.value >= -scale).all(), name
        else:
            assert (term.value >= -1e-7 * (1 + np.abs(term.value))).all(), name


def letters(k: Words) -> Instance:
    return Instance(Z=k.letter("Z", "m", "n"), B=k.letter("B", "n", "p"))


def test_a_matrix_that_is_no_partial_isometry_is_refused() -> None:
    k = Words()
    x = letters(k)
    with pytest.raises(ProofFails, match="partial isometry"):
        spectral.contraction(k, x.Z, k.proj(x.B))


def test_projectors_are_contractions() -> None:
    def statement(k: Kit, x: Instance) -> None:
        k.claim("|P Q| <= 1", k.le(k.op(k.proj(x.Z.T) @ k.proj(x.B)), k.num(1)))

    def proof(k: Any, x: Instance) -> dict[str, list[Any]]:
        return {"|P Q| <= 1": [spectral.contraction(k, k.proj(x.Z.T), k.proj(x.B))]}

    k = Words()
    assert "partial isometries" in k.prove(statement, letters(k), proof)["|P Q| <= 1"]


def root_rules(k: Kit, x: Instance) -> None:
    """Consequences of R = (Z Z')^(1/2) and of P = Z Z^+."""
    R = k.sqrtm(x.Z @ x.S @ x.S @ x.Z.T, "R")
    seen = x.Z @ x.S
    k.claim("R R^+ Z S = Z S", k.eq(R @ k.pinv(R) @ seen, seen))
    k.claim("(Z S)^+ is a pseudo-inverse", k.eq(seen @ k.pinv(seen) @ seen, seen))
    k.claim("the other three", k.eq(k.pinv(seen) @ seen @ k.pinv(seen), k.pinv(seen)))
    k.claim("symmetric", k.sym(k.pinv(seen) @ seen))
    k.claim("(R^2)^+ = (R^+)^2", k.eq(k.pinv(R @ R), k.pinv(R) @ k.pinv(R)))
    k.claim("Z'^+ = Z^+'", k.eq(k.pinv(x.Z.T), k.pinv(x.Z).T))
    k.claim("Z Z^+ = P", k.eq(x.Z @ k.pinv(x.Z), k.proj(x.Z)))


def test_the_rules_of_roots_and_projectors_hold_for_words_and_for_numbers() -> None:
    k = Words()
    S = k.letter("S", "n", "n", symmetric=True)

    def stated(k: Kit, x: Instance) -> None:
        k.given("S psd", k.psd(x.S))
        root_rules(k, x)

    assert len(k.prove(stated, Instance(Z=k.letter("Z", "m", "n"), S=S), None)) == 7

    rng, f = np.random.default_rng(0), Floats()
    C = rng.standard_normal((BATCH, 3, 3))
    wide = f.wrap(
        rng.standard_normal((BATCH, 2, 3))
    )  # of full rank: the root of a singular matrix is inexact
    _, slack = f.run(root_rules, Instance(Z=wide, S=f.wrap(C @ np.swapaxes(C, 1, 2) + np.eye(3))))
    assert slack.min() > -1e-6


def test_a_projector_does_not_meet_matrices_of_another_height() -> None:
    k = Words()
    x = letters(k)
    assert k.proj(x.Z).shape == ("m", "m")
    assert k.proj(x.B).shape == ("n", "n")
