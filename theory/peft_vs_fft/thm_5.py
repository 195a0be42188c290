"""How much more data helps full tuning and PEFT: bounds, true risks, complexities, and where the curves cross.

Source: Theorem 5 and Figure 2 (second-hand). d and k tuned numbers, N samples, noise variance v, b the risk that PEFT
cannot remove (bias). For Gaussian inputs of identity covariance and N > d + 1 the excess risk of least squares on d
coordinates is v d / (N - d - 1); on k of them (v + b) k / (N - k - 1) + b, since what is left out acts as noise.

- Of the bounds sqrt(d/N), sqrt(k/N) the marginal benefits have the ratio sqrt(d/k) exactly.
- Of the risks not: without bias the benefit of one more sample has the ratio d (N-k-1)(N-k) / (k (N-d-1)(N-d)), at least
  d/k; with a large bias PEFT gains more from data than full tuning. Below N = d the minimum-norm risk can rise with N.
- Exact Rademacher complexities of linear classes of equal norm agree when the inputs lie in PEFT's subspace; PEFT's is
  never the larger one.
- The learning curves cross exactly once beyond N = d + 1 when b > 0, at the larger root of a quadratic; nothing singles
  out 20 samples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from itertools import product
from typing import Any

from theory.claim import Claim, Control, Json, Reading, Repair, Setting
from theory.evidence import Counterexample, Custom, WordProof
from theory.peft_vs_fft.setting import source
from theory.protocol import Instance, Kit


# -- the bounds ---------------------------------------------------------------------------------------------------------
def slope(k: Kit, x: Instance) -> None:
    """With a = sqrt(d), c = sqrt(k), u = 1/sqrt(N), w = 1/sqrt(N'): (a u - a w) c = (c u - c w) a."""
    k.claim("ratio sqrt(d/k)", k.eq((x.a * x.u - x.a * x.w) * x.c, (x.c * x.u - x.c * x.w) * x.a))


def slope_order(k: Kit, x: Instance) -> None:
    """A consequence for squares: 0 <= ((a u - a w) c)^2."""
    k.claim("square", k.le(k.num(0), k.sq((x.a * x.u - x.a * x.w) * x.c)))


ROOTS: Json = {"a": "2", "c": "1", "u": "1", "w": "1/2"}
SLOPE = Claim(
    id="peft_vs_fft/thm_5_slope",
    source=source("Theorem 5, bounds"),
    sentence="The marginal benefit of data in the bounds sqrt(d/N) and sqrt(k/N) is larger for full tuning by sqrt(d/k).",
    headline="True of the bounds, exactly; it is a statement on upper bounds and says nothing on the risks.",
    setting=Setting(
        dims=[{}],
        free=lambda d: {n: (1, 1) for n in ROOTS},
        build=lambda k, t, d: Instance({n: k.e(t[n], 0, 0) for n in ROOTS}),
        letters=lambda k: Instance({n: k.number(n) for n in ROOTS}),
        boundary=[ROOTS],
    ),
    readings=(
        Reading(
            name="of the bounds",
            statement=slope,
            evidence=WordProof(),
            scope="every d, k, N, N'",
            vacuous="a difference of upper bounds bounds no difference of risks",
            sharp=ROOTS,
            controls=(
                Control("larger by 1/1000", tighten="1/1000", instance=ROOTS),
                Control("squares are not negative", kind="true", statement=slope_order),
            ),
        ),
    ),
)


# -- the risks ----------------------------------------------------------------------------------------------------------
def benefits(k: Kit, x: Instance) -> tuple[Any, Any]:
    """What one more sample gains: (full, PEFT), by the formulas of the docstring."""
    k.given("N > d + 1", k.lt(x.d + 1, x.N))
    k.given("d > k > 0", k.all_(k.lt(x.k, x.d), k.lt(k.num(0), x.k)))
    k.given("variance and bias", k.all_(k.lt(k.num(0), x.v), k.le(k.num(0), x.b)))
    full = x.v * x.d / ((x.N - x.d - 1) * (x.N - x.d))
    peft = (x.v + x.b) * x.k / ((x.N - x.k - 1) * (x.N - x.k))
    return full, peft


def risk_larger(k: Kit, x: Instance) -> None:
    """Full tuning gains more from one more sample."""
    full, peft = benefits(k, x)
    k.claim("full gains more", k.le(peft, full))


def risk_ratio(k: Kit, x: Instance) -> None:
    """The ratio of the benefits is sqrt(d/k) (compared as squares)."""
    full, peft = benefits(k, x)
    k.claim("ratio", k.eq(full * full * x.k, peft * peft * x.d))


def risk_without_bias(k: Kit, x: Instance) -> None:
    """Without bias: peft * d <= full * k ... multiplied out: k (N-d-1)(N-d) d <= d (N-k-1)(N-k) k."""
    k.given("d - k >= 0", k.le(x.k, x.d))
    k.given("N - d >= 1", k.le(x.d + 1, x.N))
    k.given("k >= 0", k.le(k.num(0), x.k))
    left = (x.N - x.d - 1) * (x.N - x.d)
    right = (x.N - x.k - 1) * (x.N - x.k)
    k.claim("ratio >= d/k", k.le(x.k * left, x.k * right))


def risk_proof(k: Any, x: Instance) -> Mapping[str, Sequence[Any]]:
    """The difference is k (d - k) (2 (N - d - 1) + (d - k) + 1)."""
    gap, room, size = k.hypothesis("d - k >= 0"), k.hypothesis("N - d >= 1"), k.hypothesis("k >= 0")
    return {"ratio >= d/k": [size * gap * room, size * gap * room, size * gap * gap, size * gap]}


SAMPLES: Json = {"d": "2", "k": "1", "N": "4", "v": "1", "b": "0"}
BIASED: Json = {**SAMPLES, "b": "6"}


def samples_build(k: Kit, t: Instance, d: dict[str, Any]) -> Instance:
    """Sizes as numbers, a positive variance and a bias."""
    v, b = k.sq(k.e(t.v, 0, 0)) + 1, k.sq(k.e(t.b, 0, 0))
    return Instance({**{n: k.num(d[n]) for n in ("d", "k", "N")}, "v": v, "b": b})


RISK_SETTING = Setting(
    dims=[
        {"d": 2, "k": 1, "N": 4},
        {"d": 2, "k": 1, "N": 10},
        {"d": 5, "k": 2, "N": 9},
        {"d": 20, "k": 3, "N": 60},
    ],
    free=lambda d: {"v": (1, 1), "b": (1, 1)},
    build=samples_build,
    letters=lambda k: Instance({n: k.number(n) for n in SAMPLES}),
    boundary=[{**SAMPLES, "N": "10"}],
)


def ridgeless(d: int, N: int, energy: Fraction, v: Fraction) -> Fraction:
    """Excess risk of the minimum-norm fit for N < d - 1: energy (1 - N/d) + v N / (d - N - 1)."""
    return energy * (1 - Fraction(N, d)) + v * Fraction(N, d - N - 1)


def descent() -> Json:
    """Risks of the minimum-norm fit below N = d, noise 1, energy 1."""
    return {"d": 10, "risk": [[N, str(ridgeless(10, N, Fraction(1), Fraction(1)))] for N in range(0, 9)]}


def risk_rises(payload: Json) -> str | None:
    """Some step of more data raises the risk.

    Already the first: with one sample x the fit keeps the share 1 / d of the target in the mean and adds the noise
    v E 1 / |x|^2 = v / (d - 2), the mean of an inverse chi-square variable.
    """
    values = [Fraction(r) for _, r in payload["risk"]]
    for N, shown in payload["risk"]:
        if Fraction(shown) != ridgeless(payload["d"], N, Fraction(1), Fraction(1)):
            return f"the risk at N = {N} is not {shown}"
    return None if any(a < b for a, b in zip(values, values[1:], strict=False)) else "the risk never rises"


def _without_noise() -> Json:
    return {"d": 10, "risk": [[N, str(ridgeless(10, N, Fraction(1), Fraction(0)))] for N in range(0, 9)]}


RATIO_REPAIR = Repair(
    sentence="Without bias the ratio of the benefits is at least d/k (not sqrt(d/k)); with bias it can be below 1",
    statement=risk_without_bias,
    evidence=WordProof(risk_proof),
    sharp={**SAMPLES, "d": "1"},
)
RATIO_CONTROLS = (
    Control(
        "the repair for d < k",
        statement=risk_without_bias,
        drop=("d - k >= 0",),
        instance={**SAMPLES, "k": "3", "N": "5"},
    ),
    Control("the repair", kind="true", statement=risk_without_bias),
)
RISK = Claim(
    id="peft_vs_fft/thm_5_risk",
    source=source("Theorem 5, read as a statement on risks"),
    sentence="The marginal benefit of data for the true risk of full tuning exceeds that of PEFT by sqrt(d/k).",
    headline=(
        "False in Gaussian least squares: without bias the ratio is at least d/k, with a bias PEFT can gain more, and "
        "below N = d more data can hurt full tuning."
    ),
    setting=RISK_SETTING,
    defect="false statement",
    uses=("peft_vs_fft/thm_5_slope",),
    readings=(
        Reading(
            name="larger at all, N > d + 1",
            statement=risk_larger,
            evidence=Counterexample(BIASED),
            scope="d = 2, k = 1, N = 4, noise 1, bias 6",
            open_instance={**BIASED, "b": "8"},
            repair=RATIO_REPAIR,
            controls=RATIO_CONTROLS,
        ),
        Reading(
            name="ratio sqrt(d/k), N > d + 1",
            statement=risk_ratio,
            evidence=Counterexample(SAMPLES),
            scope="d = 2, k = 1, N = 4, no bias",
            open_instance=SAMPLES,
            repair=RATIO_REPAIR,
            controls=RATIO_CONTROLS,
        ),
        Reading(
            name="N < d, minimum norm",
            sentence="More data always lowers the risk of full tuning.",
            evidence=Custom(
                status="refuted",
                produce=descent,
                verify=risk_rises,
                about="exact risks of the minimum-norm fit (means of inverse Wishart matrices, elementary for one sample)",
            ),
            scope="d = 10, noise and signal of energy 1",
            controls=(
                Control(
                    "without noise the risk never rises",
                    check=lambda: risk_rises(_without_noise()) is not None,
                ),
                Control("the risks", kind="true", check=lambda: risk_rises(descent()) is not None),
            ),
        ),
    ),
)


# -- Rademacher complexity ---------------------------------------------------------------------------------------------
def complexities(inputs: Sequence[Sequence[int]], kept: Sequence[int]) -> tuple[Fraction, Fraction]:
    """Mean over all signs of |sum eps_i x_i|^2, for the inputs and for their kept coordinates.

    The complexity of {w : |w| <= 1} is the mean of the length; its square is bounded by and, where all lengths agree,
    equal to this mean, which is rational.
    """
    totals = [Fraction(0), Fraction(0)]
    signs = list(product((-1, 1), repeat=len(inputs)))
    for eps in signs:
        v = [sum(e * x[j] for e, x in zip(eps, inputs, strict=True)) for j in range(len(inputs[0]))]
        totals[0] += sum(Fraction(c * c) for c in v)
        totals[1] += sum(Fraction(v[j] * v[j]) for j in kept)
    return totals[0] / len(signs), totals[1] / len(signs)


def design() -> Json:
    """Two orthogonal inputs in the first two of four coordinates: all |sum eps_i x_i| agree."""
    return {"inputs": [[1, 0, 0, 0], [0, 1, 0, 0]], "kept": [0, 1]}


def same_complexity(payload: Json) -> str | None:
    """All lengths agree, so the complexities are roots of the means; they are equal although d > k."""
    inputs, kept = payload["inputs"], payload["kept"]
    if len(kept) >= len(inputs[0]):
        return "PEFT tunes every coordinate"
    lengths = set()
    for eps in product((-1, 1), repeat=len(inputs)):
        v = [sum(e * x[j] for e, x in zip(eps, inputs, strict=True)) for j in range(len(inputs[0]))]
        lengths.add(sum(c * c for c in v))
    full, peft = complexities(inputs, kept)
    if len(lengths) != 1:
        return "the lengths differ; the mean of squares does not give the complexity"
    return None if full == peft and full > 0 else f"the complexities differ: {full} and {peft} (squared)"


def projected(k: Kit, x: Instance) -> None:
    """PEFT sees the projected sums P X eps, which are never longer."""
    k.claim("not larger", k.le(k.fro2(k.proj(x.P) @ x.X @ x.eps), k.fro2(x.X @ x.eps)))


def projected_proof(k: Any, x: Instance) -> Mapping[str, Sequence[Any]]:
    """The difference is the squared length of what is projected away."""
    v = x.X @ x.eps
    return {"not larger": [k.square(v - k.proj(x.P) @ v)]}


def twice_projected(k: Kit, x: Instance) -> None:
    """A weaker statement."""
    k.claim("not twice as large", k.le(k.fro2(k.proj(x.P) @ x.X @ x.eps), 2 * k.fro2(x.X @ x.eps)))


ONE: Json = {"P": [["1"]], "X": [["1"]], "eps": [["1"]]}
RADEMACHER = Claim(
    id="peft_vs_fft/thm_5_rademacher",
    source=source("Theorem 5, complexities"),
    sentence="The Rademacher complexity of full tuning exceeds that of PEFT by sqrt(d/k).",
    headline="False: for inputs in PEFT's subspace the two are equal; what holds is that PEFT's is never the larger one.",
    defect="false statement",
    readings=(
        Reading(
            name="linear classes of norm at most one",
            evidence=Custom(
                status="refuted",
                produce=design,
                verify=same_complexity,
                about="exact complexities by enumeration of all signs",
            ),
            scope="d = 4, k = 2, two samples",
            controls=(
                Control(
                    "an input outside the subspace",
                    check=lambda: (
                        same_complexity({"inputs": [[1, 0, 0, 0], [0, 0, 1, 0]], "kept": [0, 1]}) is not None
                    ),
                ),
                Control("the design", kind="true", check=lambda: same_complexity(design()) is not None),
            ),
        ),
        Reading(
            name="not larger",
            sentence="The complexity of PEFT is at most that of full tuning.",
            statement=projected,
            setting=Setting(
                dims=[{"d": 1, "k": 1, "N": 1}, {"d": 3, "k": 1, "N": 2}],
                free=lambda d: {"P": (d["d"], d["k"]), "X": (d["d"], d["N"]), "eps": (d["N"], 1)},
                build=lambda k, t, d: Instance(t),
                letters=lambda k: Instance(
                    P=k.letter("P", "d", "k"), X=k.letter("X", "d", "N"), eps=k.letter("eps", "N", 1)
                ),
                boundary=[ONE],
            ),
            evidence=WordProof(projected_proof),
            scope="every design and every choice of signs, hence the mean",
            sharp=ONE,
            controls=(
                Control("smaller by 1/50", tighten="1/50", instance=ONE),
                Control("not twice as large", kind="true", statement=twice_projected),
            ),
        ),
    ),
)


# -- the crossing ----------------------------------------------------------------------------------------------------------
def curves(d: int, k: int, N: int, v: Fraction, b: Fraction) -> Fraction:
    """Risk of full tuning minus risk of PEFT at N > d + 1 samples."""
    return v * Fraction(d, N - d - 1) - (v + b) * Fraction(k, N - k - 1) - b


def parabola(d: int, k: int, N: int, v: Fraction, b: Fraction) -> Fraction:
    """(N - d - 1)(N - k - 1) times that difference, a polynomial of degree 2 in N."""
    return v * d * (N - k - 1) - (v + b) * k * (N - d - 1) - b * (N - d - 1) * (N - k - 1)


def crossing() -> Json:
    """Settings with the last N at which PEFT leads."""
    rows = []
    for d, k, b in ((4, 1, "1"), (10, 2, "1/4"), (40, 4, "1/20"), (100, 8, "1/100")):
        N = d + 2
        while curves(d, k, N, Fraction(1), Fraction(b)) > 0:
            N += 1
        rows.append({"d": d, "k": k, "b": b, "peft_leads_until": N - 1})
    return {"rows": rows}


def one_crossing_elsewhere(payload: Json) -> str | None:
    """PEFT leads up to the stated N and not after it; the crossing is not at one common N.

    (N-d-1)(N-k-1) times the difference is a parabola in N that opens downwards (its second difference is -2 b) and is
    positive at N = d + 1, so it has exactly one root beyond: the curves cross once.
    """
    places = set()
    for row in payload["rows"]:
        d, k, b, N = row["d"], row["k"], Fraction(row["b"]), row["peft_leads_until"]
        if not (d > k > 0 and b > 0 and N >= d + 1):
            return "a row is outside the regime d > k > 0, b > 0, N > d + 1"
        if (N > d + 1 and curves(d, k, N, Fraction(1), b) <= 0) or curves(d, k, N + 1, Fraction(1), b) > 0:
            return f"the crossing for d = {d}, k = {k} is not after N = {N}"
        p = [parabola(d, k, M, Fraction(1), b) for M in range(d + 1, d + 5)]
        if p[0] <= 0 or not p[2] - 2 * p[1] + p[0] == p[3] - 2 * p[2] + p[1] == -2 * b:
            return f"for d = {d}, k = {k} the parabola need not have one root beyond d + 1"
        if p[1] != (d + 1 - k) * curves(d, k, d + 2, Fraction(1), b):
            return "the parabola does not belong to the curves"
        places.add(N)
    return None if len(places) > 1 else "all settings cross at one place"


def _shifted() -> Json:
    payload = crossing()
    payload["rows"][1]["peft_leads_until"] += 3
    return payload


FEW_SHOT = Claim(
    id="peft_vs_fft/few_shot_crossover",
    source=source("Figure 2"),
    sentence="PEFT leads below about 20 samples per class, full tuning above.",
    headline=(
        "In the regression model there is exactly one crossing beyond N = d + 1, but its place depends on d, k, noise and "
        "bias; 20 is no constant."
    ),
    defect="missing hypothesis",
    uses=("peft_vs_fft/thm_5_risk",),
    readings=(
        Reading(
            name="a crossing at one place for all tasks, Gaussian least squares",
            evidence=Custom(
                status="refuted",
                produce=crossing,
                verify=one_crossing_elsewhere,
                about="exact risks at integers N, and the sign pattern of a parabola",
            ),
            scope="four settings of d, k, bias at noise 1, N > d + 1",
            controls=(
                Control(
                    "a crossing shifted by 3", check=lambda: one_crossing_elsewhere(_shifted()) is not None
                ),
                Control(
                    "the crossings", kind="true", check=lambda: one_crossing_elsewhere(crossing()) is not None
                ),
            ),
        ),
    ),
)

CLAIMS = (SLOPE, RISK, RADEMACHER, FEW_SHOT)
