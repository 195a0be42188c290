"""PEPit's numbers against the exact worst case."""

from __future__ import annotations

from fractions import Fraction

import pytest

pytest.importorskip("PEPit", reason="PEPit belongs to the optional search dependencies")

from theory.peso import finite_time, pep_certificate
from theory.search.pep import worst_cyclic_gradient, worst_mean_gradient, worst_tuned_part


@pytest.mark.parametrize(("blocks", "steps", "gamma"), [(2, 1, "9/10"), (1, 3, "1/2")])
def test_performance_estimation_finds_the_certified_value(blocks: int, steps: int, gamma: str) -> None:
    exact = Fraction(pep_certificate.case(blocks, steps, gamma, sharp=True)["constant"]) / steps
    assert worst_mean_gradient(blocks, steps, float(Fraction(gamma))) == pytest.approx(float(exact), rel=1e-4)


@pytest.mark.parametrize("steps", [3, 4])
def test_two_blocks_in_cyclic_order_attain_the_printed_bound(steps: int) -> None:
    assert worst_cyclic_gradient(2, steps, 1.0) == pytest.approx(2 * 2 / steps, rel=1e-4)


def test_three_blocks_in_cyclic_order_exceed_it() -> None:
    assert worst_cyclic_gradient(3, 9, 0.99) > 1.01 * 2 * 3 / (0.99 * 9)


@pytest.mark.parametrize("steps", [2, 3])
@pytest.mark.parametrize("eta", ["1/2", "1"])
def test_the_finite_time_form_is_as_sharp_as_certified(steps: int, eta: str) -> None:
    exact = float(finite_time.sharpest(steps, Fraction(eta))) / steps
    assert worst_tuned_part(1, steps, float(Fraction(eta))) == pytest.approx(exact, rel=1e-4)


@pytest.mark.parametrize("steps", [2, 3])
def test_changing_subspaces_attain_it_at_full_steps_and_never_exceed_it(steps: int) -> None:
    assert worst_tuned_part(2, steps, 1.0) == pytest.approx(2 / steps, rel=1e-4)
    assert (
        worst_tuned_part(2, steps, 0.5) <= float(finite_time.sharpest(steps, Fraction(1, 2))) / steps * 1.0001
    )
