"""The PAC-Bayes bound as quoted, and its case without training: Theorems 3 and 4.

Source: LoRA past, present, future, Theorems 3 and 4, C.1.5, after Li and Zhang (2021), Theorem 4.1. With probability
1 - 2 delta over n data, for |x| <= C, C >= 1, a 1-Lipschitz loss bounded by C2, |W0^i| <= A_i, A_i > 1, |dW^i| <= Q_i,
V the largest layer size:

    G(W0 + dW) <= eps + C2 sqrt(((36 / eps^2) C^2 V log(4 L V C2) (sum_i prod_j (A_j + Q_j) / (A_i + Q_i))^2 sum Q_i^2
                                 + 3 ln(n / delta) + 8) / n).

As quoted it breaks in two ways. (1) No activation is bounded in slope: with x uniform on 10^7 unit vectors, fair labels
independent of x and a steep clipped ramp, dW of norm 10^-7 writes any 1000 labels, so G = 1/2 unless an input comes
twice. (2) log(4 L V C2) < 0 for small C2: there Q may be chosen so that it nearly cancels the rest, and a loss C2 [y = 1]
that ignores the network has G = C2 / 2 half of the time for n = 1, which is above the bound.

Theorem 4 puts Q = 0 for W0 and adds Phi_dW. For fixed weights Hoeffding gives C2 sqrt(ln(1 / (2 delta)) / (2 n)) with
probability 1 - 2 delta, for any activation, without eps and always smaller; with the right offsets of Theorem 1 the sum
is true. With the printed offsets it is false: Phi is 0 for W0 = 0 with a first activation equal to 1 at 0 and only the
second layer trained; its weight then picks one of 2^n patterns of a loss after the data are seen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

from theory.claim import Claim, Control, Json, Reading, Repair, Setting
from theory.evidence import Custom, Open
from theory.instances import load
from theory.kits.exact import Exact
from theory.kits.reals import sqrt_interval
from theory.lora_variants import index_functions as index
from theory.lora_variants.information import ln
from theory.lora_variants.setting import source
from theory.partial import StepProof
from theory.protocol import Instance, Kit

SAMPLES, CONFIDENCE, TWO = "n >= 1", "delta <= 1/2", "ln 2 >= 0"
RADICAND = "2 n times the radicand"
TOTAL, ORDER = "G(W0 + dW)", "the larger radicand has the larger root"


# -- the printed right side -----------------------------------------------------------------------------------
def radicand(data: Json) -> tuple[Fraction, Fraction]:
    """The size n of the sample times what stands under the root for one layer (the sum over layers is then 1), enclosed."""
    C, C2, eps, Q, delta = (Fraction(data[name]) for name in ("C", "C2", "eps", "Q", "delta"))
    factor = 36 / eps**2 * C * C * data["V"] * Q * Q
    logs, rest = ln(4 * data["V"] * C2), ln(data["n"] / delta)
    return factor * logs[0] + 3 * rest[0] + 8, factor * logs[1] + 3 * rest[1] + 8


def right_side(data: Json) -> Fraction:
    """An upper bound of eps + C2 sqrt(radicand / n)."""
    high = radicand(data)[1] / data["n"]
    return Fraction(data["eps"]) + Fraction(data["C2"]) * sqrt_interval(high, 60)[1]


def verdict(data: Json, gap: Fraction, often: Fraction) -> str | None:
    """A complaint unless G exceeds the right side with a probability above 2 delta."""
    if radicand(data)[0] < 0:
        return "the root is not defined"
    if gap <= right_side(data):
        return f"G = {gap} is within {float(right_side(data)):.4g}"
    if often <= 2 * Fraction(data["delta"]):
        return f"a probability of {often} is allowed"
    return None


def steep() -> Json:
    """L = 1, W0 = 0, V inputs e_i, activation clip(t sqrt(n) / Q, 0, 1), labels fair and independent of the inputs."""
    return {"C": "1", "C2": "1", "eps": "1/10", "Q": f"1/{10**7}", "delta": "1/8", "V": 10**7, "n": 1000}


def steep_breaks(data: Json) -> str | None:
    """The update has Q / sqrt(n) at the inputs with label 1; if the n inputs differ the sample is fitted and G = 1/2."""
    n, V = data["n"], data["V"]
    return verdict(data, Fraction(1, 2), 1 - Fraction(n * (n - 1), 2 * V))


def small_loss() -> Json:
    """L = V = n = 1, the loss C2 [y = 1] with fair y."""
    return {"C": "1", "C2": "1/100", "eps": "1/1000", "Q": "35/100000", "delta": "1/8", "V": 1, "n": 1}


def small_loss_breaks(data: Json) -> str | None:
    """G = C2 / 2 when the datum is 0, half of the time."""
    return verdict(data, Fraction(data["C2"]) / 2, Fraction(1, 2))


def patterns() -> Json:
    """Two scalar layers, W0 = 0, sigma_1(u) = u + 1, dW = (0, z), z = 1, ..., 2^n; fair independent bits y_z as labels.

    The loss is max_z y_z max(0, 1/2 - |f - z|), so C2 = 1/2, and y_z / 2 at f = z.
    """
    norms = index.layers(2, s1="1", d2=str(2**200))
    return {"C": "1", "C2": "1/2", "eps": "1/100", "Q": "0", "delta": "1/8", "V": 1, "n": 200, "norms": norms}


def printed_offsets(data: Json, exchanged: bool = False) -> Fraction:
    """Phi_dW with the printed index functions (loss and activations have Lipschitz constant 1)."""
    k = Exact()
    x = load(k, data["norms"])
    products = index.products(k, x, 1, 2**x.L - 1)
    total: Fraction = 2 * (x.C * products + index.offsets(k, x, index.around_start(x.L), exchanged))
    return total


def patterns_break(data: Json, exchanged: bool = False) -> str | None:
    """If some pattern is zero on all n data, z picks it: empirical risk 0, risk 1/4.

    One pattern does so with probability u = 2^-n, none of 2^n with (1 - u)^(1/u) <= 1 / (1 + 1) = 1/2.
    """
    if int(data["norms"]["d2"]) < 2 ** data["n"]:
        return "fewer than 2^n patterns"
    return verdict(data, Fraction(data["C2"]) / 2 - printed_offsets(data, exchanged), Fraction(1, 2))


# -- without training: Hoeffding ------------------------------------------------------------------------------
def hoeffding(k: Kit, x: Instance) -> None:
    """ln(1 / (2 delta)) / 2 <= 3 ln(n / delta), doubled, with the logarithms of n, 1 / delta and 2 as numbers."""
    k.given(SAMPLES, k.le(k.num(0), x.log_n))
    k.given(CONFIDENCE, k.le(x.log_2, x.log_delta))
    k.given(TWO, k.le(k.num(0), x.log_2))
    k.claim(RADICAND, k.le(x.log_delta - x.log_2, 6 * (x.log_n + x.log_delta)))


def hoeffding_proof(k: Any, x: Instance) -> Mapping[str, Sequence[Any]]:
    """6 ln n + 5 (ln(1 / delta) - ln 2) + 6 ln 2."""
    n, delta, two = (k.hypothesis(name) for name in (SAMPLES, CONFIDENCE, TWO))
    return {RADICAND: [*6 * [n], *5 * [delta], *6 * [two]]}


def twice(k: Kit, x: Instance) -> None:
    """A weaker statement: with 12 in place of 6."""
    k.given(SAMPLES, k.le(k.num(0), x.log_n))
    k.given(CONFIDENCE, k.le(x.log_2, x.log_delta))
    k.given(TWO, k.le(k.num(0), x.log_2))
    k.claim(RADICAND, k.le(x.log_delta - x.log_2, 12 * (x.log_n + x.log_delta)))


def sum_of_both(k: Kit, x: Instance) -> None:
    """G(W0 + dW) <= eps + C2 root + Phi, root the printed one, h Hoeffding's, G0 = G(W0), G1 = G(W0 + dW)."""
    k.given("Hoeffding for W0", k.le(x.G0, x.C2 * x.h))
    k.given("Theorem 1 with the right offsets", k.le(x.G1, x.G0 + x.Phi))
    k.given("eps >= 0", k.le(k.num(0), x.eps))
    k.given("C2 >= 0", k.le(k.num(0), x.C2))
    k.given("Hoeffding's root", k.eq(2 * x.n * x.h * x.h, x.log_delta - x.log_2))
    k.given("the printed root", k.eq(x.n * x.root * x.root, 3 * (x.log_n + x.log_delta) + 8))
    k.given(ORDER, k.le(x.h, x.root))
    k.claim(TOTAL, k.le(x.G1, x.eps + x.C2 * x.root + x.Phi))
    hoeffding(k, x)


def sum_proof(k: Any, x: Instance) -> Mapping[str, Sequence[Any]]:
    """The chain of the hypotheses; that the roots are in order is what the radicands say."""
    use = k.hypothesis
    chain = [use("Theorem 1 with the right offsets"), use("Hoeffding for W0"), use("eps >= 0")]
    return {TOTAL: [*chain, use("C2 >= 0") * use(ORDER)], **hoeffding_proof(k, x)}


def build_sum(k: Kit, t: Instance, d: dict[str, Any]) -> Instance:
    """One datum (n = 1), roots from which the logarithms follow."""
    s = {name: k.sq(k.e(t[name], 0, 0)) for name in PARAMETERS}
    root = 3 * (s["h"] + s["log_2"] + 1) + s["more"]
    log_delta = s["log_2"] + 2 * s["h"] * s["h"]
    G0 = s["C2"] * s["h"] - s["G0"]
    return Instance(
        G0=G0, G1=G0 + s["Phi"] - s["G1"], Phi=s["Phi"], C2=s["C2"], eps=s["eps"], h=s["h"], root=root, n=k.num(1),
        log_n=(root * root - 8) / 3 - log_delta, log_delta=log_delta, log_2=s["log_2"],
    )  # fmt: skip


LOGARITHMS = ("log_n", "log_delta", "log_2")
ONE_DATUM: Json = {"log_n": "0", "log_delta": "7/10", "log_2": "7/10"}
LARGE: Json = {"log_n": "0", "log_delta": "1000", "log_2": "7/10"}
NUMBERS = Setting(
    dims=[{}],
    free=lambda d: {name: (1, 1) for name in LOGARITHMS},
    build=lambda k, t, d: Instance(
        log_n=k.sq(k.e(t.log_n, 0, 0)),
        log_delta=k.sq(k.e(t.log_2, 0, 0)) + k.sq(k.e(t.log_delta, 0, 0)),
        log_2=k.sq(k.e(t.log_2, 0, 0)),
    ),
    letters=lambda k: Instance({name: k.number(name) for name in LOGARITHMS}),
    boundary=[ONE_DATUM, LARGE],
)
PARAMETERS = ("h", "log_2", "more", "C2", "eps", "Phi", "G0", "G1")
ALL_PHI: Json = {
    "G0": "0", "G1": "1", "Phi": "1", "C2": "0", "eps": "0", "h": "1", "root": "5", "n": "1",
    "log_n": "89/30", "log_delta": "27/10", "log_2": "7/10",
}  # fmt: skip
SUMS = Setting(
    dims=[{}],
    free=lambda d: {name: (1, 1) for name in PARAMETERS},
    build=build_sum,
    letters=lambda k: Instance({name: k.number(name) for name in ALL_PHI}),
    boundary=[ALL_PHI],
)
SIXTH = Control(
    "Hoeffding's radicand against 0.16 of the printed one",
    statement=hoeffding,
    tighten="21/25",
    instance=LARGE,
)
TWICE = Control("twice the right side", kind="true", statement=twice, instance=LARGE)
WITHOUT_TRAINING = Repair(
    sentence=(
        "for weights that do not depend on the data, with probability 1 - 2 delta, G <= C2 sqrt(ln(1 / (2 delta)) / (2 n)) "
        "(Hoeffding, quoted), which is below the printed bound at Q = 0"
    ),
    statement=hoeffding,
    setting=NUMBERS,
    evidence=StepProof(hoeffding_proof),
    sharp=LARGE,
)


def forty(data: Json, shrink: int) -> bool:
    """Whether G = 1/2 exceeds 1 / shrink of the right side for 40 data."""
    return Fraction(1, 2) > right_side({**data, "n": 40}) / shrink


FEW = Control(
    "a third of the right side, for 40 data",
    check=lambda: forty(steep(), 3),
    spares=lambda: forty(steep(), 1),
)

THEOREM_3 = Claim(
    id="lora_variants/thm_3",
    source=source("Theorem 3, C.1.5 (quoted from Li and Zhang, Theorem 4.1)"),
    sentence="With probability 1 - 2 delta, G(W0 + dW) is at most the PAC-Bayes bound in the norms of W0 and dW.",
    headline=(
        "False as quoted: activations need bounded slopes, and the logarithm turns negative for small losses. With both "
        "mended it is the cited theorem, not settled here; without training a sharper bound is elementary."
    ),
    defect="missing hypothesis",
    readings=(
        Reading(
            name="any activation, as quoted",
            evidence=Custom(
                status="refuted",
                produce=steep,
                verify=steep_breaks,
                about="one layer that writes labels; right side enclosed by rationals",
            ),
            scope="L = 1, V = 10^7, n = 1000, delta = 1/8, eps = 1/10: G = 1/2 with probability above 0.95",
            repair=WITHOUT_TRAINING,
            controls=(FEW,),
        ),
        Reading(
            name="1-Lipschitz activations, any C2",
            sentence="The same for 1-Lipschitz activations and every C2 >= 0.",
            evidence=Custom(
                status="refuted",
                produce=small_loss,
                verify=small_loss_breaks,
                about="one datum, a loss that ignores the network; right side enclosed by rationals",
            ),
            scope="C2 = 1/100, so log(4 L V C2) < 0; G = C2 / 2 with probability 1/2 > 2 delta",
            repair=WITHOUT_TRAINING,
            controls=(FEW,),
        ),
        Reading(
            name="1-Lipschitz activations and C2 >= 1",
            sentence="The same for 1-Lipschitz activations and C2 >= 1.",
            evidence=Open(
                "quoted from another paper, whose proof and exact hypotheses the text at hand does not hold"
            ),
        ),
    ),
)
THEOREM_4 = Claim(
    id="lora_variants/thm_4",
    source=source("Theorem 4, C.1.5"),
    sentence=(
        "With probability 1 - 2 delta, G(W0 + dW) <= eps + C2 sqrt((3 ln(n / delta) + 8) / n) + Phi_dW for fixed W0."
    ),
    headline=(
        "False with the printed offsets in Phi_dW; true with the right ones, where Hoeffding needs a sixth of the radicand."
    ),
    defect="misprint",
    uses=("lora_variants/thm_1", "lora_variants/thm_1_index_F"),
    readings=(
        Reading(
            name="offsets as printed",
            evidence=Custom(
                status="refuted",
                produce=patterns,
                verify=patterns_break,
                about="a network that picks a pattern after the data; right side enclosed by rationals",
            ),
            scope="two scalar layers, n = 200, delta = 1/8, eps = 1/100: Phi_dW = 0, G = C2 / 2 in half of all cases",
            repair=Repair(
                sentence="the same with the offsets of the expansion",
                statement=sum_of_both,
                setting=SUMS,
                evidence=StepProof(sum_proof),
                sharp=ALL_PHI,
            ),
            controls=(
                SIXTH,
                Control(
                    "the same with the right offsets",
                    kind="true",
                    check=lambda: patterns_break(patterns(), True) is None,
                ),
            ),
        ),
        Reading(
            name="offsets of the expansion",
            sentence="The same with the offsets of the expansion, W0 independent of the data.",
            statement=sum_of_both,
            setting=SUMS,
            evidence=StepProof(sum_proof),
            scope=(
                "the sum of Hoeffding's inequality for W0, quoted, and thm_1 with the right offsets, with their radicands "
                "compared; any activation, delta <= 1/2, losses in [0, C2]"
            ),
            sharp=ALL_PHI,
            unused=("Hoeffding's root", "the printed root"),
            controls=(
                Control("right side smaller by 1/50", tighten="1/50", only=TOTAL, instance=ALL_PHI),
                SIXTH,
                TWICE,
            ),
        ),
    ),
)
CLAIMS = (THEOREM_3, THEOREM_4)
