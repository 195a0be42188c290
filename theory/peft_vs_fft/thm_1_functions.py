"""What PEFT can reach in function space: is it strictly less, and is it a part at all?

Source: Theorem 1 (second-hand): the functions that PEFT reaches are a strict subset of those that full tuning reaches.

- Strict? Not for over-parameterised models: f(x) = w2 w1 x with only w1 tuned reaches every function that tuning both
  reaches (w2 != 0). It is strict for one linear layer on inputs X when some reachable change has rank(Delta X) > r: the
  distance of B A X from Delta X is at least the energy of the singular values of Delta X beyond r.
- A subset? For LoRA, AdaLoRA and (IA)^3 yes: the change is a change of the weights. BitFit on a model without biases
  and prefix tuning are not: both give a non-zero output at zero input, which no choice of the weights does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from itertools import product
from typing import Any

from theory.claim import Claim, Control, Json, Reading, Repair, Setting
from theory.evidence import Counterexample, Custom, WordProof
from theory.kits import perturbation
from theory.peft_vs_fft.setting import source
from theory.protocol import Instance, Kit


# -- strictness ---------------------------------------------------------------------------------------------------------
def sections() -> Json:
    """For weights w1, w2 and targets c the tuned change of w1 that gives w2 (w1 + phi) = c."""
    grid = [Fraction(v) for v in (-2, 1, 3)]
    rows = [[str(v) for v in (w1, w2, c, c / w2 - w1)] for w1, w2, c in product(grid, repeat=3)]
    return {"rows": rows}


def every_target_is_reached(payload: Json) -> str | None:
    """Phi = c / w2 - w1 reaches c; 3^3 points decide the identity w2 (w1 + phi) = c."""
    seen = {tuple(row[:3]) for row in payload["rows"]}
    if len(seen) < 27:
        return "fewer than 3^3 different points"
    for row in payload["rows"]:
        w1, w2, c, phi = (Fraction(v) for v in row)
        if phi != c / w2 - w1 or w2 * (w1 + phi) != c:
            return f"the target {c} is not reached from w1 = {w1}, w2 = {w2}"
    return None


def _wrong_sections() -> Json:
    payload = sections()
    payload["rows"] = [[*row[:3], row[2]] for row in payload["rows"]]
    return payload


def distance(k: Kit, x: Instance) -> None:
    """One linear layer on inputs X (p x N): how near B A X comes to Delta X."""
    wanted = x.Delta @ x.X
    k.claim("tail <= distance", k.le(k.tail2(wanted, x.r), k.fro2(wanted - x.B @ x.A @ x.X)))


def distance_proof(k: Any, x: Instance) -> Mapping[str, Sequence[Any]]:
    """B (A X) has rank at most r."""
    return {"tail <= distance": [perturbation.eckart_young_product(k, x.Delta @ x.X, x.r, x.B, x.A @ x.X)]}


def non_negative(k: Kit, x: Instance) -> None:
    """A weaker statement: the distance is not negative."""
    k.claim("distance >= 0", k.le(k.num(0), k.fro2(x.Delta @ x.X - x.B @ x.A @ x.X)))


LINE: Json = {
    "Delta": [["2", "0"], ["0", "1"]],
    "X": [["1", "0"], ["0", "1"]],
    "B": [["2"], ["0"]],
    "A": [["1", "0"]],
    "r": 1,
}
LAYER = Setting(
    dims=[
        {"q": 1, "p": 1, "N": 1, "r": 1},
        {"q": 2, "p": 2, "N": 1, "r": 1},
        {"q": 2, "p": 2, "N": 2, "r": 1},
        {"q": 3, "p": 3, "N": 4, "r": 2},
    ],
    free=lambda d: {
        "Delta": (d["q"], d["p"]),
        "X": (d["p"], d["N"]),
        "B": (d["q"], d["r"]),
        "A": (d["r"], d["p"]),
    },
    build=lambda k, t, d: Instance(Delta=t.Delta, X=t.X, B=t.B, A=t.A, r=d["r"]),
    letters=lambda k: Instance(
        Delta=k.letter("Delta", "q", "p"),
        X=k.letter("X", "p", "N"),
        B=k.letter("B", "q", "r"),
        A=k.letter("A", "r", "p"),
        r="r",
    ),
    boundary=[LINE],
)
FUNCTION_SPACE = Claim(
    id="peft_vs_fft/thm_1_function_space",
    source=source("Theorem 1, strict subset of functions"),
    sentence="The functions that PEFT reaches are a strict subset of those that full tuning reaches.",
    headline=(
        "False as a general statement: a two-layer linear model tuned in one layer loses nothing; strict for one layer "
        "when a wanted change has a rank above r on the inputs."
    ),
    defect="missing hypothesis",
    uses=("peft_vs_fft/thm_1_null",),
    readings=(
        Reading(
            name="every model",
            evidence=Custom(
                status="refuted",
                produce=sections,
                verify=every_target_is_reached,
                about="a model of two weights with the tuned change that reaches each target",
            ),
            scope="f(x) = w2 w1 x with w2 != 0, w1 tuned against both tuned",
            controls=(
                Control("phi = c", check=lambda: every_target_is_reached(_wrong_sections()) is not None),
                Control(
                    "the sections", kind="true", check=lambda: every_target_is_reached(sections()) is not None
                ),
            ),
        ),
        Reading(
            name="one linear layer on finitely many inputs",
            sentence="B A X stays away from Delta X by at least the tail of Delta X beyond r.",
            statement=distance,
            setting=LAYER,
            evidence=WordProof(distance_proof),
            scope="every size; strict as soon as rank(Delta X) > r for some Delta, that is r < min(q, rank X)",
            sharp=LINE,
            controls=(
                Control("the distance smaller by 1/50", tighten="1/50", instance=LINE),
                Control("the distance is not negative", kind="true", statement=non_negative),
            ),
        ),
    ),
)


# -- inclusion ------------------------------------------------------------------------------------------------------------
def lora_inside(k: Kit, x: Instance) -> None:
    """The tuned layer computes W1 x with the weight W1 = W + B A."""
    k.claim("a weight", k.eq(x.W @ x.X + x.B @ (x.A @ x.X), (x.W + x.B @ x.A) @ x.X))


def adalora_inside(k: Kit, x: Instance) -> None:
    """The same with B Lam A."""
    k.claim("a weight", k.eq(x.W @ x.X + x.B @ (x.Lam @ (x.A @ x.X)), (x.W + x.B @ x.Lam @ x.A) @ x.X))


def ia3_inside(k: Kit, x: Instance) -> None:
    """Scaling the outputs by a diagonal matrix is a change of the weight: l (W x) = (l W) x."""
    k.claim("a weight", k.eq(x.Scale @ (x.W @ x.X), (x.Scale @ x.W) @ x.X))


def bitfit_zero(k: Kit, x: Instance) -> None:
    """On a model without biases every full function is 0 at 0; a tuned bias is not."""
    k.given("the input is zero", k.eq(x.X, k.zeros(*x.X.shape)))
    k.claim("output at zero", k.eq(k.fro2(x.W @ x.X + x.bias), k.num(0)))


def bias_free(k: Kit, x: Instance) -> None:
    """With the bias zero the output at zero is zero."""
    k.given("no bias", k.eq(x.bias, k.zeros(*x.bias.shape)))
    bitfit_zero(k, x)


def prefix_zero(k: Kit, x: Instance) -> None:
    """One attention layer, one token X (d x 1), one prefix pair (pk, pv): at X = 0 all scores are 0, the weights 1/2."""
    k.given("the input is zero", k.eq(x.X, k.zeros(*x.X.shape)))
    query = x.Wq @ x.X
    k.given("the scores agree", k.eq(k.tr(query.T @ x.pk), k.tr(query.T @ (x.Wk @ x.X))))
    k.claim("output at zero", k.eq(k.fro2(x.pv + x.Wv @ x.X), k.num(0)))


def empty_prefix(k: Kit, x: Instance) -> None:
    """With the prefix value zero the output at zero is zero."""
    k.given("no prefix value", k.eq(x.pv, k.zeros(*x.pv.shape)))
    prefix_zero(k, x)


def merged(k: Kit, x: Instance) -> None:
    """A weaker statement: the merged layer is no longer than its parts (squared, times 2)."""
    change = x.B @ x.A @ x.X
    k.claim("parts", k.le(k.fro2(x.W @ x.X + change), 2 * k.fro2(x.W @ x.X) + 2 * k.fro2(change)))


def merged_scale(k: Kit, x: Instance) -> None:
    """A weaker statement: the length of the scaled output is that of the merged weight's output."""
    k.claim("lengths", k.le(k.fro2(x.Scale @ (x.W @ x.X)), k.fro2((x.Scale @ x.W) @ x.X)))


SHAPES = {
    "W": ("q", "p"),
    "X": ("p", "N"),
    "B": ("q", "r"),
    "A": ("r", "p"),
    "Lam": ("r", "r"),
    "Scale": ("q", "q"),
}
LINEAR = Setting(
    dims=[{"q": 1, "p": 1, "N": 1, "r": 1}, {"q": 2, "p": 3, "N": 2, "r": 2}],
    free=lambda d: {n: (d[a], d[b]) for n, (a, b) in SHAPES.items()},
    build=lambda k, t, d: Instance(t),
    letters=lambda k: Instance({n: k.letter(n, a, b) for n, (a, b) in SHAPES.items()}),
    boundary=[],
)
UNIT: Json = {n: [["1"]] for n in SHAPES}
TOKEN: Json = {n: [["1"]] for n in ("W", "Wq", "Wk", "Wv", "pk", "pv", "bias")} | {"X": [["0"]]}
ZERO_INPUT = Setting(
    dims=[{"d": 1}, {"d": 2}],
    free=lambda d: (
        {n: (d["d"], d["d"]) for n in ("W", "Wq", "Wk", "Wv")}
        | {n: (d["d"], 1) for n in ("pk", "pv", "bias")}
    ),
    build=lambda k, t, d: Instance({**t, "X": k.zeros(d["d"], 1)}),
    letters=lambda k: Instance(
        {n: k.letter(n, "d", "d") for n in ("W", "Wq", "Wk", "Wv")}
        | {n: k.letter(n, "d", 1) for n in ("pk", "pv", "bias", "X")}
    ),
    boundary=[TOKEN | {"pv": [["0"]], "bias": [["0"]]}],
)


def use(k: Any, *hypotheses: str) -> Mapping[str, Sequence[Any]]:
    """A proof that needs nothing but those hypotheses."""
    for name in hypotheses:
        k.use(name)
    return {}


def _inside(name: str, statement: Any) -> Reading:
    return Reading(
        name=name,
        statement=statement,
        setting=LINEAR,
        evidence=WordProof(),
        scope="one layer of any size; layers follow one another",
        controls=(
            Control("the weight larger by 1/1000", tighten="1/1000", instance=UNIT),
            Control("lengths", kind="true", statement=merged_scale if name == "(IA)^3" else merged),
        ),
    )


def _outside(name: str, statement: Any, without: Any, dropped: str, scope: str) -> Reading:
    wide = {n: [["1", "0"], ["0", "1"]] for n in ("W", "Wq", "Wk", "Wv")}
    wide |= {n: [["1"], ["2"]] for n in ("pk", "pv", "bias")} | {"X": [["0"], ["0"]]}
    return Reading(
        name=name,
        statement=statement,
        setting=ZERO_INPUT,
        evidence=Counterexample(TOKEN),
        scope=scope,
        open_instance=wide,
        repair=Repair(
            sentence=f"It is one only when there is nothing to tune: {dropped}",
            statement=without,
            evidence=WordProof(lambda k, x: use(k, dropped, "the input is zero")),
            necessary={dropped: TOKEN},
        ),
        controls=(
            Control("the repair without its hypothesis", statement=without, drop=(dropped,), instance=TOKEN),
            Control("the repair", kind="true", statement=without),
        ),
    )


INCLUSION = Claim(
    id="peft_vs_fft/thm_1_inclusion",
    source=source("Theorem 1, subset"),
    sentence="The functions that PEFT reaches are a subset of those that full tuning reaches.",
    headline=(
        "True for LoRA, AdaLoRA and (IA)^3, whose changes are changes of weights; false for prefix tuning, and for BitFit "
        "on models without biases."
    ),
    defect="missing hypothesis",
    readings=(
        _inside("LoRA", lora_inside),
        _inside("AdaLoRA", adalora_inside),
        _inside("(IA)^3", ia3_inside),
        _outside(
            "BitFit, a model without biases", bitfit_zero, bias_free, "no bias", "one weight, zero input"
        ),
        _outside(
            "prefix tuning",
            prefix_zero,
            empty_prefix,
            "no prefix value",
            "one attention head, one token, one prefix",
        ),
    ),
)

CLAIMS = (FUNCTION_SPACE, INCLUSION)
