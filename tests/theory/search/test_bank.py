"""The falsifier on lemmas that stand in none of the papers: every false one falls, no true one ever."""

from __future__ import annotations

from theory.evidence import Context, Counterexample
from theory.search import falsify


def test_a_false_lemma_is_refuted_with_a_certificate_that_rechecks(false_lemma):
    report = falsify(false_lemma.statement, false_lemma.setting)
    assert report.found is not None
    assert not report.errors
    context = Context(false_lemma.name, false_lemma.statement, false_lemma.setting)
    assert Counterexample.recheck(context, report.certificate) == "refuted"


def test_a_true_lemma_is_not_refuted(true_lemma):
    report = falsify(true_lemma.statement, true_lemma.setting, budget=3_000)
    assert report.found is None
    assert not report.errors
    assert report.evaluations > 1_500


def test_the_bank_is_large_and_hard_enough(bank):
    false = [b for b in bank.BANK.values() if not b.true]
    assert len(false) >= 25
    assert len(bank.BANK) - len(false) >= 25
    for tag, least in (("large", 5), ("tie", 3), ("narrow", 3)):
        assert sum(tag in b.tags for b in false) >= least


def test_smaller_counterexamples_than_the_one_found_do_not_exist(bank):
    from theory.search import exhaust

    lemma = bank.BANK["anticommutator_of_psd_is_psd"]
    box = exhaust(lemma.statement, lemma.setting, {"dims": [{"n": 1}, {"n": 2}], "bound": 1, "non_zeros": 4})
    one, two = box["sizes"]
    assert one["counterexamples"] == 0
    assert two["counterexamples"] > 0
    smallest = sum(v != "0" for v in two["smallest"])
    below = exhaust(
        lemma.statement, lemma.setting, {"dims": [{"n": 2}], "bound": 1, "non_zeros": smallest - 1}
    )
    assert below["sizes"][0]["counterexamples"] == 0
    report = falsify(lemma.statement, lemma.setting)
    assert sum(v != "0" for v in report.found["parameters"]) == smallest
