"""The exact worst case of the finite-time form."""

from __future__ import annotations

from fractions import Fraction

import pytest

from theory.peso import finite_time


def test_no_gradient_descent_on_a_quadratic_exceeds_it():
    """Diagonal quadratics with any curvature below L = 1, every coordinate tuned at every step."""
    for eta in (Fraction(1, 2), Fraction(1), Fraction(3, 2)):
        for steps in (1, 2, 5):
            for curvature in (Fraction(1, 10), Fraction(1, 2), Fraction(9, 10), Fraction(1)):
                w, total = Fraction(1), Fraction(0)
                for _ in range(steps):
                    w, total = w * (1 - eta * curvature), total + (curvature * w) ** 2
                assert total <= finite_time.sharpest(steps, eta) * curvature / 2


@pytest.mark.parametrize("part", ["descent", "infimum", "constant"])
def test_an_altered_multiplier_is_noticed(part):
    payload = finite_time.worst_cases()
    case = payload["cases"][7]
    if part == "constant":
        case[part] = str(Fraction(case[part]) * Fraction(101, 100))
    else:
        case[part][0] = str(Fraction(case[part][0]) + Fraction(1, 100))
    assert finite_time.multipliers_prove(payload) is not None


def test_at_full_steps_it_is_the_printed_bound():
    for steps in (1, 2, 7):
        assert finite_time.sharpest(steps, Fraction(1)) == 2
