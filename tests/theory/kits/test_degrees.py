"""Degree bounds hold: along a line the computed quantity is a quotient of polynomials of no larger degree."""

from __future__ import annotations

from fractions import Fraction

import pytest

from theory.kits.degrees import Degree, Degrees, RankLog
from theory.kits.exact import Exact
from theory.protocol import Mat, NotHere


def bound(function, shape=(3, 3), ranks=()):
    kit = Degrees(ranks)
    value = function(kit, Mat(kit, Degree(1), shape))
    return value.data if isinstance(value, Mat) else value


def numerator_degree(values):
    """The degree of the polynomial through the values at 0, 1, 2, ..."""
    rows = list(values)
    for degree in range(len(rows)):
        if not any(rows):
            return degree - 1
        rows = [b - a for a, b in zip(rows, rows[1:], strict=False)]
    pytest.fail("too few values")


POLYNOMIALS = {
    "trace of a cube": lambda k, A: k.tr(A @ A @ A),
    "determinant": lambda k, A: k.det(A),
    "Frobenius": lambda k, A: k.fro2(A) * k.tr(A),
    "mixed": lambda k, A: k.tr(A @ A.T - 3 * A) + k.num("1/2"),
}


@pytest.mark.parametrize("name", POLYNOMIALS)
def test_polynomials_have_no_larger_degree(name):
    function = POLYNOMIALS[name]
    k = Exact()
    base, step = k.mat([[1, 2, 0], [0, 1, 3], [1, 1, 1]]), k.mat([[1, 0, 2], [1, 1, 0], [0, 3, 1]])
    observed = numerator_degree([function(k, base + Fraction(s) * step) for s in range(12)])
    assert observed <= bound(function).top
    assert bound(function).bottom == 0


def test_an_inverse_is_an_adjugate_over_a_determinant():
    assert bound(lambda k, A: k.inv(A)) == Degree(2, 3)


def test_a_pseudo_inverse_of_known_rank():
    assert bound(lambda k, A: k.pinv(A), ranks=(2,)) == Degree(3, 4)


def test_ranks_are_logged_in_the_order_of_the_calls():
    kit = RankLog()
    kit.pinv(kit.mat([[1, 1], [1, 1]]))
    kit.pinv(kit.eye(2))
    assert kit.ranks == [1, 2]


def test_inequalities_are_not_for_identity_testing():
    kit = Degrees(())
    with pytest.raises(NotHere):
        kit.bound(lambda k, x: k.claim("order", k.le(0, k.tr(x))), Mat(kit, Degree(1), (2, 2)))
