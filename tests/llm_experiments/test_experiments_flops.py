"""Operations of one layer by the formulas, and as they are counted."""

import pytest

from llm_experiments.experiments.flops import a_token, one_layer


def test_formulas_are_those_of_the_paper_where_gradients_pass_through():
    n, m, r = 7, 5, 2
    assert a_token("full", n, m, r) == 6 * n * m
    assert a_token("LoRA", n, m, r) == 4 * n * m + 6 * r * (n + m)
    assert a_token("A frozen", n, m, r) == 4 * n * m + 6 * r * n + 4 * r * m
    assert a_token("A gathered", n, m, r) == 4 * n * m + 6 * r * n
    assert a_token("slice", n, m, r) == 4 * n * m + 2 * r * n


def test_below_the_first_layer_nothing_is_passed_back():
    n, m, r = 7, 5, 2
    for form, saved in (("full", 0), ("LoRA", 2 * r * m), ("A gathered", 2 * r * n), ("slice", 0)):
        assert a_token(form, n, m, r) - a_token(form, n, m, r, passes_back=False) == 2 * n * m + saved


@pytest.mark.parametrize("rank", [2, 4, 6])
def test_counts_of_one_layer_equal_the_formulas(rank):
    found = one_layer(12, rank)
    for label, form in (
        ("full", "full"),
        ("LoRA", "LoRA"),
        ("cLA, as B A", "A gathered"),
        ("cLA, in place", "slice"),
    ):
        assert found[label] == a_token(form, 12, 12, rank)
