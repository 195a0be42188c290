"""Complete decisions at small sizes, and what they cannot express."""

from __future__ import annotations

import pytest

from theory.claim import Setting
from theory.evidence import evaluate
from theory.protocol import Instance, NotHere
from theory.search import solver


def symmetric(*names: str, n: int = 2) -> Setting:
    return Setting(
        [{"n": n}],
        lambda d: {name: (d["n"], d["n"]) for name in names},
        lambda k, t, d: Instance({name: M @ M.T for name, M in t.items()}),
        raw=lambda d: {name: (d["n"], d["n"], True) for name in names},
    )


def superadditive(k, x):
    k.given("A psd", k.psd(x.A))
    k.given("B psd", k.psd(x.B))
    k.claim("det", k.le(k.det(x.A) + k.det(x.B), k.det(x.A + x.B)))


def squares(k, x):
    k.given("A psd", k.psd(x.A))
    k.given("A <= B", k.psd(x.B - x.A))
    k.claim("A^2 <= B^2", k.psd(x.B @ x.B - x.A @ x.A))


def test_a_true_statement_has_no_model():
    assert solver.decide(superadditive, symmetric("A", "B"), {"n": 2}) == "unsat"


def test_a_false_statement_has_a_model_that_is_an_exact_counterexample():
    answer, candidates = solver.search(squares, symmetric("A", "B"), {"n": 2})
    assert answer == "sat"
    assert any(evaluate(squares, c.instance)[0].is_counterexample for c in candidates)


def test_a_model_over_free_parameters_is_a_candidate_too():
    setting = Setting([{}], lambda d: {"v": (1, 2)}, lambda k, t, d: Instance(t))

    def sphere(k, x):
        k.given("on the circle", k.eq(k.fro2(x.v), 1))
        k.claim("left half", k.le(k.e(x.v, 0, 0), 0))

    answer, candidates = solver.search(sphere, setting, {})
    assert answer == "sat"
    assert candidates


def test_pseudo_inverses_and_norms_are_fresh_variables():
    setting = Setting([{}], lambda d: {"A": (2, 1)}, lambda k, t, d: Instance(t))

    def projects(k, x):
        P = k.proj(x.A)
        k.claim("P P = P", k.eq(P @ P, P))

    def norm(k, x):
        k.claim("|A|^2 = fro^2", k.eq(k.sq(k.op(x.A)), k.fro2(x.A)))

    assert solver.decide(projects, setting, {}) == "unsat"
    assert solver.decide(norm, setting, {}) == "unsat"


def test_a_rank_as_a_number_does_not_apply():
    with pytest.raises(NotHere, match="rank"):
        solver.decide(lambda k, x: k.claim("rank", k.le(k.rank(x.A), 2)), symmetric("A"), {"n": 2})


def test_too_many_unknowns_do_not_apply():
    with pytest.raises(NotHere, match="unknowns"):
        solver.decide(superadditive, symmetric("A", "B", n=4), {"n": 4})


def test_scalars_and_static_data_are_raw_variables_too():
    setting = Setting(
        [{}],
        lambda d: {"g": (1, 1)},
        lambda k, t, d: Instance(g=k.e(t.g, 0, 0), S=(0,)),
        raw=lambda d: {"g": "scalar", "S": (0,)},
    )

    def root(k, x):
        k.given("g^2 = 2", k.eq(k.sq(x.g), 2))
        k.claim("g <= 1", k.le(x.g, 1))

    answer, candidates = solver.search(root, setting, {})
    assert answer == "sat"
    assert candidates[0].instance["S"] == [0]
