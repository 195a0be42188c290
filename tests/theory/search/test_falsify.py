"""How a search behaves: the same for any number of processes, honest about faults, kept when interrupted."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from theory.claim import Setting
from theory.instances import gram
from theory.protocol import Instance, NotHere
from theory.search import falsify, lines, points, quadratic, widen
from theory.search.certify import cost, roundings
from theory.search.problem import Problem

SQUARE = Setting(
    [{"n": 1}, {"n": 2}],
    lambda d: {"A": (d["n"], d["n"]), "B": (d["n"], d["n"])},
    lambda k, t, d: Instance(t),
)


def traces_multiply(k, x):
    k.claim("tr(AB) = tr A tr B", k.eq(k.tr(x.A @ x.B), k.tr(x.A) * k.tr(x.B)))


def norms_multiply(k, x):
    k.claim("|AB| <= |A||B|", k.le(k.fro2(x.A @ x.B), k.fro2(x.A) * k.fro2(x.B)))


def test_the_outcome_does_not_depend_on_the_number_of_processes(bank):
    for name in ("motzkin_at_an_odd_place", "greedy_columns_are_the_best_pair", "hadamard"):
        lemma = bank.BANK[name]
        one, two = (
            falsify(lemma.statement, lemma.setting, budget=9_000, seed=3, jobs=jobs).to_json()
            for jobs in (1, 2)
        )
        assert one == two


def test_counterexamples_come_out_small():
    report = falsify(traces_multiply, SQUARE)
    assert report.found["sizes"] == {"n": 2}
    assert sum(v != "0" for v in report.found["parameters"]) == 2


def test_a_true_statement_reports_how_hard_it_was_looked():
    report = falsify(norms_multiply, SQUARE, budget=8_000)
    assert report.found is None
    assert report.best["ratio"] == "1"
    assert {s.stage for s in report.stages} >= {"boundary", "small integers", "families", "ascent", "exact"}
    assert "A rank-deficient" in report.classes["hit"]
    assert "seconds" not in str(report.to_json())


def test_a_class_that_was_never_hit_is_named():
    setting = Setting([{"n": 2}], lambda d: {"A": (2, 2)}, lambda k, t, d: Instance(A=gram(t.A) + k.eye(2)))
    report = falsify(lambda k, x: k.claim("trace", k.le(0, k.tr(x.A))), setting, budget=2_000)
    assert "A rank-deficient" in report.classes["never_hit"]
    assert "A of full rank" in report.classes["hit"]


def test_a_tightened_conclusion_is_refuted():
    assert falsify(norms_multiply, SQUARE, budget=8_000, tighten="1/50").found is not None


def test_a_dropped_hypothesis_is_missed():
    def positive(k, x):
        k.given("A psd", k.psd(x.A))
        k.claim("0 <= tr A", k.le(0, k.tr(x.A)))

    assert falsify(positive, SQUARE, budget=4_000).found is None
    assert falsify(positive, SQUARE, budget=4_000, drop=("A psd",)).found is not None


def test_a_fault_in_floats_neither_ends_the_search_nor_stays_hidden():
    def faulty(k, x):
        if k.kind == "floats":
            msg = "no floats today"
            raise RuntimeError(msg)
        traces_multiply(k, x)

    report = falsify(faulty, SQUARE, budget=20_000)
    assert report.found is not None
    assert any("no floats today" in text for text in report.errors)


def test_a_statement_that_floats_cannot_express_is_decided_exactly():
    def exact_only(k, x):
        if k.kind == "floats":
            msg = "floats"
            raise NotHere(msg)
        traces_multiply(k, x)

    report = falsify(exact_only, SQUARE, budget=20_000)
    assert report.found is not None
    assert not report.errors


def test_an_interrupted_search_keeps_what_it_has():
    def stop_after_some(part):
        if part.stage == "families":
            raise KeyboardInterrupt

    report = falsify(norms_multiply, SQUARE, budget=8_000, progress=stop_after_some)
    assert report.interrupted
    assert report.evaluations > 0


def test_an_interruption_while_shrinking_keeps_the_finding():
    def stop_at_a_hit(part):
        if part.hit is not None:
            raise KeyboardInterrupt

    report = falsify(traces_multiply, SQUARE, progress=stop_at_a_hit)
    assert report.interrupted
    assert report.found["breaks"] == ["tr(AB) = tr A tr B"]


def test_an_open_counterexample_goes_with_a_degenerate_one():
    def larger(k, x):
        k.claim("A is larger", k.lt(k.num("1/50") * k.fro2(x.B), k.fro2(x.A)))

    report = falsify(larger, SQUARE, budget=8_000)
    assert report.found["open"] is False  # A = B = 0 breaks it, and small changes mend it
    assert report.found["open_instance"] is not None


def test_the_budget_must_be_positive_and_sizes_be_given():
    with pytest.raises(ValueError, match="budget must be a positive count"):
        falsify(norms_multiply, SQUARE, budget=0)
    with pytest.raises(ValueError, match="has no sizes"):
        falsify(norms_multiply, Setting([], SQUARE.free, SQUARE.build))


def test_the_setting_s_own_boundary_instances_come_first():
    boundary = [{"A": [["1", "0"], ["0", "1"]], "B": [["1", "0"], ["0", "1"]]}]
    setting = Setting(SQUARE.dims, SQUARE.free, SQUARE.build, boundary=boundary)
    assert falsify(traces_multiply, setting).found["stage"] == "boundary instances"


def test_what_build_never_makes_is_found_beyond_it():
    def full_rank(k, x):
        k.given("H psd", k.psd(x.H))
        k.claim("full rank", k.eq(k.rank(x.H), x.H.shape[0]))

    setting = Setting(
        [{"n": 2}],
        lambda d: {"C": (2, 2)},
        lambda k, t, d: Instance(H=gram(t.C) + k.eye(2), g=k.e(t.C, 0, 0), S=(1,)),
    )
    assert falsify(full_rank, setting, budget=3_000).found is None
    found = falsify(full_rank, widen(setting), budget=3_000).found
    assert found["instance"]["S"] == [1]
    assert set(found["instance"]) == {"H", "g", "S"}


def test_own_families_are_searched():
    def only_there(k, x):
        a = k.e(x.A, 0, 0) - k.num("1234/7")
        k.claim("not near 1234/7", k.le(k.num("1/100"), k.sq(a)))

    setting = Setting(
        [{"n": 1}],
        SQUARE.free,
        SQUARE.build,
        families=lambda rng, d, count: 176.28 + 0.05 * rng.random((count, 2)),
    )
    assert falsify(only_there, setting, budget=2_000).found is not None


# -- growth -----------------------------------------------------------------------------------------------------
def test_a_ratio_that_grows_with_a_size_leads_to_the_counterexample():
    def bounded(k, x):
        n = x.v.shape[1]
        total = k.sum(k.e(x.v, 0, i) for i in range(n))
        k.claim("(sum v)^2 <= 5 |v|^2", k.le(k.sq(total), 5 * k.fro2(x.v)))

    setting = Setting([{"n": 2}], lambda d: {"v": (1, d["n"])}, lambda k, t, d: Instance(t), grow=("n",))
    report = falsify(bounded, setting, budget=4_000)
    assert report.found["stage"] == "growth"
    assert report.found["sizes"]["n"] > 5
    assert report.trend[0]["growing"]


def test_a_ratio_that_stands_still_is_not_called_growing():
    setting = Setting([{"n": 2}], lambda d: {"v": (1, d["n"])}, lambda k, t, d: Instance(t), grow=("n",))

    def largest_entry(k, x):
        k.claim("v_1^2 <= |v|^2", k.le(k.sq(k.e(x.v, 0, 0)), k.fro2(x.v)))

    report = falsify(largest_entry, setting, budget=4_000)
    assert report.found is None
    assert not report.trend[0]["growing"]


# -- parts ------------------------------------------------------------------------------------------------------
def test_the_worst_start_of_a_quadratic_is_a_generalised_eigenvector():
    rng = np.random.default_rng(0)
    C, E = rng.standard_normal((2, 5, 4, 4))
    S, G = C @ C.swapaxes(1, 2), E @ E.swapaxes(1, 2)
    ratios, starts = quadratic.worst_start(S, G)

    def value(w):
        return np.einsum("bi,bij,bj->b", w, S, w) / np.einsum("bi,bij,bj->b", w, G, w)

    assert np.allclose(value(starts), ratios)
    for w in rng.standard_normal((200, 5, 4)):
        assert (value(w) <= ratios + 1e-9).all()


def test_an_inner_maximisation_finds_the_worst_start_of_gradient_descent():
    T = 3

    def descend(k, x, w):
        for _ in range(T):
            w = w - x.Q @ w
        return w

    def rate(k, x):
        k.given("Q psd", k.psd(x.Q))
        best = k.num(f"{(2 * T) ** (2 * T)}/{(2 * T + 1) ** (2 * T + 1)}") * k.num("99/100")
        w = descend(k, x, x.w)
        k.claim("rate", k.le(k.dot(w, x.Q @ w), best * k.fro2(x.w)))

    def root(k, x):
        return x.R

    setting = Setting(
        [{"n": 2}],
        lambda d: {"R": (1, 2)},
        lambda k, t, d: Instance(
            R=k.diagm(t.R, 2, 2), Q=k.diagm(t.R, 2, 2) @ k.diagm(t.R, 2, 2), w=k.mat([[1], [0]])
        ),
        inner=quadratic.inner("w", lambda k, x, W: [x.R @ descend(k, x, W)], lambda k, x, W: [W]),
    )
    report = falsify(rate, setting, budget=4_000)
    assert report.found is not None


def test_rational_roots_are_found_exactly():
    def values(p):
        return [p(s) for s in lines.NODES]

    assert lines.rational_roots(values(lambda s: (s - Fraction(21, 55)) * (s * s + 1))) == [Fraction(21, 55)]
    assert lines.rational_roots(values(lambda s: s * s + 1)) == []
    assert lines.rational_roots(values(lambda s: s**11 + s)) == []  # degree too large to confirm


def test_roundings_keep_integers_and_are_distinct():
    assert list(roundings([2.0, -1.0])) == [(Fraction(2), Fraction(-1))]
    near_third = list(roundings([1 / 3], thin=True))
    assert near_third[0] == (Fraction(1, 3),)
    assert len(near_third) == len(set(near_third))


def test_simpler_numbers_cost_less():
    ordered = [[0, 0], [1, 0], [-1, 0], [2, 0], [Fraction(1, 2), 1], [1, 2]]
    costs = [cost([Fraction(v) for v in row]) for row in ordered]
    assert costs == sorted(costs)


def test_every_sampler_returns_the_points_it_was_asked_for():
    shapes = {"A": (2, 3), "B": (3, 3), "e": (0, 2)}
    for sampler in (points.small, points.families, points.gaussian):
        z = sampler(np.random.default_rng(0), shapes, 70)
        assert z.shape == (70, 15)
        assert np.isfinite(z).all()


def test_a_form_that_must_be_non_negative_has_a_slope():
    def form(k, x):
        k.claim("0 <= det", k.le(0, k.det(x.A)))

    setting = Setting([{"n": 2}], lambda d: {"A": (2, 2)}, lambda k, t, d: Instance(t))
    values = Problem(form, setting, {}).score(
        {"n": 2}, np.array([[1.0, 0, 0, 1], [1, 0.5, 0.5, 1], [1, 0.9, 0.9, 1]])
    )
    assert values.objective[0] > values.objective[1] > values.objective[2] > 0


def test_rounding_is_not_taken_for_a_violation():
    def identity(k, x):
        k.claim("0 <= tr(AB) - tr(BA)", k.le(0, k.tr(x.A @ x.B) - k.tr(x.B @ x.A)))

    report = falsify(identity, SQUARE, budget=6_000)
    assert report.found is None
    assert sum(s.uncertified for s in report.stages) == 0
