"""How far tuned weights can move the output: the capacity bound, layer by layer.

Source: Theorem 2 (second-hand). N layers x_k = sigma(W_k x_{k-1}), x_0 = x, sigma with Lipschitz constant L; base
weights with |W_k| <= M, changes Phi_k, alpha_k = L |Phi_k|. Printed: |f(x) - f0(x)| <= sum_k (M L)^(N-k) alpha_k |x|.

With x the network's input it is false for one tuned layer (two layers of one weight 2: the second layer sees 2 x, not
x) and true only for the first layer. With the base network's input of layer k it is true for one tuned layer and false
for two, since the cross term is missing. With the tuned network's input of layer k it is true. The sharp form in terms
of x is L^N [prod (m_k + phi_k) - prod m_k] |x|, m_k = |W_k|, phi_k = |Phi_k|, attained by positive numbers; with
sigma(0) != 0 or biases only the form with layer inputs survives. Nothing in it depends on how many numbers are tuned.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from theory.claim import Claim, Control, Json, Reading, Repair, Setting
from theory.evidence import Counterexample, WordProof
from theory.kits import perturbation
from theory.partial import StepProof
from theory.peft_vs_fft.setting import source
from theory.protocol import Instance, Kit

# Two layers of one weight each, with the identity (L = 1) or a shifted identity sigma(t) = t + c: every quantity is a
# number, and the printed bound reads |f - f0| <= M |Phi_1| |x| + |Phi_2| |x|.


def two_layers(k: Kit, x: Instance) -> tuple[Any, Any, Any, Any]:
    """(f - f0, base input of layer 2, tuned input of layer 2, M) for sigma(t) = t + c."""
    base, tuned = x.w1 * x.x + x.c, (x.w1 + x.p1) * x.x + x.c
    k.given("|W_1| <= M", k.le(k.abs_(x.w1), x.M))
    k.given("|W_2| <= M", k.le(k.abs_(x.w2), x.M))
    return (x.w2 + x.p2) * tuned - x.w2 * base, base, tuned, x.M


def network_input(k: Kit, x: Instance) -> None:
    """The bound with x the input of the network; sigma(0) = 0."""
    change, _, _, M = two_layers(k, x)
    k.given("sigma(0) = 0", k.eq(x.c, k.num(0)))
    bound = M * k.abs_(x.p1) * k.abs_(x.x) + k.abs_(x.p2) * k.abs_(x.x)
    k.claim("|f - f0| <= bound", k.le(k.abs_(change), bound))


def network_input_one(k: Kit, x: Instance) -> None:
    """Only the last layer is tuned."""
    k.given("only layer 2 is tuned", k.eq(x.p1, k.num(0)))
    network_input(k, x)


def base_input(k: Kit, x: Instance) -> None:
    """The bound with the base network's input of each layer."""
    change, base, _, M = two_layers(k, x)
    bound = M * k.abs_(x.p1) * k.abs_(x.x) + k.abs_(x.p2) * k.abs_(base)
    k.claim("|f - f0| <= bound", k.le(k.abs_(change), bound))


def offsets(k: Kit, x: Instance) -> None:
    """The bound with the network's input and sigma(0) != 0."""
    change, _, _, M = two_layers(k, x)
    bound = M * k.abs_(x.p1) * k.abs_(x.x) + k.abs_(x.p2) * k.abs_(x.x)
    k.claim("|f - f0| <= bound", k.le(k.abs_(change), bound))


def tuned_input(k: Kit, x: Instance) -> None:
    """The bound with the tuned network's input of each layer: it also covers sigma(0) != 0."""
    change, _, tuned, M = two_layers(k, x)
    bound = M * k.abs_(x.p1) * k.abs_(x.x) + k.abs_(x.p2) * k.abs_(tuned)
    k.claim("|f - f0| <= bound", k.le(k.abs_(change), bound))


NAMES = ("w1", "w2", "p1", "p2", "x", "c", "M")


def numbers_build(k: Kit, t: Instance, d: dict[str, Any]) -> Instance:
    """Numbers, with M the larger weight and c as the sizes say."""
    values = {n: k.e(t[n], 0, 0) for n in NAMES if n != "M"}
    c = values["c"] * d["shift"]
    return Instance({**values, "c": c, "M": k.max_(k.abs_(values["w1"]), k.abs_(values["w2"]))})


def numbers(**changes: str) -> Json:
    """Weights 1, changes 1, input 1, no shift, with changes."""
    return {"w1": "1", "w2": "1", "p1": "1", "p2": "1", "x": "1", "c": "0", "M": "1", **changes}


NUMBERS = Setting(
    dims=[{"shift": 0}, {"shift": 1}],
    free=lambda d: {n: (1, 1) for n in NAMES if n != "M"},
    build=numbers_build,
    boundary=[numbers(p1="0", p2="0"), numbers(p2="0"), numbers(x="0")],
)


# -- the step that holds in every dimension -------------------------------------------------------------------------
def layer_step(k: Kit, x: Instance) -> None:
    """One layer: inputs u (tuned network) and v (base network), outputs y1 and y0 of sigma."""
    before = (x.W + x.Phi) @ x.u - x.W @ x.v
    m, phi = k.op(x.W), k.op(x.Phi)
    k.given("L >= 0", k.le(k.num(0), x.L))
    k.given("sigma is L-Lipschitz here", k.le(k.op(x.y1 - x.y0), x.L * k.op(before)))
    apart, moved = k.op(x.u - x.v), k.op(x.y1 - x.y0)
    k.claim("base input", k.le(moved, x.L * ((m + phi) * apart + phi * k.op(x.v))))
    k.claim("tuned input", k.le(moved, x.L * (m * apart + phi * k.op(x.u))))


def layer_proof(k: Any, x: Instance) -> Mapping[str, Sequence[Any]]:
    """Triangle inequality and |A z| <= |A| |z|, times L."""
    L, lipschitz = k.hypothesis("L >= 0"), k.hypothesis("sigma is L-Lipschitz here")
    gap = x.u - x.v
    tuned = [
        perturbation.norm_of_sum(k, x.W @ gap, x.Phi @ x.u),
        perturbation.norm_of_product(k, x.W, gap),
        perturbation.norm_of_product(k, x.Phi, x.u),
    ]
    base = [
        perturbation.norm_of_sum(k, x.W @ gap + x.Phi @ gap, x.Phi @ x.v),
        perturbation.norm_of_sum(k, x.W @ gap, x.Phi @ gap),
        perturbation.norm_of_product(k, x.W, gap),
        perturbation.norm_of_product(k, x.Phi, gap),
        perturbation.norm_of_product(k, x.Phi, x.v),
    ]
    return {
        "base input": [lipschitz, *(L * term for term in base)],
        "tuned input": [lipschitz, *(L * term for term in tuned)],
    }


def layer_build(k: Kit, t: Instance, d: dict[str, Any]) -> Instance:
    """A layer with the identity as activation."""
    x = Instance(W=t.W, Phi=t.Phi, u=t.u, v=t.v, L=k.num(1))
    return Instance({**x, "y1": (t.W + t.Phi) @ t.u, "y0": t.W @ t.v})


LAYER = Setting(
    dims=[{"m": 1, "n": 1}, {"m": 2, "n": 2}, {"m": 3, "n": 2}],
    free=lambda d: {"W": (d["m"], d["n"]), "Phi": (d["m"], d["n"]), "u": (d["n"], 1), "v": (d["n"], 1)},
    build=layer_build,
    letters=lambda k: Instance(
        W=k.letter("W", "m", "n"),
        Phi=k.letter("Phi", "m", "n"),
        u=k.letter("u", "n", 1),
        v=k.letter("v", "n", 1),
        y1=k.letter("y1", "m", 1),
        y0=k.letter("y0", "m", 1),
        L=k.number("L"),
    ),
    boundary=[],
)
ATTAINED: Json = {
    "W": [["1"]],
    "Phi": [["1"]],
    "u": [["2"]],
    "v": [["1"]],
    "y1": [["4"]],
    "y0": [["1"]],
    "L": "1",
}


def doubled(k: Kit, x: Instance) -> None:
    """A weaker step, with twice the base term."""
    before = (x.W + x.Phi) @ x.u - x.W @ x.v
    k.given("sigma is L-Lipschitz here", k.le(k.op(x.y1 - x.y0), x.L * k.op(before)))
    bound = x.L * 2 * ((k.op(x.W) + k.op(x.Phi)) * k.op(x.u - x.v) + k.op(x.Phi) * k.op(x.v))
    k.claim("twice", k.le(k.op(x.y1 - x.y0), bound))


STEP = Repair(
    sentence=(
        "Per layer |y1 - y0| <= L [(m + phi) |u - v| + phi |v|]; over N layers with sigma(0) = 0 this gives "
        "L^N [prod (m_k + phi_k) - prod m_k] |x|, attained by positive numbers"
    ),
    statement=layer_step,
    evidence=StepProof(layer_proof),
    setting=LAYER,
    sharp=ATTAINED,
)
STEP_CONTROLS = (
    Control(
        "the step smaller by 1/50", statement=layer_step, tighten="1/50", only="base input", instance=ATTAINED
    ),
    Control("twice the step", kind="true", statement=doubled),
)


def _refuted(name: str, statement: Any, instance: Json, wide: Json, scope: str) -> Reading:
    return Reading(
        name=name,
        statement=statement,
        setting=NUMBERS,
        evidence=Counterexample(instance),
        scope=scope,
        open_instance=wide,
        repair=STEP,
        controls=STEP_CONTROLS,
    )


LITERAL = Claim(
    id="peft_vs_fft/thm_2_literal",
    source=source("Theorem 2, (6)"),
    sentence="|f(x) - f0(x)| <= sum over layers k of (M L)^(N-k) alpha_k |x|, with alpha_k = L |Phi_k|.",
    headline=(
        "False with x the network's input, already for one tuned layer; with layer inputs it is true for one layer, and "
        "for several only with the tuned network's inputs."
    ),
    defect="missing hypothesis",
    readings=(
        _refuted(
            "x the network's input, one tuned layer",
            network_input_one,
            numbers(w1="2", w2="0", p1="0", M="2"),
            numbers(w1="2", p1="0", M="2"),
            "two layers of one weight, the second one tuned",
        ),
        _refuted(
            "x the network's input, several tuned layers",
            network_input,
            numbers(),
            numbers(w1="2", M="2"),
            "two layers of one weight",
        ),
        _refuted(
            "x the base network's input of each layer, several tuned layers",
            base_input,
            numbers(),
            numbers(w1="2", w2="2", M="2"),
            "two layers of one weight: the cross term Phi_2 Phi_1 x is missing",
        ),
        Reading(
            name="x the tuned network's input of each layer",
            statement=layer_step,
            setting=LAYER,
            evidence=StepProof(layer_proof),
            scope="one layer of any size and any Lipschitz activation; N layers by applying it N times",
            sharp=ATTAINED,
            controls=STEP_CONTROLS,
        ),
    ),
)

OFFSETS = Claim(
    id="peft_vs_fft/thm_2_offsets",
    source=source("Theorem 2, with biases or sigma(0) != 0"),
    sentence="The bound of Theorem 2 holds for activations with sigma(0) != 0 and for layers with biases.",
    headline="False: at x = 0 the bound is 0 while the output moves; the form with layer inputs holds.",
    defect="missing hypothesis",
    uses=("peft_vs_fft/thm_2_literal",),
    readings=(
        _refuted(
            "sigma(t) = t + 1, or a bias 1",
            offsets,
            numbers(x="0", c="1", p1="0", w1="0", w2="0"),
            numbers(x="0", c="1"),
            "two layers of one weight at x = 0",
        ),
    ),
)


# -- which layers matter --------------------------------------------------------------------------------------------
def later_coefficient(k: Kit, x: Instance) -> None:
    """The coefficient of the last layer, 1, against that of the one before, M L."""
    k.claim("later layers weigh more", k.le(x.M * x.L, k.num(1)))


def later_coefficient_small(k: Kit, x: Instance) -> None:
    """The same when M L <= 1."""
    k.given("M L <= 1", k.le(x.M * x.L, k.num(1)))
    later_coefficient(k, x)


def actual_effect(k: Kit, x: Instance) -> None:
    """The effect of the same change in the second and in the first of two layers with equal weights."""
    first, second = x.w * x.p * x.x, x.p * x.w * x.x
    k.given("it has an effect", k.lt(k.num(0), k.abs_(second)))
    k.claim("the later layer has the larger effect", k.lt(k.abs_(first), k.abs_(second)))


def equal_effect(k: Kit, x: Instance) -> None:
    """In a linear network of equal weights the two effects are the same."""
    k.claim("equal effects", k.eq(x.w * x.p * x.x, x.p * x.w * x.x))


UNITS: Json = {"M": "2", "L": "1", "w": "1", "p": "1", "x": "1"}
ORDER_SETTING = Setting(
    dims=[{}],
    free=lambda d: {n: (1, 1) for n in UNITS},
    build=lambda k, t, d: Instance({n: k.e(t[n], 0, 0) for n in UNITS}),
    letters=lambda k: Instance({n: k.number(n) for n in UNITS}),
    boundary=[{**UNITS, "M": "1"}, {**UNITS, "M": "1/2"}],
)
LAYER_ORDER = Claim(
    id="peft_vs_fft/thm_2_layer_order",
    source=source("Theorem 2, remark on layers"),
    sentence="Parameters nearer the output have the larger effect.",
    headline=(
        "False for M L > 1, where the bound's own coefficients say the opposite; and in a linear network of equal weights "
        "all layers have the same effect."
    ),
    setting=ORDER_SETTING,
    defect="false statement",
    uses=("peft_vs_fft/thm_2_literal",),
    readings=(
        Reading(
            name="coefficients of the bound",
            statement=later_coefficient,
            evidence=Counterexample(UNITS),
            scope="M L = 2",
            open_instance=UNITS,
            repair=Repair(
                sentence="The coefficients grow towards the output iff M L <= 1",
                statement=later_coefficient_small,
                evidence=WordProof(lambda k, x: {"later layers weigh more": [k.hypothesis("M L <= 1")]}),
                necessary={"M L <= 1": UNITS},
                sharp={**UNITS, "M": "1"},
            ),
            controls=(
                Control(
                    "the repair for M L > 1",
                    statement=later_coefficient_small,
                    drop=("M L <= 1",),
                    instance=UNITS,
                ),
                Control("the repair", kind="true", statement=later_coefficient_small),
            ),
        ),
        Reading(
            name="effect on the output",
            statement=actual_effect,
            evidence=Counterexample(UNITS),
            scope="two linear layers of one weight",
            open_instance={**UNITS, "w": "2"},
            repair=Repair(
                sentence="In a linear network of equal weights the same change has the same effect in every layer",
                statement=equal_effect,
                evidence=WordProof(),
                sharp=UNITS,
            ),
            controls=(
                Control(
                    "the repair larger by 1/1000", statement=equal_effect, tighten="1/1000", instance=UNITS
                ),
                Control("the repair", kind="true", statement=equal_effect),
            ),
        ),
    ),
)


# -- does it separate PEFT from full tuning? --------------------------------------------------------------------------
def separation(k: Kit, x: Instance) -> None:
    """With changes of equal norm the bound is smaller for PEFT (rank 1) than for full tuning (rank 2)."""
    k.given("equal norms", k.eq(k.op(x.low), k.op(x.high)))
    k.given("PEFT has the smaller rank", k.lt(k.rank(x.low), k.rank(x.high)))
    k.claim("smaller bound for PEFT", k.lt(k.op(x.low), k.op(x.high)))


def no_separation(k: Kit, x: Instance) -> None:
    """The term L |Phi| |x| of the bound for a change whose norm is not larger, whatever the ranks."""
    k.given("a norm not larger", k.le(k.op(x.low), k.op(x.high)))
    k.given("L |x| >= 0", k.le(k.num(0), x.scale))
    k.claim("a bound not larger", k.le(x.scale * k.op(x.low), x.scale * k.op(x.high)))


def no_separation_proof(k: Any, x: Instance) -> Mapping[str, Sequence[Any]]:
    """The two hypotheses, multiplied."""
    return {"a bound not larger": [k.hypothesis("L |x| >= 0") * k.hypothesis("a norm not larger")]}


PAIR: Json = {"low": [["1", "0"], ["0", "0"]], "high": [["1", "0"], ["0", "1"]], "scale": "1"}
LARGER: Json = {"low": [["2"]], "high": [["1"]], "scale": "1"}
SEPARATION = Claim(
    id="peft_vs_fft/thm_2_separation",
    source=source("Theorem 2, its use against PEFT"),
    sentence="Because k is small, the bound limits PEFT more than full tuning.",
    headline="False: the bound sees norms only, so a change of rank one and a full one of equal norm have the same bound.",
    setting=Setting(
        dims=[{"n": 2}],
        free=lambda d: {"low": (2, 2), "high": (2, 2), "scale": (1, 1)},
        build=lambda k, t, d: Instance(low=t.low, high=t.high, scale=k.sq(k.e(t.scale, 0, 0))),
        letters=lambda k: Instance(
            low=k.letter("low", "m", "n"), high=k.letter("high", "m", "n"), scale=k.number("scale")
        ),
        boundary=[{"low": [["1"]], "high": [["1"]], "scale": "1"}],
    ),
    defect="false statement",
    uses=("peft_vs_fft/thm_2_literal",),
    readings=(
        Reading(
            name="at equal norms of the change",
            statement=separation,
            evidence=Counterexample(PAIR),
            scope="2 x 2, ranks 1 and 2",
            open_instance=None,
            repair=Repair(
                sentence="The bound orders methods by |Phi| alone: whose norm is not larger, its bound is not larger",
                statement=no_separation,
                evidence=WordProof(no_separation_proof),
                necessary={"a norm not larger": LARGER},
                sharp=PAIR,
            ),
            controls=(
                Control(
                    "a larger norm for PEFT",
                    statement=no_separation,
                    drop=("a norm not larger",),
                    instance=LARGER,
                ),
                Control("the repair", kind="true", statement=no_separation),
            ),
        ),
    ),
)

CLAIMS = (LITERAL, OFFSETS, LAYER_ORDER, SEPARATION)
