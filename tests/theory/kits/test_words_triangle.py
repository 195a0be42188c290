"""The triangle inequality that proofs in words may use: what it says, and that it holds in numbers."""

from __future__ import annotations

import numpy as np

from theory.kits.words import NonNegative, Words


def test_triangle_is_a_non_negative_scalar_of_the_three_norms() -> None:
    k = Words()
    A, B = k.letter("A", "m", "n"), k.letter("B", "m", "n")
    term = k.triangle(A, B)
    assert isinstance(term, NonNegative)
    assert not (term.value - (k.fro(A) + k.fro(B) - k.fro(A + B))).terms


def test_triangle_of_a_difference_names_the_same_norms_as_a_statement_does() -> None:
    k = Words()
    A, B = k.letter("A", "m", "n"), k.letter("B", "m", "n")
    term = k.triangle(A - B, B)
    assert not (term.value - (k.fro(A - B) + k.fro(B) - k.fro(A))).terms


def test_the_inequality_holds_in_numbers() -> None:
    rng = np.random.default_rng(0)
    A, B = rng.standard_normal((2, 500, 3, 4))
    A[:100] = -B[:100] * rng.random((100, 1, 1))
    left = np.linalg.norm(A + B, axis=(1, 2))
    assert np.all(left <= np.linalg.norm(A, axis=(1, 2)) + np.linalg.norm(B, axis=(1, 2)) + 1e-12)
