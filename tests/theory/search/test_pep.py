"""PEPit's numbers against the exact worst case."""

from __future__ import annotations

from fractions import Fraction

import pytest

pytest.importorskip("PEPit", reason="PEPit belongs to the optional search dependencies")

from theory.peso import pep_certificate
from theory.search.pep import worst_cyclic_gradient, worst_mean_gradient


@pytest.mark.parametrize(("blocks", "steps", "gamma"), [(2, 1, "9/10"), (1, 3, "1/2")])
def test_performance_estimation_finds_the_certified_value(blocks: int, steps: int, gamma: str) -> None:
    exact = Fraction(pep_certificate.case(blocks, steps, gamma, sharp=True)["constant"]) / steps
    assert worst_mean_gradient(blocks, steps, float(Fraction(gamma))) == pytest.approx(float(exact), rel=1e-4)


@pytest.mark.parametrize("steps", [3, 4])
def test_two_blocks_in_cyclic_order_attain_the_printed_bound(steps: int) -> None:
    assert worst_cyclic_gradient(2, steps, 1.0) == pytest.approx(2 * 2 / steps, rel=1e-4)


def test_three_blocks_in_cyclic_order_exceed_it() -> None:
    assert worst_cyclic_gradient(3, 9, 0.99) > 1.01 * 2 * 3 / (0.99 * 9)
