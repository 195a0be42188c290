"""Enclosures of logarithms and entropies, and enumeration of samples, against floats and by hand."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest

from theory.lora_variants.information import entropy, enumerate_samples, ln, within


@pytest.mark.parametrize("v", ["1/1000", "1/3", "2/3", "1", "4/3", "2", "17/5", "1000000"])
def test_logarithms_are_enclosed_tightly(v: str) -> None:
    low, high = ln(Fraction(v))
    assert low <= high <= low + Fraction(1, 10**10)
    assert float(low) - 1e-11 <= math.log(Fraction(v)) <= float(high) + 1e-11


def test_a_product_lies_in_the_sum_of_the_enclosures() -> None:
    a, b, c = ln(Fraction(7, 5)), ln(Fraction(10, 3)), ln(Fraction(14, 3))
    assert a[0] + b[0] <= c[1] and c[0] <= a[1] + b[1]


def test_no_logarithm_of_zero() -> None:
    with pytest.raises(ValueError, match="positive"):
        ln(Fraction(0))


def test_entropy_of_a_constant_and_of_a_fair_coin() -> None:
    low, high = entropy({0: Fraction(1)})
    assert low <= 0 <= high <= Fraction(1, 10**9)
    low, high = entropy({0: Fraction(1, 2), 1: Fraction(1, 2), 2: Fraction(0)})
    assert low <= ln(Fraction(2))[1] and ln(Fraction(2))[0] <= high


def test_copying_one_fair_coin() -> None:
    half = Fraction(1, 2)
    found = enumerate_samples(
        {0: half, 1: half}, 1, [None], lambda sample, draw: sample[0], lambda w, z: Fraction(int(w != z))
    )
    assert (found.gap, found.support) == (half, 2)
    assert within(found.gap, half, found.information[0], 1)
    assert not within(found.gap, half, found.information[1] * half, 1)


def test_a_draw_that_ignores_the_data_carries_no_information() -> None:
    half = Fraction(1, 2)
    found = enumerate_samples(
        {0: half, 1: half}, 2, [0, 1], lambda sample, draw: draw, lambda w, z: Fraction(int(w != z))
    )
    assert (found.gap, found.support) == (0, 1)
    assert found.information[1] <= Fraction(1, 10**9)
