"""What a search does beyond the sizes and instances of a file: it grows, embeds, and notes what it finds there."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from itertools import product

import numpy as np
import pytest

from theory.claim import Setting
from theory.evidence import evaluate
from theory.instances import positive_definite, smooth_quadratic
from theory.protocol import Instance
from theory.search import falsify, growth
from theory.search.box import below
from theory.search.certify import Candidate, Certifier, _short
from theory.search.problem import Problem

DESCENT = Setting(
    [{"n": 1, "T": 6}],
    lambda d: {"C": (d["n"], d["n"]), "w": (d["n"], 1)},
    lambda k, t, d: Instance(Q=smooth_quadratic(k, t.C), w=t.w, T=d["T"]),
)
DEFINITE = Setting(
    [{"n": 1}, {"n": 2}],
    lambda d: {"R": (d["n"], d["n"]), "P": (d["n"], 1), "v": (d["n"], 1)},
    lambda k, t, d: Instance(H=positive_definite(k, t.R), P=t.P, v=t.v),
)


def rate(k, x):
    """True up to T = 6, false from T = 9 on: T (1 - l)^(2T) l / 2 tends to 1 / (4 e) = 0.09197 from below."""
    k.given("Q psd", k.psd(x.Q))
    k.given("Q <= I", k.psd(k.eye(x.Q.shape[0]) - x.Q))
    w = x.w
    for _ in range(x.T):
        w = w - x.Q @ w
    k.claim("rate", k.le(k.dot(w, x.Q @ w) / 2, k.num("177/2000") * k.fro2(x.w) / x.T))


def form_is_smaller(k, x):
    """True for H definite; false for a singular one."""
    k.given("H psd", k.psd(x.H))
    B = x.P @ k.pinv(x.P.T @ x.H @ x.P) @ x.P.T
    k.claim("forms", k.le(k.tr(x.v.T @ B @ x.v), k.tr(x.v.T @ k.pinv(x.H) @ x.v)))


def test_a_bound_that_fails_only_for_more_steps_falls_when_steps_may_grow():
    report = falsify(rate, replace(DESCENT, grow=["T"]), budget=6_000)
    assert report.found is not None
    assert report.found["stage"] == "growth"
    assert report.found["sizes"]["T"] >= 9
    assert evaluate(rate, report.found["instance"])[0].is_counterexample


def test_a_counterexample_at_other_sizes_is_a_note_and_no_finding():
    report = falsify(rate, DESCENT, budget=40_000, outside=True)
    assert report.found is None
    assert [note["outside"] for note in report.notes] == ["the sizes in dims"]
    assert evaluate(rate, report.notes[0]["instance"])[0].is_counterexample


def test_nothing_is_noted_unless_asked_for():
    report = falsify(rate, DESCENT, budget=2_000)
    assert report.found is None
    assert report.notes == []


def test_what_build_does_not_make_is_named_and_noted():
    report = falsify(form_is_smaller, DEFINITE, budget=6_000, outside=True)
    assert report.found is None
    assert "H rank-deficient" in report.classes["allowed_never_hit"]
    (note,) = [n for n in report.notes if n["outside"] == "what build makes"]
    assert evaluate(form_is_smaller, note["instance"])[0].is_counterexample


def test_points_are_set_into_the_last_and_the_first_corner():
    small, large = {"A": (1, 2), "b": (1, 1)}, {"A": (2, 3), "b": (1, 1)}
    last, first = growth.embedded(small, np.array([[1.0, 2.0, 5.0]]), large)
    assert last.tolist() == [0, 0, 0, 0, 1, 2, 5]
    assert first.tolist() == [1, 2, 0, 0, 0, 0, 5]


def test_sizes_that_grow_together_keep_their_proportion():
    assert growth.larger({"k": 4, "T": 8, "r": 1}, ["k", "T"]) == {"k": 6, "T": 12, "r": 1}


def test_a_text_of_exponential_length_ends_its_growth():
    def signs(k, x):
        n = x.v.shape[1]
        a = [k.e(x.v, 0, i) for i in range(n)]
        terms = (k.sum(s * b for s, b in zip(e, a, strict=True)) for e in product((1, -1), repeat=n))
        k.claim("second moment", k.eq(k.sum(k.sq(s) for s in terms), 2**n * k.fro2(x.v)))

    setting = Setting([{"n": 9}], lambda d: {"v": (1, d["n"])}, lambda k, t, d: Instance(t), grow=["n"])
    (part,) = growth.run(Problem(signs, setting, {}), [{"n": 9}], 100, 0)
    assert any("operations" in reason for reason in part.reasons)
    assert not part.errors


def test_the_slack_of_a_long_algorithm_is_not_taken_for_rounding():
    problem = Problem(rate, DESCENT, {})
    scores = problem.score({"n": 2, "T": 60}, np.array([[0.2, 0.0, 0.0, 0.1, 1.0, 1.0]] * 3))
    assert scores.meets.all()
    assert (scores.objective < 0.99).all()


@pytest.mark.parametrize("value", [Fraction(3, 7), Fraction(10**5000 + 1, 10**5000)])
def test_numbers_too_long_to_print_are_enclosed(value):
    assert len(_short(value)) < 50


def test_the_box_below_a_counterexample_says_what_was_decided(bank):
    lemma = bank.BANK["the_rank_of_a_product_commutes"]
    problem = Problem(lemma.statement, lemma.setting, {})
    dims = [{"n": 1}, {"n": 2}]
    wasteful = [
        Fraction(v) for v in (1, 0, 0, 0, 1, 1, 1, 1)
    ]  # A = [1 0; 0 0], B full of ones: no counterexample
    box, simpler = below(problem, dims, wasteful)
    assert box["sizes"][0] == {
        "non_zeros": 2, "sizes": {"n": 1}, "decided": 9, "undecided": 0, "counterexamples": 0, "smallest": None,
    }  # fmt: skip
    assert isinstance(simpler, Candidate)
    assert sum(v != 0 for v in simpler.values) == 2
    assert Certifier(lemma.statement, lemma.setting, {}).breaks(simpler) is not None
    box, simpler = below(problem, dims, simpler.values)
    assert simpler is None
    assert box["simplest"] is None
    assert box["sizes"][1]["non_zeros"] == 1
