"""Is what PEFT reaches a part of what full tuning reaches at all?

Source: Theorem 1 (second-hand): the functions of PEFT are among those of full tuning. The paper's methods, on one linear
layer, one attention head and one hidden layer, written exactly:

- LoRA, AdaLoRA and (IA)^3: yes. What they compute on the side is what a changed weight computes, so scores, values and
  pre-activations agree for every input, and whatever the softmax or the activation makes of them.
- BitFit: yes with biases, which are weights; no on a model without: a non-zero output at zero input.
- Prefix tuning: no. Without biases it gives a non-zero output at zero input; with them, full tuning of one head on one
  token x is affine in x, since a softmax over one token is 1, and a prefix whose score moves with x makes it curved.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from theory.claim import Claim, Control, Json, Reading, Repair, Setting
from theory.evidence import Counterexample, Identity, WordProof
from theory.peft_vs_fft.setting import source
from theory.protocol import Instance, Kit, Mat


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


# -- one attention head and one hidden layer -----------------------------------------------------------------------------
def added(x: Instance, name: str, Z: Mat, middle: bool) -> Mat:
    """W Z + B (A Z), with Lam between B and A for AdaLoRA."""
    low = x["A" + name] @ Z
    side = x["B" + name] @ (x["L" + name] @ low if middle else low)
    out: Mat = x["W" + name] @ Z + side
    return out


def merged_weight(x: Instance, name: str, middle: bool) -> Mat:
    """W + B A."""
    low = x["L" + name] @ x["A" + name] if middle else x["A" + name]
    out: Mat = x["W" + name] + x["B" + name] @ low
    return out


def network(k: Kit, x: Instance, middle: bool) -> None:
    """S are the attention weights, a function of the scores; F the hidden units, a function of the pre-activations."""
    tuned = {name: merged_weight(x, name, middle) for name in ("q", "k", "v", "o", "1", "2")}
    scores = added(x, "k", x.X, middle).T @ added(x, "q", x.X, middle)
    k.claim("scores", k.eq(scores, (tuned["k"] @ x.X).T @ (tuned["q"] @ x.X)))
    head = added(x, "o", added(x, "v", x.X, middle) @ x.S, middle)
    k.claim("head", k.eq(head, tuned["o"] @ (tuned["v"] @ x.X) @ x.S))
    k.claim("pre-activations", k.eq(added(x, "1", x.X, middle), tuned["1"] @ x.X))
    k.claim("hidden layer", k.eq(added(x, "2", x.F, middle), tuned["2"] @ x.F))


def lora_network(k: Kit, x: Instance) -> None:
    """LoRA on every matrix."""
    network(k, x, False)


def adalora_network(k: Kit, x: Instance) -> None:
    """AdaLoRA on every matrix."""
    network(k, x, True)


def ia3_network(k: Kit, x: Instance) -> None:
    """Scaled keys, values and hidden units: l * (W X) = (diag(l) W) X, and W2 (l * F) = (W2 diag(l)) F."""
    scores = (x.Sk @ (x.Wk @ x.X)).T @ (x.Wq @ x.X)
    k.claim("scores", k.eq(scores, ((x.Sk @ x.Wk) @ x.X).T @ (x.Wq @ x.X)))
    head = x.Wo @ ((x.Sv @ (x.Wv @ x.X)) @ x.S)
    k.claim("head", k.eq(head, x.Wo @ ((x.Sv @ x.Wv) @ x.X) @ x.S))
    k.claim("hidden layer", k.eq(x.W2 @ (x.Sf @ x.F), (x.W2 @ x.Sf) @ x.F))


def head_length(k: Kit, x: Instance) -> None:
    """A weaker statement: the pre-activation of the merged weight is no longer than its parts (squared, times 2)."""
    side = x.B1 @ (x.A1 @ x.X)
    whole = (x.W1 + x.B1 @ x.A1) @ x.X
    k.claim("parts", k.le(k.fro2(whole), 2 * k.fro2(x.W1 @ x.X) + 2 * k.fro2(side)))


def scaled_length(k: Kit, x: Instance) -> None:
    """A weaker statement, on lengths."""
    k.claim("lengths", k.le(k.fro2(x.W2 @ (x.Sf @ x.F)), k.fro2((x.W2 @ x.Sf) @ x.F)))


MATRICES = {"q": "hd", "k": "hd", "v": "hd", "o": "dh", "1": "fd", "2": "df"}
NETWORK_SHAPES = {
    **{f"W{n}": (s[0], s[1]) for n, s in MATRICES.items()},
    **{f"B{n}": (s[0], "r") for n, s in MATRICES.items()},
    **{f"L{n}": ("r", "r") for n in MATRICES},
    **{f"A{n}": ("r", s[1]) for n, s in MATRICES.items()},
    **{"Sk": ("h", "h"), "Sv": ("h", "h"), "Sf": ("f", "f")},
    **{"X": ("d", "T"), "S": ("T", "T"), "F": ("f", "T")},
}
NETWORK = Setting(
    dims=[{"d": 1, "h": 1, "f": 1, "T": 1, "r": 1}, {"d": 2, "h": 2, "f": 3, "T": 2, "r": 1}],
    free=lambda d: {n: (d[a], d[b]) for n, (a, b) in NETWORK_SHAPES.items()},
    build=lambda k, t, d: Instance(t),
    letters=lambda k: Instance({n: k.letter(n, a, b) for n, (a, b) in NETWORK_SHAPES.items()}),
    boundary=[],
)
ALL_ONES: Json = {n: [["1"]] for n in NETWORK_SHAPES}


def _network(name: str, statement: Any, weaker: Any, changed: str) -> Reading:
    return Reading(
        name=f"{name}, one attention head and one hidden layer",
        statement=statement,
        setting=NETWORK,
        evidence=WordProof(),
        scope="every size, softmax and activation, since these see equal arguments; heads and layers follow one another",
        controls=(
            Control("a merged weight larger by 1/1000", tighten="1/1000", only=changed, instance=ALL_ONES),
            Control("lengths", kind="true", statement=weaker),
        ),
    )


# -- biases --------------------------------------------------------------------------------------------------------------
def bitfit_inside(k: Kit, x: Instance) -> None:
    """Biases of the model moved by beta, on all inputs at once: `one` is a row of ones."""
    k.claim("a bias", k.eq(x.W @ x.X + x.b @ x.one + x.beta @ x.one, x.W @ x.X + (x.b + x.beta) @ x.one))


def bias_length(k: Kit, x: Instance) -> None:
    """A weaker statement: the moved bias is no longer than its parts (squared, times 2)."""
    k.claim("parts", k.le(k.fro2(x.b + x.beta), 2 * k.fro2(x.b) + 2 * k.fro2(x.beta)))


BIAS_SHAPES = {"W": ("q", "p"), "X": ("p", "N"), "b": ("q", "1"), "beta": ("q", "1"), "one": ("1", "N")}
BIASES = Setting(
    dims=[{"q": 1, "p": 1, "N": 1, "1": 1}, {"q": 2, "p": 3, "N": 2, "1": 1}],
    free=lambda d: {n: (d[a], d[b]) for n, (a, b) in BIAS_SHAPES.items()},
    build=lambda k, t, d: Instance(t),
    letters=lambda k: Instance({n: k.letter(n, a, b) for n, (a, b) in BIAS_SHAPES.items()}),
    boundary=[],
)


def bent(k: Kit, x: Instance) -> None:
    """One head, one number x as token, value v x + b; a prefix of value pv whose score exceeds the token's by s x.

    With E = e^s the prefix has the weight E^x / (1 + E^x) at the token x. Keys of the token and biases of queries are
    zero, the query is s x, the prefix key 1. Full tuning of the head, biases included, is affine in x.
    """
    k.given("E > 0", k.lt(k.num(0), x.E))
    values = []
    for token, power in ((0, k.num(1)), (1, x.E), (2, x.E * x.E)):
        own = x.v * token + x.b
        values.append(own + power / (1 + power) * (x.pv - own))
    k.claim("f(0) + f(2) = 2 f(1)", k.eq(values[0] + values[2], 2 * values[1]))


def level(k: Kit, x: Instance) -> None:
    """A prefix whose score does not move with x."""
    k.given("E = 1", k.eq(x.E, k.num(1)))
    bent(k, x)


STEEP: Json = {"v": "0", "b": "0", "pv": "1", "E": "2"}
PREFIX = Setting(
    dims=[{}],
    free=lambda d: {n: (1, 1) for n in STEEP},
    build=lambda k, t, d: Instance(
        {n: k.e(t[n], 0, 0) for n in "vb"} | {"pv": k.e(t.pv, 0, 0), "E": 1 + k.sq(k.e(t.E, 0, 0))}
    ),
    boundary=[{**STEEP, "E": "1"}],
)
LEVEL = Setting(
    dims=[{}],
    free=PREFIX.free,
    build=lambda k, t, d: Instance({n: k.e(t[n], 0, 0) for n in ("v", "b", "pv")} | {"E": k.num(1)}),
    boundary=[{**STEEP, "E": "1"}],
)


CLAIM = Claim(
    id="peft_vs_fft/thm_1_inclusion",
    source=source("Theorem 1, subset"),
    sentence="The functions that PEFT reaches are a subset of those that full tuning reaches.",
    headline=(
        "True for LoRA, AdaLoRA and (IA)^3, whose changes are changes of weights, and for BitFit where there are biases; "
        "false for prefix tuning, with biases or without."
    ),
    defect="missing hypothesis",
    readings=(
        _inside("LoRA", lora_inside),
        _inside("AdaLoRA", adalora_inside),
        _inside("(IA)^3", ia3_inside),
        _network("LoRA", lora_network, head_length, "head"),
        _network("AdaLoRA", adalora_network, head_length, "head"),
        _network("(IA)^3", ia3_network, scaled_length, "head"),
        Reading(
            name="BitFit, a model with biases",
            statement=bitfit_inside,
            setting=BIASES,
            evidence=WordProof(),
            scope="one layer of any size; biases are weights of full tuning; layers follow one another",
            controls=(
                Control(
                    "the bias larger by 1/1000", tighten="1/1000", instance={n: [["1"]] for n in BIAS_SHAPES}
                ),
                Control("lengths of biases", kind="true", statement=bias_length),
            ),
        ),
        _outside(
            "BitFit, a model without biases", bitfit_zero, bias_free, "no bias", "one weight, zero input"
        ),
        Reading(
            name="prefix tuning, a model with biases",
            statement=bent,
            setting=PREFIX,
            evidence=Counterexample(STEEP),
            scope="one attention head on one token with biases; E = 2, that is the query log(2) x",
            open_instance={"v": "1", "b": "1", "pv": "3", "E": "3"},
            repair=Repair(
                sentence="With a score that does not move with the token the prefix is a change of value and bias",
                statement=level,
                evidence=Identity([{}]),
                setting=LEVEL,
                necessary={"E = 1": STEEP},
            ),
            controls=(
                Control(
                    "the repair without its hypothesis", statement=level, drop=("E = 1",), instance=STEEP
                ),
                Control("the repair", kind="true", statement=level),
            ),
        ),
        _outside(
            "prefix tuning, a model without biases",
            prefix_zero,
            empty_prefix,
            "no prefix value",
            "one attention head, one token, one prefix",
        ),
    ),
)
