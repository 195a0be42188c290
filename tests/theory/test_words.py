"""The kit of words proves what is true for every size and cannot be talked into anything else."""

from __future__ import annotations

from fractions import Fraction

import pytest

from theory.kits.words import NonNegative, Poly, ProofFails, Words
from theory.protocol import Instance, NotHere


def letters(k: Words) -> Instance:
    return Instance(
        A=k.letter("A", "m", "n"), B=k.letter("B", "m", "n"), S=k.letter("S", "n", "n", symmetric=True)
    )


def test_the_four_penrose_equations_hold_for_a_letter() -> None:
    def statement(k, x):
        Y = k.pinv(x.A)
        k.claim("A Y A = A", k.eq(x.A @ Y @ x.A, x.A))
        k.claim("Y A Y = Y", k.eq(Y @ x.A @ Y, Y))
        k.claim("A Y symmetric", k.sym(x.A @ Y))
        k.claim("Y A symmetric", k.sym(Y @ x.A))
        k.claim("A' A Y = A'", k.eq(x.A.T @ x.A @ Y, x.A.T))

    k = Words()
    assert len(k.prove(statement, Instance(A=letters(k).A), None)) == 5


def test_a_false_identity_is_not_proved() -> None:
    def statement(k, x):
        k.claim("(A B')+ = B'+ A+", k.eq(k.pinv(x.A @ x.B.T), k.pinv(x.B.T) @ k.pinv(x.A)))

    k = Words()
    x = letters(k)
    with pytest.raises(ProofFails):
        k.prove(statement, Instance(A=x.A, B=x.B), None)


def test_the_trace_of_a_reduced_word_has_the_size_that_is_left() -> None:
    """tr(U U') = tr(U' U) = s, not m: the identity that remains is the small one."""
    k = Words()
    U = k.cols(k.eye("m"), "S")
    assert str(k.tr(U @ U.T)) == str(k.tr(U.T @ U)) == "1*dim |S|"


def test_the_trace_is_cyclic_and_blind_to_transposition() -> None:
    k = Words()
    x = letters(k)
    assert str(k.tr(x.A @ x.S @ x.B.T)) == str(k.tr(x.B.T @ x.A @ x.S)) == str(k.tr(x.B @ x.S @ x.A.T))


def test_projectors_nest_when_one_range_contains_the_other() -> None:
    k = Words()
    H = k.letter("H", "q", "m")
    inner = k.proj(H @ k.cols(k.eye("m"), "S"))
    outer = k.proj(H)
    assert (outer @ inner - inner).data == {}
    assert (inner @ outer - inner).data == {}


def test_projectors_onto_unrelated_spaces_do_not_nest() -> None:
    k = Words()
    x = letters(k)
    assert (k.proj(x.A) @ k.proj(x.B) - k.proj(x.B)).data


def test_a_symmetric_letter_needs_a_hypothesis_that_says_so() -> None:
    def silent(k, x):
        k.claim("S = S'", k.eq(x.S, x.S.T))

    def stated(k, x):
        k.given("S psd", k.psd(x.S))
        silent(k, x)

    k = Words()
    with pytest.raises(ProofFails, match="declared symmetric"):
        k.prove(silent, Instance(S=letters(k).S), None)
    k = Words()
    assert k.prove(stated, Instance(S=letters(k).S), None)


def test_an_instance_of_words_must_consist_of_plain_letters() -> None:
    def statement(k, x):
        k.claim("A = B", k.eq(x.A, x.B))

    k = Words()
    A = k.letter("A", "m", "n")
    with pytest.raises(ProofFails, match="letter of its own"):
        k.prove(statement, Instance(A=A, B=A), None)


def test_nobody_else_can_make_a_non_negative_term() -> None:
    with pytest.raises(ProofFails, match="method of the kit"):
        NonNegative(Poly.of(-1), "trust me")


def test_a_square_with_a_negative_factor_is_refused() -> None:
    k = Words()
    with pytest.raises(ProofFails, match="negative factor"):
        k.square(letters(k).A, Fraction(-1))


def test_an_inequality_needs_terms_that_add_up() -> None:
    def statement(k, x):
        k.claim("2 <A, B> <= |A|^2 + |B|^2", k.le(2 * k.dot(x.A, x.B), k.fro2(x.A) + k.fro2(x.B)))

    def proof(k, x):
        return {"2 <A, B> <= |A|^2 + |B|^2": [k.square(x.A - x.B)]}

    k = Words()
    assert k.prove(statement, Instance(A=letters(k).A, B=letters(k).B), proof)
    k = Words()
    with pytest.raises(ProofFails, match="right - left"):
        k.prove(statement, Instance(A=letters(k).A, B=letters(k).B), None)


def test_eckart_young_bounds_every_matrix_of_rank_r() -> None:
    def statement(k, x):
        best, other = k.svd_r(x.A, "r", "best"), k.svd_r(x.B, "r", "other")
        k.claim("best", k.le(k.fro2(x.A - best), k.fro2(x.A - other)))

    def proof(k, x):
        return {"best": [k.eckart_young(x.A, "r", k.eye("m"), x.B, k.eye("n"))]}

    k = Words()
    assert k.prove(statement, Instance(A=letters(k).A, B=letters(k).B), proof)


def test_roots_square_to_what_they_are_the_root_of() -> None:
    k = Words()
    x = letters(k)
    root = k.sqrt(k.fro2(x.A))
    assert str(root * root) == str(k.fro2(x.A))


def test_the_pseudo_inverse_of_a_sum_is_refused_rather_than_guessed() -> None:
    k = Words()
    x = letters(k)
    with pytest.raises(NotHere):
        k.pinv(x.A + x.B)
