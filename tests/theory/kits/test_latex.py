"""Statements as LaTeX: symbols of the paper, brackets only where they must be, something for every operation."""

from __future__ import annotations

import pytest

from theory import registry
from theory.claim import Setting
from theory.kits.latex import Latex, to_latex
from theory.protocol import Instance, Kit

SETTING = Setting(
    [{"n": 2}],
    lambda d: {"A": (2, 2), "B": (2, 2)},
    lambda k, t, d: Instance(A=t.A, B=t.B, gamma=k.e(t.A, 0, 0), r=1),
)


def shown(claim) -> list[str]:
    return to_latex(lambda k, x: k.claim("it", claim(k, x)), SETTING)["conclusions"]


@pytest.mark.parametrize(
    ("claim", "wanted"),
    [
        (lambda k, x: k.eq(x.A @ x.B, x.B @ x.A), "A B = B A"),
        (lambda k, x: k.eq(x.A @ (x.B - x.A), x.A @ x.A), r"A \left(B - A\right) = A^2"),
        (lambda k, x: k.eq((x.A @ x.B).T, x.B.T @ x.A.T), r"\left(A B\right)^{\top} = B^{\top} A^{\top}"),
        (lambda k, x: k.eq(x.A.T.T, x.A), "A = A"),
        (lambda k, x: k.le(k.sq(x.gamma), k.num("1/2")), r"\gamma^2 \le \tfrac{1}{2}"),
        (lambda k, x: k.le(x.gamma * x.gamma, 2 * (x.gamma + 1)), r"\gamma^2 \le 2\,\left(\gamma + 1\right)"),
        (lambda k, x: k.lt(0, k.fro2(x.A - k.svd_r(x.A, x.r, "p"))), None),
        (lambda k, x: k.psd(x.A - 2 * k.eye(2)), r"A - 2\,I \succeq 0"),
        (lambda k, x: k.rank_le(x.A, 1), r"\operatorname{rank}\left(A\right) \le 1"),
        (lambda k, x: k.any_(k.le(0, x.gamma), k.le(x.gamma, 0)), r"0 \le \gamma \;\vee\; \gamma \le 0"),
        (lambda k, x: k.eq(k.pinv(x.A), k.inv(x.A)), "A^{+} = A^{-1}"),
    ],
)
def test_formulas(claim, wanted):
    (line,) = shown(claim)
    assert line.count("{") == line.count("}")
    if wanted is not None:
        assert line == wanted


def test_named_values_become_definitions():
    def statement(k, x):
        S = k.name(r"\Sigma", x.A @ x.A.T)
        k.given("S psd", k.psd(S))
        k.claim("trace", k.le(0, k.tr(S)))

    out = to_latex(statement, SETTING)
    assert out["definitions"] == [r"\Sigma = A A^{\top}"]
    assert out["hypotheses"] == [r"\Sigma \succeq 0"]
    assert out["conclusions"] == [r"0 \le \operatorname{tr}\left(\Sigma\right)"]


def test_every_statement_of_the_theory_can_be_shown():
    count = 0
    for entry in registry.registered().values():
        for reading in entry.claim.readings:
            setting = entry.claim.setting_of(reading)
            if reading.statement is not None and setting is not None:
                lines = [line for part in to_latex(reading.statement, setting).values() for line in part]
                assert lines
                for line in lines:
                    assert line.count("{") == line.count("}"), line
                    assert line.count(r"\left") == line.count(r"\right"), line
                count += 1
    assert count > 20


def test_every_operation_of_the_protocol_has_a_symbol():
    inherited = {"run", "hint", "fresh_label", "collect", "given", "claim"}
    missing = [
        name
        for name, method in vars(Kit).items()
        if callable(method) and not name.startswith("_") and name not in inherited and name not in vars(Latex)
    ]
    built_from_others = {"le", "lt", "eq", "psd", "rank_le", "all_", "any_", "proj"}
    assert set(missing) <= built_from_others, missing
