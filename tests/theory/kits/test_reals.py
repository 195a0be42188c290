"""Exact real numbers: comparisons that are certain, and the ones that are given up instead of guessed."""

from __future__ import annotations

from fractions import Fraction
from math import isclose, pi

import pytest

from theory.kits import reals
from theory.kits.reals import Real, compare, sign, simplest_between, sqrt
from theory.protocol import Undecided


def test_roots_are_rational_when_they_can_be():
    assert sqrt(Fraction(9, 4)) == Fraction(3, 2)
    assert isinstance(sqrt(Fraction(2)), Real)
    with pytest.raises(ValueError, match="negative"):
        sqrt(Fraction(-1))


def test_a_root_is_compared_with_rationals_exactly():
    root = sqrt(Fraction(2))
    assert compare(root, Fraction(141421356237309504880, 10**20)) > 0
    assert compare(root, Fraction(141421356237309504881, 10**20)) < 0
    assert compare(root, sqrt(Fraction(2))) == 0  # by their squares
    assert root * root == 2


def test_arithmetic_encloses():
    a, b = sqrt(Fraction(2)), sqrt(Fraction(3))
    for value, about in (
        (a + b, 3.1462643699),
        (a - b, -0.3178372452),
        (a * b, 2.4494897427),
        (a / b, 0.8164965809),
    ):
        low, high = value.enclose(60)
        assert low <= high
        assert high - low < Fraction(1, 10**12)
        assert isclose(float(low), about, rel_tol=1e-9)


def test_an_equality_that_enclosures_cannot_decide_is_given_up():
    a, b = sqrt(Fraction(2)), sqrt(Fraction(3))
    with pytest.raises(Undecided):
        sign(a * b - sqrt(Fraction(6)))


def test_division_by_something_that_may_be_zero_is_given_up():
    zero = Real(lambda bits: (Fraction(-1, 1 << bits), Fraction(1, 1 << bits)))
    with pytest.raises(Undecided):
        (1 / zero).enclose(20)


def test_the_simplest_rational_between():
    assert simplest_between(Fraction(31415, 10000), Fraction(31416, 10000)) == Fraction(333, 106)
    assert simplest_between(Fraction(-1, 2), Fraction(1, 3)) == 0
    assert simplest_between(Fraction(-3, 4), Fraction(-2, 3)) == Fraction(-2, 3)
    assert abs(float(simplest_between(Fraction(pi) - Fraction(1, 10**6), Fraction(pi))) - pi) < 1e-6


def test_texts_enclose_the_number():
    low, high = reals.text(sqrt(Fraction(2)))[1:-1].split(", ")
    assert Fraction(low) ** 2 < 2 < Fraction(high) ** 2
    assert reals.text(Fraction(-3, 6)) == "-1/2"
