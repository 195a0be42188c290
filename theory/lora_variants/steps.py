"""The step that the algorithms really make: the factor alpha / r, and Gaussian A without the pseudo-inverse.

Source: LoRA past, present, future, Theorem 2 against Algorithms 1 to 4 and (5)-(9). In units with L_G = 1; W (n x m)
from a minimiser, Q (m x m) with 0 <= Q <= I the curvature of the loss <W, W Q> / 2, as in `descent`.

`step_size_scaling`: B moves by gamma (alpha/r) G A' and W by alpha/r times that times A, so the step on W is
s = gamma (alpha/r)^2. With gamma < 1 / L_G alone a run with alpha = 2 r diverges; one with alpha < r is slower than
the bound. True with s in the place of gamma.

`thm_2_gaussian`: for Gaussian A (variance sigma^2 an entry, drawn anew at each step) plain gradient descent on B moves
W by gamma G A'A, not by gamma G H. E[A'A] = r sigma^2 I and E[(A'A)^2] = sigma^4 r (r + m + 1) I, so on |W|^2 / 2 each
step multiplies E|W|^2 by 1 - 2 gamma r sigma^2 + gamma^2 sigma^4 r (r + m + 1): with sigma = 1 it diverges for
gamma > 2 / (r + m + 1), with the usual sigma = 0.02 it hardly moves. True with lam = r sigma^2 (the smallest eigenvalue
of E[A'A]) and gamma <= 1 / (L_G sigma^2 (r + m + 1)).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from itertools import product
from typing import Any

from theory.claim import Claim, Control, Json, Reading, Repair, Setting
from theory.evidence import Counterexample, Custom
from theory.lora_variants import descent
from theory.lora_variants.descent import BELOW, CURVED, POSITIVE, SMOOTH, loss
from theory.lora_variants.setting import selection, source
from theory.partial import StepProof
from theory.protocol import Instance, Kit, Mat

SCALE, SMALL, GAIN = "alpha / r > 0", "gamma (alpha/r)^2 < 1 / L_G", "gain of the run"


# -- step_size_scaling ------------------------------------------------------------------------------------------
def trained(k: Kit, x: Instance) -> Mat:
    """I[:, first r]: the columns that A = [I | 0] trains."""
    return selection(k, x.W.shape[1], x.r, 0, "block")


def algorithm(k: Kit, x: Instance) -> tuple[list[Mat], Mat]:
    """Trained parts of the gradients G_0 U, ..., G_T U of Algorithm 1 with W = W0 + (alpha/r) B A, and the last W."""
    U, B = trained(k, x), k.zeros(x.W.shape[0], trained(k, x).shape[1])
    seen = []
    for _ in range(x.steps):
        seen.append((x.W + x.scale * (B @ U.T)) @ x.Q @ U)
        B = B - (x.gamma * x.scale) * seen[-1]
    last = x.W + x.scale * (B @ U.T)
    return [*seen, last @ x.Q @ U], last


def hypotheses(k: Kit, x: Instance) -> None:
    """A convex 1-smooth loss, a positive step and a positive factor."""
    k.given(CURVED, k.psd(x.Q))
    k.given(SMOOTH, k.psd(k.eye(x.Q.shape[0]) - x.Q))
    k.given(POSITIVE, k.lt(k.num(0), x.gamma))
    k.given(SCALE, k.lt(k.num(0), x.scale))


def printed_step(k: Kit, x: Instance) -> None:
    """Gamma < 1 / L_G gives the mean of |G_t U|^2 over t = 0, ..., T at most 2 Delta / (gamma T)."""
    hypotheses(k, x)
    k.given(BELOW, k.lt(x.gamma, k.num(1)))
    seen, _ = algorithm(k, x)
    mean = k.sum(k.fro2(g) for g in seen) / k.num(x.steps + 1)
    k.claim("mean of the trained part", k.le(mean, 2 * loss(k, x, x.W) / (x.gamma * k.num(x.steps))))


def printed_step_small(k: Kit, x: Instance) -> None:
    """The same where alpha <= r."""
    k.given("alpha <= r", k.le(x.scale, k.num(1)))
    printed_step(k, x)


def true_step(k: Kit, x: Instance) -> None:
    """With s = gamma (alpha/r)^2 < 1: s (2 - s) sum over t < T of |G_t U|^2 <= 2 (L(W_0) - L(W_T))."""
    hypotheses(k, x)
    s = x.gamma * x.scale * x.scale
    k.given(SMALL, k.lt(s, k.num(1)))
    seen, last = algorithm(k, x)
    total = k.sum(k.fro2(g) for g in seen[:-1])
    k.claim(GAIN, k.le(s * (2 - s) * total, 2 * (loss(k, x, x.W) - loss(k, x, last))))


def true_step_proof(k: Any, x: Instance) -> Mapping[str, Sequence[Any]]:
    """Descent lemma with D = s G U U'; further steps add up."""
    U, one, c = trained(k, x), k.hypothesis(POSITIVE), k.hypothesis(SCALE)
    return {GAIN: [one * one * c * c * c * c * k.against_psd(SMOOTH, U @ U.T @ x.Q @ x.W.T)]}


def no_growth(k: Kit, x: Instance) -> None:
    """A weaker statement: with s < 1 the loss does not grow."""
    hypotheses(k, x)
    k.given(SMALL, k.lt(x.gamma * x.scale * x.scale, k.num(1)))
    k.claim("no growth", k.le(loss(k, x, algorithm(k, x)[1]), loss(k, x, x.W)))


def build_scaled(k: Kit, t: Instance, d: dict[str, Any]) -> Instance:
    """A quadratic with gamma in [1/2, 1) and any alpha / r with s < 1."""
    x = descent.build(k, t, {**d, "draws": 2, "chains": 1})
    scale = 1 / (1 + k.sq(k.e(t.slack, 0, 0)))
    return Instance(W=x.W, Q=x.Q, gamma=x.gamma, scale=scale, r=d["r"], steps=d["steps"])


def letters_scaled(k: Any) -> Instance:
    """One step of any size."""
    Q = k.letter("Q", "m", "m", symmetric=True)
    return Instance(
        W=k.letter("W", "n", "m"), Q=Q, gamma=k.number("gamma"), scale=k.number("c"), r="r", steps=1
    )


def scalar(gamma: str, scale: str, steps: int) -> Json:
    """The loss w^2 / 2 from w = 1."""
    return {"W": [["1"]], "Q": [["1"]], "gamma": gamma, "scale": scale, "r": 1, "steps": steps}


LARGE, SLOW, USUAL = scalar("3/4", "2", 1), scalar("3/4", "1/4", 2), scalar("1/2", "1", 1)
SCALED = Setting(
    dims=[{"n": n, "r": r, "steps": steps} for n, r, steps in ((1, 1, 1), (1, 1, 3), (2, 1, 2))],
    free=lambda d: descent.free({**d, "draws": 2}),
    build=build_scaled,
    letters=letters_scaled,
    boundary=[USUAL, scalar("99/100", "1", 2)],
)
SCALED_REPAIR = Repair(
    sentence=(
        "with s = gamma (alpha/r)^2 < 1 / L_G the mean of the trained |grad L|^2 is at most "
        "Delta / (s (1 - s L_G / 2) T)"
    ),
    statement=true_step,
    evidence=StepProof(true_step_proof),
    sharp=USUAL,
)
SCALED_CONTROLS = (
    Control("the repair's right side smaller by 1/50", statement=true_step, tighten="1/50", instance=USUAL),
    Control("the loss does not grow", kind="true", statement=no_growth),
)


# -- thm_2_gaussian ----------------------------------------------------------------------------------------------
TINY, STEP = "gamma sigma^2 (r + m + 1) <= 1", "mean gain of one step"


def moments(k: Kit, x: Instance) -> tuple[Any, Any]:
    """(E[A'A], E[(A'A)^2]) as multiples of I."""
    r, m = k.num(x.r), k.num(x.m)
    return r * x.sigma2, r * (r + m + 1) * x.sigma2 * x.sigma2


def gaussian_printed(k: Kit, x: Instance) -> None:
    """Lam = r / m on |W|^2 / 2: the mean of E|W_t|^2 over t = 0, ..., T is at most 2 Delta / (lam gamma T)."""
    k.given(POSITIVE, k.lt(k.num(0), x.gamma))
    k.given(BELOW, k.lt(x.gamma, k.num(1)))
    first, second = moments(k, x)
    size, total = k.fro2(x.W), k.num(0)
    for _ in range(x.steps + 1):
        total = total + size
        size = (1 - 2 * x.gamma * first + x.gamma * x.gamma * second) * size
    bound = k.fro2(x.W) * k.num(x.m) / (k.num(x.r) * x.gamma * k.num(x.steps))
    k.claim("mean of |grad L|^2", k.le(total / k.num(x.steps + 1), bound))


def unit_variance(k: Kit, x: Instance) -> None:
    """As printed, for sigma = 1."""
    k.given("sigma = 1", k.eq(x.sigma2, k.num(1)))
    gaussian_printed(k, x)


def usual_variance(k: Kit, x: Instance) -> None:
    """As printed, for sigma = 0.02."""
    k.given("sigma = 0.02", k.eq(x.sigma2, k.num("1/2500")))
    gaussian_printed(k, x)


def gaussian_step(k: Kit, x: Instance) -> None:
    """Gamma r sigma^2 |G|^2 <= 2 (L(W) - E L(W+)) with G = W and L(W+) at most the descent lemma's value."""
    k.given(POSITIVE, k.lt(k.num(0), x.gamma))
    k.given("sigma^2 >= 0", k.le(k.num(0), x.sigma2))
    k.given("r >= 0", k.le(k.num(0), k.num(x.r)))
    k.given("slack >= 0", k.le(k.num(0), x.slack))
    k.given(TINY, k.le(x.gamma * x.sigma2 * (k.num(x.r) + k.num(x.m) + 1), k.num(1)))
    first, second = moments(k, x)
    fall = x.gamma * first * k.fro2(x.W) - x.gamma * x.gamma * second * k.fro2(x.W) / 2 + x.slack
    k.claim(STEP, k.le(x.gamma * first * k.fro2(x.W), 2 * fall))


def gaussian_step_proof(k: Any, x: Instance) -> Mapping[str, Sequence[Any]]:
    """2 - gamma sigma^2 (r + m + 1) >= 1."""
    factor = k.hypothesis(POSITIVE) * k.hypothesis("sigma^2 >= 0") * k.hypothesis("r >= 0")
    return {STEP: [factor * k.hypothesis(TINY) * k.square(x.W), *2 * [k.hypothesis("slack >= 0")]]}


def gaussian_fall(k: Kit, x: Instance) -> None:
    """A weaker statement: with such a step the mean loss does not grow."""
    k.given(TINY, k.le(x.gamma * x.sigma2 * (k.num(x.r) + k.num(x.m) + 1), k.num(1)))
    first, second = moments(k, x)
    ratio = 1 - 2 * x.gamma * first + x.gamma * x.gamma * second
    k.claim("no growth", k.le(ratio * k.fro2(x.W), k.fro2(x.W)))


def gaussian(sigma2: str, gamma: str, steps: int, slack: str = "0") -> Json:
    """N = r = m = 1."""
    return {"W": [["1"]], "gamma": gamma, "sigma2": sigma2, "slack": slack, "r": 1, "m": 1, "steps": steps}


def build_gaussian(k: Kit, t: Instance, d: dict[str, Any]) -> Instance:
    """Any sigma with gamma <= 1 / (sigma^2 (r + m + 1)) and gamma < 1."""
    sigma2 = k.sq(k.e(t.s, 0, 0))
    gamma = 1 / (1 + k.sq(k.e(t.g, 0, 0)) + sigma2 * k.num(d["r"] + d["m"] + 1))
    static = {"r": d["r"], "m": d["m"], "steps": d["steps"]}
    return Instance(W=t.W, gamma=gamma, sigma2=sigma2, slack=k.sq(k.e(t.slack, 0, 0)), **static)


def of_variance(sigma2: str) -> Setting:
    """The setting with one variance and gamma in [1/2, 1)."""

    def of_one(k: Kit, t: Instance, d: dict[str, Any]) -> Instance:
        g = k.sq(k.e(t.g, 0, 0))
        return Instance({**build_gaussian(k, t, d), "sigma2": k.num(sigma2), "gamma": (g + 1) / (g + 2)})

    return replace(GAUSSIAN, build=of_one, boundary=[gaussian(sigma2, "1/2", 1)])


ONE_STEP, USUAL_SIGMA, SHORT = gaussian("1", "5/6", 1), gaussian("1/2500", "5/6", 2), gaussian("1/3", "1", 1)
GAUSSIAN = Setting(
    dims=[{"n": n, "r": r, "m": m, "steps": steps} for n, r, m, steps in ((1, 1, 1, 1), (1, 1, 2, 3), (2, 2, 3, 2))],
    free=lambda d: {"W": (d["n"], d["m"]), "s": (1, 1), "g": (1, 1), "slack": (1, 1)},
    build=build_gaussian,
    letters=lambda k: Instance(
        W=k.letter("W", "n", "columns"),
        steps=1,
        **{name: k.number(name) for name in ("gamma", "sigma2", "slack", "r", "m")},
    ),
    boundary=[gaussian("1/3", "1/2", 1)],
)  # fmt: skip
GAUSSIAN_REPAIR = Repair(
    sentence=(
        "with gamma <= 1 / (L_G sigma^2 (r + m + 1)) the mean of |grad L|^2 is at most 2 Delta / (r sigma^2 gamma T)"
    ),
    statement=gaussian_step,
    setting=GAUSSIAN,
    evidence=StepProof(gaussian_step_proof),
    necessary={TINY: gaussian("1", "5/6", 1)},
    sharp=SHORT,
)
GAUSSIAN_CONTROLS = (
    Control(
        "the repair's right side smaller by 1/50", statement=gaussian_step, tighten="1/50", instance=SHORT
    ),
    Control("the mean loss does not grow", kind="true", statement=gaussian_fall),
)


def pairings(a: Any, b: Any, c: Any, d: Any) -> int:
    """E[g_a g_b g_c g_d] of independent standard normal entries: the number of pairings of equal indices (Isserlis)."""
    return int(a == b and c == d) + int(a == c and b == d) + int(a == d and b == c)


def fourth_moment(r: int, m: int, i: int, j: int) -> Fraction:
    """The entry (i, j) of E[A'A A'A] for sigma = 1."""
    total = 0
    for a, b, column in product(range(r), range(r), range(m)):
        total += pairings((a, i), (a, column), (b, column), (b, j))
    return Fraction(total)


def moment_table(largest: int = 4) -> Json:
    """E[(A'A)^2] for every r, m up to the largest."""
    sizes = [[r, m] for r in range(1, largest + 1) for m in range(1, largest + 1)]
    return {"moments": [[r, m, str(fourth_moment(r, m, 0, 0))] for r, m in sizes]}


def moments_fit(payload: Json, extra: int = 1) -> str | None:
    """A complaint unless every E[(A'A)^2] is r (r + m + extra) I."""
    for r, m, value in payload["moments"]:
        for i, j in product(range(m), repeat=2):
            entry = fourth_moment(r, m, i, j)
            if entry != (r * (r + m + extra) if i == j else 0) or (i == j and str(entry) != value):
                return f"E[(A'A)^2] for r = {r}, m = {m} has the entry {entry} at ({i}, {j})"
    return None


CLAIMS = (
    Claim(
        id="lora_variants/step_size_scaling",
        source=source("Theorem 2 against Algorithms 1 to 4"),
        sentence="A step gamma < 1 / L_G suffices for the bound of Theorem 2 on the algorithms as printed.",
        headline=(
            "False: the algorithms move W by gamma (alpha/r)^2; with alpha = 2 r they diverge below 1 / L_G. The bound "
            "holds with gamma (alpha/r)^2 in place of gamma."
        ),
        defect="missing hypothesis",
        setting=SCALED,
        uses=("lora_variants/thm_2_frozen",),
        readings=(
            Reading(
                name="alpha above r",
                statement=printed_step,
                evidence=Counterexample(LARGE),
                scope="w^2 / 2, alpha = 2 r, one step; the instance is open",
                repair=SCALED_REPAIR,
                controls=SCALED_CONTROLS,
            ),
            Reading(
                name="alpha below r",
                sentence="The same for alpha <= r, where gamma (alpha/r)^2 < 1 / L_G follows.",
                statement=printed_step_small,
                evidence=Counterexample(SLOW),
                scope="w^2 / 2, alpha = r / 4, two steps: too slow for the printed bound; the instance is open",
                repair=SCALED_REPAIR,
                controls=SCALED_CONTROLS,
            ),
        ),
    ),
    Claim(
        id="lora_variants/thm_2_gaussian",
        source=source("Theorem 2 with Gaussian A, implied"),
        sentence=(
            "With a Gaussian A at each step, plain gradient descent on B with gamma < 1 / L_G keeps the mean of "
            "|grad L|^2 below 2 Delta / (lam gamma T), lam = r / m."
        ),
        headline=(
            "False: without the pseudo-inverse the step is gamma A'A, too long for unit variance and too short for the "
            "usual 0.02. True with lam = r sigma^2 and gamma <= 1 / (L_G sigma^2 (r + m + 1))."
        ),
        defect="missing hypothesis",
        setting=GAUSSIAN,
        uses=("lora_variants/thm_2_fresh", "lora_variants/lambda_min_gaussian"),
        readings=(
            Reading(
                name="unit variance",
                sentence="The same for entries of variance one.",
                statement=unit_variance,
                setting=of_variance("1"),
                evidence=Counterexample(ONE_STEP),
                scope="|W|^2 / 2 with n = m = r = 1, sigma = 1, gamma = 5/6, T = 1; the instance is open",
                repair=GAUSSIAN_REPAIR,
                controls=GAUSSIAN_CONTROLS,
            ),
            Reading(
                name="sigma = 0.02, as LoRA starts",
                sentence="The same for entries of standard deviation 0.02.",
                statement=usual_variance,
                setting=of_variance("1/2500"),
                evidence=Counterexample(USUAL_SIGMA),
                scope="|W|^2 / 2 with n = m = r = 1, gamma = 5/6, T = 2; the instance is open",
                repair=GAUSSIAN_REPAIR,
                controls=GAUSSIAN_CONTROLS,
            ),
            Reading(
                name="the moments behind it",
                sentence="E[(A'A)^2] = sigma^4 r (r + m + 1) I for a Gaussian A (r x m) (ours).",
                evidence=Custom(
                    status="proved_within",
                    produce=moment_table,
                    verify=moments_fit,
                    about="sums over pairings of Gaussian entries (Isserlis)",
                    reason="a moment of a continuous law",
                ),
                scope="r, m <= 4",
                controls=(
                    Control(
                        "r (r + m) in its place", check=lambda: moments_fit(moment_table(2), 0) is not None
                    ),
                    Control(
                        "r = m = 1: E g^4 = 3", kind="true", check=lambda: fourth_moment(1, 1, 0, 0) != 3
                    ),
                ),
            ),
        ),
    ),
)
