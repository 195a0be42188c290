"""The bank of lemmas for the tests of the search, loaded from its file."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest


def _bank() -> Any:
    path = Path(__file__).resolve().parents[1] / "bank" / "lemmas.py"
    spec = importlib.util.spec_from_file_location("bank_of_lemmas", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


BANK = _bank()


@pytest.fixture(scope="session")
def bank() -> Any:
    return BANK


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give `false_lemma` and `true_lemma` the lemmas of the bank; slow ones carry the marker."""
    for name, wanted in (("false_lemma", False), ("true_lemma", True)):
        if name in metafunc.fixturenames:
            chosen = [b for b in BANK.BANK.values() if b.true is wanted]
            metafunc.parametrize(
                name,
                [
                    pytest.param(b, id=b.name, marks=[pytest.mark.slow] if b.name in SLOW else [])
                    for b in chosen
                ],
            )


SLOW = {
    "a_trace_word_of_degree_six_is_non_negative",
    "triangular_truncation_below_six_fifths",
    "eigenvalues_that_meet_at_an_odd_point",
    "ky_fan",
    "weyl",
    "eckart_young",
    "the_nuclear_norm_below_the_rank",
    "powers_of_a_product_have_non_negative_trace",
}
