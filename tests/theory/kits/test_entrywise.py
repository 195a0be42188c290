"""Entrywise and opaque functions: the same on every kit, and never more than is true of an unknown function."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from theory.kits.degrees import Degrees
from theory.kits.entrywise import entrywise, opaque
from theory.kits.exact import Exact
from theory.kits.floats import Floats
from theory.kits.words import Words
from theory.protocol import NotHere


def bend(a, b, c):
    return a * a + c * b


def other(a):
    return a


def whole(k, A):
    return A + A


def test_numbers_get_the_function() -> None:
    k = Exact()
    A, B = k.mat([[1, 2], [3, 4]]), k.mat([["1/2", 0], [1, 1]])
    shown = k.data(entrywise(k, "f", bend, (A, B), (k.num("2"),)))
    assert shown == [[Fraction(2), Fraction(4)], [Fraction(11), Fraction(18)]]
    f = Floats()
    batch = np.stack([np.ones((2, 2)), 2 * np.ones((2, 2))])
    values = entrywise(f, "f", bend, (f.mat(batch), f.mat(batch)), (np.array([1.0, 10.0]),)).data
    assert np.allclose(values[:, 0, 0], [2.0, 24.0])


def test_selecting_before_or_after_is_the_same() -> None:
    k = Words()
    A, B = k.letter("A", "n", "T"), k.letter("B", "n", "T")
    U = k.cols(k.eye("n"), "S")
    before = entrywise(k, "f", bend, (U.T @ A, U.T @ B), (k.number("c"),))
    after = U.T @ entrywise(k, "f", bend, (A, B), (k.number("c"),))
    assert not (before - after).data
    V = k.cols(k.eye("T"), "R")
    assert not (
        entrywise(k, "f", bend, (A @ V, B @ V), (k.number("c"),))
        - entrywise(k, "f", bend, (A, B), (k.number("c"),)) @ V
    ).data


def test_other_matrices_do_not_pass_through() -> None:
    k = Words()
    A, M = k.letter("A", "n", "T"), k.letter("M", "n", "n")
    assert (entrywise(k, "g", other, (M.T @ A,)) - M.T @ entrywise(k, "g", other, (A,))).data
    U = k.cols(k.eye("n"), "S")
    assert entrywise(k, "g", other, (U.T @ A,)).shape == ("|S|", "T")
    assert (
        entrywise(k, "f", bend, (U.T @ A, U.T @ A), (1,)) - entrywise(k, "f", bend, (U.T @ A, U.T @ A), (2,))
    ).data


def test_one_label_is_one_function() -> None:
    k = Words()
    A = k.letter("A", "n", "T")
    entrywise(k, "g", other, (A,))
    with pytest.raises(ValueError, match="two functions"):
        entrywise(k, "g", bend, (A,))


def test_an_opaque_function_depends_on_its_arguments_only() -> None:
    k = Words()
    A, B = k.letter("A", "n", "T"), k.letter("B", "n", "T")
    U = k.cols(k.eye("n"), "S")
    assert not (opaque(k, "w", whole, (A,), "T", "T") - opaque(k, "w", whole, (A + B - B,), "T", "T")).data
    assert (opaque(k, "w", whole, (U.T @ A,), "|S|", "T") - U.T @ opaque(k, "w", whole, (A,), "n", "T")).data
    e = Exact()
    assert e.data(opaque(e, "w", whole, (e.eye(2),), 2, 2)) == e.data(2 * e.eye(2))


def test_kits_without_entries_say_so() -> None:
    k = Degrees([])
    with pytest.raises(NotHere):
        entrywise(k, "g", other, (k.eye(2),))
