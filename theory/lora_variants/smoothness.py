"""Smoothness of the loss in all weights, in B alone, and in (A, B): Assumption 7 and Theorem 6.

Source: LoRA past, present, future, C.2. A (r x m) frozen with |A| <= C, dB (n x r) the difference of two B, D (n x m)
that of the gradients by W at the two, |D| <= L_G |dB A|; several layers are one with A block diagonal, whose
spectral norm is the largest of theirs. s bounds the spectral norm of X X' for inputs X (m x N).

`assumption_7`: a constant L_G for all weights exists for one linear layer and the squared loss, L_G = |X X'|. It exists
for no network of two layers: on (w2 w1 - 1)^2 / 2 the gradient between 0 and (t, t) changes t^2 - 1 times as fast
as the weights; with a Lipschitz loss (Huber's) likewise along the valley w2 w1 <= 1.

`thm_6_i`: true, and without the factor sqrt(L): gradient by B = gradient by W times A', and both A cost C once.

`thm_6_ii`: true: on |BA|^2 / 2 at A = B = t I the gradient grows like t^3. The printed proof divides by
|B_k A_k - B_0 A_0| instead of the distance of (A, B); that quotient is unbounded also for <C, BA>, whose gradient in
(A, B) is |C|-Lipschitz, so it proves nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

from theory.claim import Claim, Control, Json, Reading, Repair, Setting
from theory.evidence import Counterexample, Custom, WordProof
from theory.lora_variants.setting import source
from theory.protocol import Instance, Kit

# -- thm_6_i --------------------------------------------------------------------------------------------------
RIGHT, LEFT, CHANGE, BOUND = "A'A <= C^2 I", "AA' <= C^2 I", "L_G-smooth in W", "smooth in B"


def frozen_factor(k: Kit, x: Instance, layers: Any) -> None:
    """|D A'|^2 <= (L_G C^2)^2 layers |dB|^2."""
    k.given("L_G >= 0", k.le(k.num(0), x.L))
    k.given("C^2 >= 0", k.le(k.num(0), x.C2))
    k.given("layers >= 1", k.le(k.num(1), x.layers))
    k.given(RIGHT, k.psd(x.C2 * k.eye(x.A.shape[1]) - x.A.T @ x.A))
    k.given(LEFT, k.psd(x.C2 * k.eye(x.A.shape[0]) - x.A @ x.A.T))
    k.given(CHANGE, k.le(k.fro2(x.D), x.L * x.L * k.fro2(x.dB @ x.A)))
    k.claim(BOUND, k.le(k.fro2(x.D @ x.A.T), x.L * x.L * x.C2 * x.C2 * layers * k.fro2(x.dB)))


def with_layers(k: Kit, x: Instance) -> None:
    """As printed."""
    frozen_factor(k, x, x.layers)


def without_layers(k: Kit, x: Instance) -> None:
    """Sharpened."""
    frozen_factor(k, x, k.num(1))


def without_terms(k: Any, x: Instance) -> list[Any]:
    """|D A'| <= C |D| <= C L_G |dB A| <= C^2 L_G |dB|."""
    square, C2 = k.hypothesis("L_G >= 0") * k.hypothesis("L_G >= 0"), k.hypothesis("C^2 >= 0")
    return [k.against_psd(RIGHT, x.D.T), C2 * k.hypothesis(CHANGE), square * C2 * k.against_psd(LEFT, x.dB.T)]


def without_proof(k: Any, x: Instance) -> Mapping[str, Sequence[Any]]:
    """As `without_terms`."""
    return {BOUND: without_terms(k, x)}


def with_proof(k: Any, x: Instance) -> Mapping[str, Sequence[Any]]:
    """The sharpened bound, and layers >= 1."""
    L, C2 = k.hypothesis("L_G >= 0"), k.hypothesis("C^2 >= 0")
    return {BOUND: [*without_terms(k, x), L * L * C2 * C2 * k.hypothesis("layers >= 1") * k.square(x.dB)]}


def build_frozen(k: Kit, t: Instance, d: dict[str, Any]) -> Instance:
    """C^2 = |A|_F^2 + c^2, and a gradient that changes by dB A times a contraction."""
    L = 1 + k.sq(k.e(t.L, 0, 0))
    turn = L * k.skew_orth(t.O)
    C2 = k.fro2(t.A) + k.sq(k.e(t.c, 0, 0))
    return Instance(A=t.A, dB=t.dB, D=t.dB @ t.A @ turn, L=L, C2=C2, layers=k.num(d["layers"]))


FROZEN = Setting(
    dims=[{"n": n, "r": r, "m": m, "layers": s} for n, r, m, s in ((1, 1, 1, 1), (1, 1, 1, 4), (2, 1, 2, 2), (2, 2, 3, 1))],
    free=lambda d: {"A": (d["r"], d["m"]), "dB": (d["n"], d["r"]), "O": (d["m"], d["m"]), "L": (1, 1), "c": (1, 1)},
    build=build_frozen,
    letters=lambda k: Instance(
        A=k.letter("A", "r", "m"), dB=k.letter("dB", "n", "r"), D=k.letter("D", "n", "m"),
        L=k.number("L"), C2=k.number("C2"), layers=k.number("layers"),
    ),
    boundary=[{"A": [["1"]], "dB": [["1"]], "D": [["1"]], "L": "1", "C2": "1", "layers": "1"}],
)  # fmt: skip
ATTAINED: Json = FROZEN.boundary[0]
LONG_A: Json = {**ATTAINED, "A": [["2"]], "D": [["2"]]}

# -- thm_6_ii -------------------------------------------------------------------------------------------------
FASTER = "the gradient changes more than K times as fast"
TURNED, LIFTED = "C'C <= I", "CC' <= I"


def no_constant(k: Kit, x: Instance) -> None:
    """Between A = B = 0 and A = B = (1 + K) I the gradient of |BA|^2 / 2 changes by more than K times the way."""
    k.given("K >= 0", k.le(k.num(0), x.K))
    B = A = (1 + x.K) * k.eye(x.n)
    by_B, by_A = B @ A @ A.T, B.T @ B @ A
    way = k.fro2(B) + k.fro2(A)
    k.claim(FASTER, k.le((x.K * x.K + 1) * way, k.fro2(by_B) + k.fro2(by_A)))


def no_constant_proof(k: Any, x: Instance) -> Mapping[str, Sequence[Any]]:
    """2 n ((1 + K)^6 - (1 + K^2)(1 + K)^2) is a polynomial in K with coefficients >= 0."""
    power, terms = k.square(k.eye(x.n), 2), []
    for coefficient in (4, 13, 18, 14, 6, 1):
        power = power * k.hypothesis("K >= 0")
        terms += [power] * coefficient
    return {FASTER: terms}


def larger(k: Kit, x: Instance) -> None:
    """A weaker statement: the gradient there is at least as long as the way."""
    k.given("K >= 0", k.le(k.num(0), x.K))
    B = (1 + x.K) * k.eye(x.n)
    k.claim("at least as long", k.le(k.fro2(B), k.fro2(B @ B @ B)))


def linear_loss(k: Kit, x: Instance, way: Any) -> None:
    """On <C, BA> with |C| <= 1: the gradient changes between 0 and (B, A) by at most the `way`."""
    k.given(TURNED, k.psd(k.eye(x.C.shape[1]) - x.C.T @ x.C))
    k.given(LIFTED, k.psd(k.eye(x.C.shape[0]) - x.C @ x.C.T))
    k.claim("no faster than the way", k.le(k.fro2(x.C @ x.A.T) + k.fro2(x.B.T @ x.C), way))


def printed_quotient(k: Kit, x: Instance) -> None:
    """With the way of the printed quotient, |BA - 0|."""
    linear_loss(k, x, k.fro2(x.B @ x.A))


def true_quotient(k: Kit, x: Instance) -> None:
    """With the way in (A, B)."""
    linear_loss(k, x, k.fro2(x.B) + k.fro2(x.A))


def true_quotient_proof(k: Any, x: Instance) -> Mapping[str, Sequence[Any]]:
    """|C A'| <= |A| and |B'C| <= |B|."""
    return {"no faster than the way": [k.against_psd(TURNED, x.A.T), k.against_psd(LIFTED, x.B)]}


CONSTANTS = Setting(
    dims=[{"n": n} for n in (1, 2, 3)],
    free=lambda d: {"K": (1, 1)},
    build=lambda k, t, d: Instance(K=k.sq(k.e(t.K, 0, 0)), n=d["n"]),
    letters=lambda k: Instance(K=k.number("K"), n="n"),
    boundary=[{"K": "0", "n": 1}],
)
LINEAR = Setting(
    dims=[{"n": n, "r": r, "m": m} for n, r, m in ((1, 1, 1), (2, 1, 2), (2, 2, 2))],
    free=lambda d: {"O": (d["n"], d["n"]), "B": (d["n"], d["r"]), "A": (d["r"], d["n"])},
    build=lambda k, t, d: Instance(C=k.skew_orth(t.O), A=t.A, B=t.B),
    letters=lambda k: Instance(
        C=k.letter("C", "n", "m"), A=k.letter("A", "r", "m"), B=k.letter("B", "n", "r")
    ),
    boundary=[{"C": [["1"]], "A": [["2"]], "B": [["2"]]}],
)
ONES: Json = {"C": [["1"]], "A": [["1"]], "B": [["1"]]}

# -- assumption_7 ---------------------------------------------------------------------------------------------
Polynomial = list[Fraction]


def times(p: Polynomial, q: Polynomial) -> Polynomial:
    """The product of two polynomials in K, coefficients from the constant on."""
    out = [Fraction(0)] * (len(p) + len(q) - 1)
    for i, a in enumerate(p):
        for j, b in enumerate(q):
            out[i + j] += a * b
    return out


def minus(p: Polynomial, q: Polynomial) -> Polynomial:
    """The difference of two polynomials."""
    size = max(len(p), len(q))
    a, b = (v + [Fraction(0)] * (size - len(v)) for v in (p, q))
    return [u - v for u, v in zip(a, b, strict=True)]


def polynomial(*coefficients: int) -> Polynomial:
    """Coefficients as fractions."""
    return [Fraction(c) for c in coefficients]


def squared_excess(t: Polynomial) -> Polynomial:
    """|change of gradient|^2 - K^2 |way|^2 over 2 t^2 on (w2 w1 - 1)^2 / 2, from (0, 0) to (t, t).

    The gradient (w2 w1 - 1)(w1, w2) is zero at 0 and (t^2 - 1)(t, t) at the other end; the way is (t, t).
    """
    rate = minus(times(t, t), polynomial(1))
    return minus(times(rate, rate), polynomial(0, 0, 1))


def huber_excess(t: Polynomial) -> Polynomial:
    """The same, times t^2, for Huber's loss h(w2 w1), h(z) = z^2 / 2 for |z| <= 1, from (t, 0) to (t, 1/t).

    There h'(z) = z, so the gradient by (w2, w1) is z (w1, w2): zero at the start, (1/t, t) at the end, where z = 1.
    The way is 1/t.
    """
    fourth = times(times(t, t), times(t, t))
    return minus(minus(fourth, polynomial(-1)), polynomial(0, 0, 1))


def positive_for_every_constant(excess: Polynomial) -> bool:
    """No coefficient below zero and the constant above: positive for every K >= 0."""
    return excess[0] > 0 and all(c >= 0 for c in excess)


EXCESS = {"squared": squared_excess, "Huber": huber_excess}


def end_points(shift: int = 2) -> Json:
    """T = K + shift for every candidate constant K >= 0."""
    return {"t": [str(shift), "1"], "losses": list(EXCESS)}


def no_constant_fits(payload: Json) -> str | None:
    """A complaint unless the gradient outruns every constant on both losses."""
    t = [Fraction(c) for c in payload["t"]]
    for name in payload["losses"]:
        excess = EXCESS[name](t)
        if not positive_for_every_constant(excess):
            return (
                f"on the {name} loss the excess {[str(c) for c in excess]} is not positive for every K >= 0"
            )
    return None


def one_layer(k: Kit, x: Instance) -> None:
    """|dW X X'|^2 <= s^2 |dW|^2: the gradient (W X - Y) X' of |W X - Y|^2 / 2 is s-Lipschitz."""
    k.given("s >= 0", k.le(k.num(0), x.s))
    k.given("XX' <= s I", k.psd(x.s * k.eye(x.X.shape[0]) - x.X @ x.X.T))
    k.given("X'X <= s I", k.psd(x.s * k.eye(x.X.shape[1]) - x.X.T @ x.X))
    k.claim("s-smooth", k.le(k.fro2(x.dW @ x.X @ x.X.T), x.s * x.s * k.fro2(x.dW)))


def one_layer_proof(k: Any, x: Instance) -> Mapping[str, Sequence[Any]]:
    """|dW X X'|^2 <= s |dW X|^2 <= s^2 |dW|^2."""
    s = k.hypothesis("s >= 0")
    return {
        "s-smooth": [s * k.against_psd("XX' <= s I", x.dW.T), k.against_psd("X'X <= s I", x.X.T @ x.dW.T)]
    }


ONE_LAYER = Setting(
    dims=[{"n": n, "m": m, "N": N} for n, m, N in ((1, 1, 1), (1, 2, 1), (2, 2, 3))],
    free=lambda d: {"dW": (d["n"], d["m"]), "X": (d["m"], d["N"]), "c": (1, 1)},
    build=lambda k, t, d: Instance(dW=t.dW, X=t.X, s=k.fro2(t.X) + k.sq(k.e(t.c, 0, 0))),
    letters=lambda k: Instance(dW=k.letter("dW", "n", "m"), X=k.letter("X", "m", "N"), s=k.number("s")),
    boundary=[{"dW": [["1"]], "X": [["1"]], "s": "1"}],
)
UNIT: Json = ONE_LAYER.boundary[0]

CLAIMS = (
    Claim(
        id="lora_variants/assumption_7",
        source=source("Assumption 7"),
        sentence=(
            "For the losses considered, one constant L_G makes the gradient in all weights Lipschitz on the whole "
            "space."
        ),
        headline="It exists for one linear layer; for no network of two or more trained layers, not even scalar ones.",
        defect="missing hypothesis",
        readings=(
            Reading(
                name="two scalar layers",
                sentence="For w2 w1 x with the squared or with Huber's loss, the gradient is Lipschitz with some constant.",
                evidence=Custom(
                    status="refuted",
                    produce=end_points,
                    verify=no_constant_fits,
                    about="a pair of points for every candidate constant K, the excess a polynomial in K",
                    reason="quantifies over all constants",
                ),
                scope="every K >= 0; deeper and wider networks contain this one",
                repair=Repair(
                    sentence="for one linear layer with the squared loss L_G = |X X'| will do; attained by scalars",
                    statement=one_layer,
                    setting=ONE_LAYER,
                    evidence=WordProof(one_layer_proof),
                    sharp=UNIT,
                ),
                controls=(
                    Control(
                        "the repair's right side smaller by 1/50",
                        statement=one_layer,
                        tighten="1/50",
                        instance=UNIT,
                    ),
                    Control("the repair", kind="true", statement=one_layer),
                ),
            ),
        ),
    ),
    Claim(
        id="lora_variants/thm_6_i",
        source=source("Theorem 6(i)"),
        sentence="With A frozen and |A^i| <= C in each of L layers, the loss is smooth in B with constant L_G C^2 sqrt(L).",
        headline="True for every size, and without the factor sqrt(L): L_G C^2 is attained.",
        setting=FROZEN,
        readings=(
            Reading(
                name="as printed",
                statement=with_layers,
                evidence=WordProof(with_proof),
                scope="every size and number of layers, spectral norm of A (hence the Frobenius norm too)",
                sharp=ATTAINED,
                controls=(
                    Control("right side smaller by 1/50", tighten="1/50", instance=ATTAINED),
                    Control("A longer than C", drop=(RIGHT, LEFT), instance=LONG_A),
                    Control("the sharpened bound", kind="true", statement=without_layers),
                ),
            ),
            Reading(
                name="without sqrt(L)",
                sentence="The same with the constant L_G C^2 (ours).",
                statement=without_layers,
                evidence=WordProof(without_proof),
                scope="every size and number of layers; attained by scalars",
                unused=("layers >= 1",),
                sharp=ATTAINED,
                controls=(
                    Control("right side smaller by 1/50", tighten="1/50", instance=ATTAINED),
                    Control("the printed bound", kind="true", statement=with_layers),
                ),
            ),
        ),
    ),
    Claim(
        id="lora_variants/thm_6_ii",
        source=source("Theorem 6(ii)"),
        sentence="When A and B are both trained, a smooth loss in W need not be smooth in (A, B).",
        headline="True; but the quotient in the printed proof has the wrong denominator and shows nothing.",
        defect="gap in the proof, statement true",
        readings=(
            Reading(
                name="as printed",
                sentence="For |W|^2 / 2, no constant K makes the gradient in (A, B) K-Lipschitz.",
                statement=no_constant,
                setting=CONSTANTS,
                evidence=WordProof(no_constant_proof),
                scope="every n = m = r and every K >= 0",
                sharp={"K": "0", "n": 1},
                controls=(
                    Control("right side smaller by 1/50", tighten="1/50", instance={"K": "0", "n": 1}),
                    Control("at least as long as the way", kind="true", statement=larger),
                ),
            ),
            Reading(
                name="the quotient of the proof",
                sentence=(
                    "Where the gradient in (A, B) is 1-Lipschitz, the quotient that the proof sends to infinity "
                    "is at most 1."
                ),
                statement=printed_quotient,
                setting=LINEAR,
                evidence=Counterexample(ONES),
                scope="the loss <C, BA> with scalars; the quotient is sqrt(2) / t at A = B = t",
                repair=Repair(
                    sentence="the quotient with the distance of (A, B) is at most 1",
                    statement=true_quotient,
                    evidence=WordProof(true_quotient_proof),
                    sharp=ONES,
                ),
                controls=(
                    Control(
                        "the repair's right side smaller by 1/50",
                        statement=true_quotient,
                        tighten="1/50",
                        instance=ONES,
                    ),
                    Control("the repair", kind="true", statement=true_quotient),
                ),
            ),
        ),
    ),
)
