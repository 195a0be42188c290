"""PEPit's numbers against the exact worst case."""

from __future__ import annotations

from fractions import Fraction

import pytest

pytest.importorskip("PEPit", reason="PEPit belongs to the optional search dependencies")

from theory.peso import pep_certificate
from theory.search.pep import worst_mean_gradient


@pytest.mark.parametrize(("blocks", "steps", "gamma"), [(2, 1, "9/10"), (1, 3, "1/2")])
def test_performance_estimation_finds_the_certified_value(blocks: int, steps: int, gamma: str) -> None:
    exact = Fraction(pep_certificate.case(blocks, steps, gamma, sharp=True)["constant"]) / steps
    assert worst_mean_gradient(blocks, steps, float(Fraction(gamma))) == pytest.approx(float(exact), rel=1e-4)
