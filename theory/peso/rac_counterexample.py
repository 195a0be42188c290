"""The quadratic on which LoRA and chains of LoRA are said to fail and RAC-LoRA to converge.

Source: RAC-LoRA, the example with Diag(10, 1, ..., 1) on the nine entries of a 3 x 3 matrix and r = 1 (second-hand; the
step and the number of chains of the printed run are not known to us). Our reading: f(W) = |V|^2 + 9 V_11^2 with
V = W - M, M = -1/20 in the corner and -1/2 elsewhere (the minimiser of <W, D W> + sum of W), start W = 0. With
u = v = e_1, V_11 = u'V v.

One LoRA of rank r stays away by at least the singular values of M beyond the r-th, whatever its step: true, by
Eckart-Young, and M has rank 2. Chains fail only if there are too few: M is the sum of two matrices of rank one.
RAC-LoRA with one row of W drawn at each step converges in mean like (1 - 2 gamma / 3)^T for gamma <= 1/20 = 1 / L; for
gamma = 1/5 it diverges too. So what fails and what converges depends on the step and on the number of chains.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

from theory.claim import Claim, Control, Json, Reading, Repair, Setting
from theory.evidence import Counterexample, Custom, WordProof
from theory.peso.rac import source
from theory.protocol import Instance, Kit, Mat

FLOOR, REACHED, MEAN, FALL = (
    "loss above the tail of M",
    "not at the minimum",
    "mean loss after a step",
    "no growth",
)


def value(k: Kit, x: Instance, V: Mat) -> Any:
    """|V|^2 + 9 V_11^2."""
    return k.fro2(V) + 9 * k.fro2(x.u.T @ V @ x.v)


def one_adapter(k: Kit, x: Instance) -> None:
    """Every change of rank at most r is its own best rank-r part, that of some K."""
    change = k.svd_r(x.K, x.r, "change")
    k.claim(FLOOR, k.le(k.tail2(x.M, x.r), value(k, x, change - x.M)))


def one_adapter_proof(k: Any, x: Instance) -> Mapping[str, Sequence[Any]]:
    """Eckart-Young, and the corner's extra weight."""
    change = k.svd_r(x.K, x.r, "change")
    n, m = x.M.shape
    best = k.eckart_young(x.M, x.r, k.eye(n), x.K, k.eye(m))
    return {FLOOR: [best, k.square(x.u.T @ (change - x.M) @ x.v, 9)]}


def without_corner(k: Kit, x: Instance) -> None:
    """A weaker statement: half of the tail."""
    change = k.svd_r(x.K, x.r, "change")
    k.claim(FLOOR, k.le(k.tail2(x.M, x.r) / 2, value(k, x, change - x.M)))


def chains_fail(k: Kit, x: Instance) -> None:
    """Two chains of rank one stay above the minimum."""
    k.claim(REACHED, k.lt(k.num(0), value(k, x, x.B1 @ x.A1 + x.B2 @ x.A2 - x.M)))


def one_chain_fails(k: Kit, x: Instance) -> None:
    """One chain of rank one does, where M has rank two."""
    k.given("rank M = 2", k.eq(k.num(k.rank(x.M)), k.num(2)))
    k.claim(REACHED, k.lt(k.num(0), value(k, x, x.B1 @ x.A1 - x.M)))


def after_draws(k: Kit, x: Instance) -> Any:
    """The mean of f after a step on one of the three rows: V - gamma e_i e_i' grad, grad = 2 V + 18 V_11 u v'."""
    rows = x.V.shape[0]
    gradient = 2 * x.V + 18 * (x.u @ x.u.T @ x.V @ x.v @ x.v.T)
    total = k.num(0)
    for i in range(rows):
        e = k.cols(k.eye(rows), [i])
        total = total + value(k, x, x.V - x.gamma * (e @ e.T @ gradient))
    return total / k.num(rows)


def corner(k: Kit, x: Instance) -> None:
    """U = v = e_1, and a step that is not negative."""
    first = k.unit(x.V.shape[0], 1, 0, 0)
    k.given("u = v = e_1", k.all_(k.eq(x.u, first), k.eq(x.v, first)))
    k.given("gamma >= 0", k.le(k.num(0), x.gamma))


def converges(k: Kit, x: Instance) -> None:
    """For gamma <= 1/20 the mean of f falls by the factor 1 - 2 gamma / 3."""
    corner(k, x)
    k.given("gamma <= 1/20", k.le(x.gamma, k.num("1/20")))
    k.claim(MEAN, k.le(after_draws(k, x), (1 - 2 * x.gamma / 3) * value(k, x, x.V)))


def converges_always(k: Kit, x: Instance) -> None:
    """For every step the mean of f does not grow."""
    corner(k, x)
    k.claim(MEAN, k.le(after_draws(k, x), value(k, x, x.V)))


def does_not_grow(k: Kit, x: Instance) -> None:
    """A weaker statement, for gamma <= 1/20."""
    k.given("gamma <= 1/20", k.le(x.gamma, k.num("1/20")))
    converges_always(k, x)


def entry_weights() -> Json:
    """The weights of the nine entries, and the largest step."""
    return {"weights": ["10"] + ["1"] * 8, "largest step": "1/20"}


def every_entry_shrinks(payload: Json) -> str | None:
    """A complaint unless each entry's mean square falls by the factor, for every step up to the largest.

    An entry of weight d moves, when its row is drawn, by the factor 1 - 2 gamma d. The gap
    (1 - 2 gamma / 3) - (2 + (1 - 2 gamma d)^2) / 3 is (2 gamma / 3)(2 d - 1 - 2 gamma d^2), whose last factor is
    linear in gamma.
    """
    if Fraction(payload["largest step"]) < Fraction(1, 20) or sorted(payload["weights"]) != sorted(
        entry_weights()["weights"]
    ):
        return "these are not the weights and the steps of the example"
    for weight in payload["weights"]:
        d = Fraction(weight)
        if any(
            2 * d - 1 - 2 * gamma * d * d < 0 for gamma in (Fraction(0), Fraction(payload["largest step"]))
        ):
            return f"an entry of weight {d} need not shrink for steps up to {payload['largest step']}"
    return None


def minimiser() -> list[list[str]]:
    """M."""
    return [["-1/20" if i == j == 0 else "-1/2" for j in range(3)] for i in range(3)]


FIRST = [["1"], ["0"], ["0"]]
CORNER: Json = {"u": FIRST, "v": FIRST}
TWO_CHAINS: Json = {
    "M": minimiser(),
    "B1": [["-1/2"], ["-1/2"], ["-1/2"]],
    "A1": [["1", "1", "1"]],
    "B2": [["9/20"], ["0"], ["0"]],
    "A2": [["1", "0", "0"]],
    **CORNER,
}
RANK_ONE: Json = {
    **TWO_CHAINS,
    "M": [["1", "0", "0"]] + [["0"] * 3] * 2,
    "B1": FIRST,
    "A1": [["1", "0", "0"]],
}
DIAGONAL: Json = {
    "M": [["2", "0"], ["0", "1"]],
    "K": [["2", "0"], ["0", "0"]],
    "u": [["1"], ["0"]],
    "v": [["1"], ["0"]],
    "r": 1,
}
ONE_ENTRY: Json = {"V": [["0", "0", "0"], ["0", "1", "0"], ["0", "0", "0"]], "gamma": "1/20", **CORNER}
IN_CORNER: Json = {"V": [["1", "0", "0"], ["0", "0", "0"], ["0", "0", "0"]], "gamma": "1/5", **CORNER}


def unit(k: Kit, n: int) -> Mat:
    """e_1."""
    return k.unit(n, 1, 0, 0)


ADAPTER = Setting(
    dims=[{"n": 1, "r": 1}, {"n": 2, "r": 1}, {"n": 3, "r": 1}, {"n": 3, "r": 2}],
    free=lambda d: {"M": (d["n"], d["n"]), "K": (d["n"], d["n"])},
    build=lambda k, t, d: Instance(M=t.M, K=t.K, u=unit(k, d["n"]), v=unit(k, d["n"]), r=d["r"]),
    letters=lambda k: Instance(
        M=k.letter("M", "n", "m"),
        K=k.letter("K", "n", "m"),
        u=k.letter("u", "n", 1),
        v=k.letter("v", "m", 1),
        r="r",
    ),
    boundary=[DIAGONAL],
)
FACTORS = Setting(
    dims=[{"n": 2}, {"n": 3}],
    free=lambda d: {
        "M": (d["n"], d["n"]),
        **{f"B{i}": (d["n"], 1) for i in (1, 2)},
        **{f"A{i}": (1, d["n"]) for i in (1, 2)},
    },
    build=lambda k, t, d: Instance({**t, "u": unit(k, d["n"]), "v": unit(k, d["n"])}),
    boundary=[TWO_CHAINS],
)
DRAWS = Setting(
    dims=[{}],
    free=lambda d: {"V": (3, 3), "g": (1, 1)},
    build=lambda k, t, d: Instance(V=t.V, gamma=1 / (20 + k.sq(k.e(t.g, 0, 0))), u=unit(k, 3), v=unit(k, 3)),
    boundary=[ONE_ENTRY],
)
ANY_STEP = Setting(
    dims=[{}],
    free=lambda d: {"V": (3, 3), "g": (1, 1)},
    build=lambda k, t, d: Instance(V=t.V, gamma=k.sq(k.e(t.g, 0, 0)), u=unit(k, 3), v=unit(k, 3)),
    boundary=[ONE_ENTRY],
)

CLAIM = Claim(
    id="peso/rac_counterexample",
    source=source("the example with Diag(10, 1, ..., 1)"),
    sentence=(
        "On a quadratic of a 3 x 3 matrix with weights 10, 1, ..., 1 and r = 1, LoRA and chains of LoRA fail and "
        "RAC-LoRA converges."
    ),
    headline=(
        "One LoRA fails for every step and RAC-LoRA converges for steps up to 1 / L; but two chains of LoRA can reach the "
        "minimiser, and RAC-LoRA diverges for large steps."
    ),
    defect="missing hypothesis",
    uses=("peso/rac_5_5",),
    readings=(
        Reading(
            name="one LoRA",
            sentence="A change of rank r leaves f above f* by at least the squared singular values of M beyond the r-th.",
            statement=one_adapter,
            setting=ADAPTER,
            evidence=WordProof(one_adapter_proof),
            scope="every size and rank; M of the example has rank 2",
            sharp=DIAGONAL,
            controls=(
                Control("right side smaller by 1/50", tighten="1/50", instance=DIAGONAL),
                Control("half of the tail", kind="true", statement=without_corner),
            ),
        ),
        Reading(
            name="two chains of LoRA",
            sentence="Two chains of rank one do not reach the minimiser.",
            statement=chains_fail,
            setting=FACTORS,
            evidence=Counterexample(TWO_CHAINS),
            scope="the minimiser of the example as a sum of two products; which chains a run finds depends on its steps",
            controls=(
                Control(
                    "one chain, a minimiser of rank one",
                    statement=one_chain_fails,
                    drop=("rank M = 2",),
                    instance=RANK_ONE,
                ),
                Control("one chain", kind="true", statement=one_chain_fails),
            ),
        ),
        Reading(
            name="RAC-LoRA, gamma <= 1 / L",
            sentence="With a row drawn at each step the mean of f - f* falls by 1 - 2 gamma / 3, for gamma <= 1/20.",
            statement=converges,
            setting=DRAWS,
            evidence=Custom(
                status="proved",
                produce=entry_weights,
                verify=every_entry_shrinks,
                about="f is a sum over entries; a linear inequality in gamma for each weight",
            ),
            scope="every start; mu = 2, L = 20, lam = 1/3",
            sharp=ONE_ENTRY,
            controls=(
                Control("right side smaller by 1/20", tighten="1/20", instance=ONE_ENTRY),
                Control("the mean does not grow", kind="true", statement=does_not_grow),
            ),
        ),
        Reading(
            name="RAC-LoRA, every step",
            sentence="With a row drawn at each step the mean of f does not grow, whatever the step.",
            statement=converges_always,
            setting=ANY_STEP,
            evidence=Counterexample(IN_CORNER),
            scope="gamma = 1/5, start in the corner; the instance is open",
            repair=Repair(
                sentence="it falls by the factor 1 - 2 gamma / 3 for gamma <= 1/20",
                statement=converges,
                setting=DRAWS,
                evidence=Custom(
                    status="proved",
                    produce=entry_weights,
                    verify=every_entry_shrinks,
                    about="f is a sum over entries; a linear inequality in gamma for each weight",
                ),
                necessary={"gamma <= 1/20": IN_CORNER},
                sharp=ONE_ENTRY,
            ),
            controls=(
                Control(
                    "the repair without its hypothesis",
                    statement=converges,
                    drop=("gamma <= 1/20",),
                    instance=IN_CORNER,
                ),
                Control("the repair", kind="true", statement=converges),
            ),
        ),
    ),
)
