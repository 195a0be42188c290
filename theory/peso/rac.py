"""RAC-LoRA: the rate for smooth losses, the linear rate under the PL condition, and both made sharp.

Source: RAC-LoRA, Theorems 5.3 and 5.5 (known to us second-hand). One chain makes one step W - gamma H grad f(W) with a
fresh projector H (m x m, mean E >= lam I), f L-smooth with infimum f*, Delta = f(W_0) - f*, PL constant mu:
|grad f|^2 >= 2 mu (f - f*). G (m x n) is the gradient, f0 and f1 the loss above f* before and after a step.

`rac_5_3`: the mean of |grad f|^2 over T chains is at most 2 Delta / (lam gamma T) for gamma <= 1 / L. True for every
size, law and smooth loss. It says nothing for T <= 1 / (lam gamma L), at least the first m / r chains: there it follows
from |grad f|^2 <= 2 L Delta alone. `rac_5_5`: E f(W_T) - f* <= (1 - gamma mu lam)^T Delta. True; the factor sharpens to
1 - gamma (2 - gamma L) mu lam for gamma <= 2 / L. `rac_sharp`: with q = gamma (1 - L gamma / 2) lam and rho = 1 - 2 L q the
mean is at most Delta (1 - rho^T) / (q T), attained on L |W - M|^2 / 2 whenever E = lam I.

Each proof is one step for one draw of H; the term <G, (H - E) G> has mean zero since H is independent of W_t, and the
steps add up (5_3), multiply (5_5) or are gone through from the last to the first (sharp).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from theory import instances
from theory.claim import Claim, Control, Json, Reading, Setting, Source
from theory.evidence import Identity, WordProof
from theory.partial import StepProof
from theory.protocol import Instance, Kit

SYMMETRIC, IDEMPOTENT, LOWEST, DESCENT = "H symmetric", "H idempotent", "E >= lam I", "smooth along the step"
POSITIVE, SHORT, LONGER, PL = "gamma >= 0", "gamma <= 1 / L", "gamma <= 2 / L", "PL condition"
STEP, RATE = "one step", "contraction of one step"


def source(place: str) -> Source:
    """A place of the RAC-LoRA paper."""
    return Source(
        "RAC-LoRA: randomized asymmetric chain of low-rank adaptation", place, "arXiv 2410.08305, second-hand"
    )


def one_step(k: Kit, x: Instance, longer: bool) -> Any:
    """The hypotheses of a step; returns |lam-part| = lam |G|^2 + <G, (H - E) G>."""
    k.given(SYMMETRIC, k.sym(x.H))
    k.given(IDEMPOTENT, k.eq(x.H @ x.H, x.H))
    k.given(LOWEST, k.psd(x.E - x.lam * k.eye(x.E.shape[0])))
    k.given("lam >= 0", k.le(k.num(0), x.lam))
    k.given(POSITIVE, k.le(k.num(0), x.gamma))
    if longer:
        k.given(LONGER, k.le(x.gamma * x.L, k.num(2)))
    else:
        k.given(SHORT, k.le(x.gamma * x.L, k.num(1)))
    step = x.gamma * (x.H @ x.G)
    k.given(DESCENT, k.le(x.f1, x.f0 - k.dot(x.G, step) + x.L / 2 * k.fro2(step)))
    return x.lam * k.fro2(x.G) + k.dot(x.G, (x.H - x.E) @ x.G)


def theorem_5_3(k: Kit, x: Instance) -> None:
    """Gamma (lam |G|^2 + <G, (H - E) G>) <= 2 (f0 - f1)."""
    k.claim(STEP, k.le(x.gamma * one_step(k, x, False), 2 * (x.f0 - x.f1)))


def theorem_5_3_sharp(k: Kit, x: Instance) -> None:
    """Gamma (2 - gamma L)(lam |G|^2 + <G, (H - E) G>) <= 2 (f0 - f1)."""
    part = one_step(k, x, True)
    k.claim(STEP, k.le(x.gamma * (2 - x.gamma * x.L) * part, 2 * (x.f0 - x.f1)))


def pl_condition(k: Kit, x: Instance) -> None:
    """2 mu (f0 - f*) <= |G|^2."""
    k.given(PL, k.le(2 * x.mu * x.f0, k.fro2(x.G)))


def theorem_5_5(k: Kit, x: Instance) -> None:
    """2 f1 + gamma <G, (H - E) G> <= 2 (1 - gamma mu lam) f0."""
    part = one_step(k, x, False) - x.lam * k.fro2(x.G)
    pl_condition(k, x)
    k.claim(RATE, k.le(2 * x.f1 + x.gamma * part, 2 * (1 - x.gamma * x.mu * x.lam) * x.f0))


def theorem_5_5_sharp(k: Kit, x: Instance) -> None:
    """2 f1 + c <G, (H - E) G> <= 2 (1 - c mu lam) f0 with c = gamma (2 - gamma L)."""
    part, c = one_step(k, x, True) - x.lam * k.fro2(x.G), x.gamma * (2 - x.gamma * x.L)
    pl_condition(k, x)
    k.claim(RATE, k.le(2 * x.f1 + c * part, 2 * (1 - c * x.mu * x.lam) * x.f0))


def plain_terms(k: Any, x: Instance) -> list[Any]:
    """Descent, gamma (1 - gamma L) |H G|^2 and gamma <G, (E - lam I) G>."""
    k.use(IDEMPOTENT)
    gamma = k.hypothesis(POSITIVE)
    rest = [gamma * k.hypothesis(SHORT) * k.square(x.H @ x.G), gamma * k.against_psd(LOWEST, x.G)]
    return [k.hypothesis(DESCENT), k.hypothesis(DESCENT), *rest]


def sharp_terms(k: Any, x: Instance) -> list[Any]:
    """Descent and gamma (2 - gamma L) <G, (E - lam I) G>."""
    k.use(IDEMPOTENT)
    factor = k.hypothesis(POSITIVE) * k.hypothesis(LONGER)
    return [k.hypothesis(DESCENT), k.hypothesis(DESCENT), factor * k.against_psd(LOWEST, x.G)]


def proof_5_3(k: Any, x: Instance) -> Mapping[str, Sequence[Any]]:
    """As `plain_terms`."""
    return {STEP: plain_terms(k, x)}


def proof_5_3_sharp(k: Any, x: Instance) -> Mapping[str, Sequence[Any]]:
    """As `sharp_terms`."""
    return {STEP: sharp_terms(k, x)}


def proof_5_5(k: Any, x: Instance) -> Mapping[str, Sequence[Any]]:
    """And the PL condition times gamma lam."""
    factor = k.hypothesis(POSITIVE) * k.hypothesis("lam >= 0")
    return {RATE: [*plain_terms(k, x), factor * k.hypothesis(PL)]}


def proof_5_5_sharp(k: Any, x: Instance) -> Mapping[str, Sequence[Any]]:
    """And the PL condition times gamma (2 - gamma L) lam."""
    factor = k.hypothesis(POSITIVE) * k.hypothesis(LONGER) * k.hypothesis("lam >= 0")
    return {RATE: [*sharp_terms(k, x), factor * k.hypothesis(PL)]}


def first_chains(k: Kit, x: Instance) -> None:
    """For lam gamma L T <= 1 the bound follows from |grad f|^2 <= 2 L Delta at every iterate: g is their mean."""
    k.given("g <= 2 L Delta", k.le(x.g, 2 * x.L * x.Delta))
    k.given("T lam gamma >= 0", k.le(k.num(0), x.T * x.lam * x.gamma))
    k.given("T <= 1 / (lam gamma L)", k.le(x.T * x.lam * x.gamma * x.L, k.num(1)))
    k.given("Delta >= 0", k.le(k.num(0), x.Delta))
    k.claim("the bound, multiplied out", k.le(x.T * x.lam * x.gamma * x.g, 2 * x.Delta))


def first_chains_proof(k: Any, x: Instance) -> Mapping[str, Sequence[Any]]:
    """T lam gamma g <= T lam gamma 2 L Delta <= 2 Delta."""
    spent = k.hypothesis("Delta >= 0") * k.hypothesis("T <= 1 / (lam gamma L)")
    return {
        "the bound, multiplied out": [
            k.hypothesis("T lam gamma >= 0") * k.hypothesis("g <= 2 L Delta"),
            spent,
            spent,
        ]
    }


# -- rac_sharp ------------------------------------------------------------------------------------------------
def two_parts(k: Kit, x: Instance) -> Any:
    """The first step and the sum over the later ones; returns the sum over all, times q.

    e0, e1 mean losses above f* before and after the first step, g and s the mean of the first and the sum of the
    means of the later squared gradients, p = rho^(T-1).
    """
    k.given("mean gain of a step", k.le(x.e1, x.e0 - x.q * x.g))
    k.given("g <= 2 L e0", k.le(x.g, 2 * x.L * x.e0))
    k.given("the later steps", k.le(x.q * x.s, (1 - x.p) * x.e1))
    k.given("q >= 0", k.le(k.num(0), x.q))
    k.given("p >= 0", k.le(k.num(0), x.p))
    k.given("p <= 1", k.le(x.p, k.num(1)))
    return x.q * (x.g + x.s)


def last_to_first(k: Kit, x: Instance) -> None:
    """If T - 1 steps from e1 give q s <= (1 - p) e1, then T steps from e0 give q (g + s) <= (1 - rho p) e0."""
    k.claim("T steps", k.le(two_parts(k, x), (1 - (1 - 2 * x.L * x.q) * x.p) * x.e0))


def without_rho(k: Kit, x: Instance) -> None:
    """A weaker statement: q (g + s) <= e0 where losses are not below f*."""
    k.given("e1 >= 0", k.le(k.num(0), x.e1))
    k.claim("T steps", k.le(two_parts(k, x), x.e0))


def last_to_first_proof(k: Any, x: Instance) -> Mapping[str, Sequence[Any]]:
    """Each hypothesis with its multiplier: 1, 1 - p and p q."""
    gain, p, q = k.hypothesis("mean gain of a step"), k.hypothesis("p >= 0"), k.hypothesis("q >= 0")
    return {
        "T steps": [
            k.hypothesis("the later steps"),
            k.hypothesis("p <= 1") * gain,
            p * q * k.hypothesis("g <= 2 L e0"),
        ]
    }


def share(k: Kit, x: Instance) -> None:
    """0 <= rho: 2 L q = lam L gamma (2 - L gamma) <= 1 for lam <= 1, multiplied by |G|^2."""
    k.given("lam <= 1", k.le(x.lam, k.num(1)))
    k.given("lam >= 0", k.le(k.num(0), x.lam))
    twice = x.lam * x.L * x.gamma * (2 - x.L * x.gamma)
    k.claim("rho >= 0", k.le(twice * k.fro2(x.G), k.fro2(x.G)))


def share_proof(k: Any, x: Instance) -> Mapping[str, Sequence[Any]]:
    """1 - lam y (2 - y) = (1 - lam) + lam (1 - y)^2 with y = L gamma."""
    rest = k.square((1 - x.L * x.gamma) * x.G)
    return {"rho >= 0": [k.hypothesis("lam <= 1") * k.square(x.G), k.hypothesis("lam >= 0") * rest]}


def attained(k: Kit, x: Instance) -> None:
    """On L |W - M|^2 / 2 with equally likely coordinate blocks: q sum of the means = (1 - rho^T) Delta."""
    size = k.fro2(x.W)
    mean, total = [x.W], k.num(0)
    for _ in range(x.T):  # every run of draws, each as likely
        total = total + x.L * x.L * k.sum(k.fro2(V) for V in mean) / k.num(len(mean))
        mean = [V - x.gamma * x.L * _block(k, x, b) @ V for V in mean for b in range(x.draws)]
    lam = k.num(f"1/{x.draws}")
    q = x.gamma * (1 - x.L * x.gamma / 2) * lam
    power = k.num(1)
    for _ in range(x.T):
        power = power * (1 - 2 * x.L * q)
    k.claim("attained", k.eq(q * total, (1 - power) * (x.L * size / 2)))


def _block(k: Kit, x: Instance, block: int) -> Any:
    m = x.W.shape[0]
    U = k.cols(k.eye(m), range(block * (m // x.draws), (block + 1) * (m // x.draws)))
    return U @ U.T


# -- instances ------------------------------------------------------------------------------------------------
def build(k: Kit, t: Instance, d: dict[str, Any]) -> Instance:
    """The loss tr((W - M)' C C' (W - M)) / 2 + slack, H on the columns of B, E = lam I + something psd."""
    A = t.C @ t.C.T
    G, slack = A @ t.W, k.sq(k.e(t.slack, 0, 0))
    L = k.tr(A) + k.sq(k.e(t.l, 0, 0)) + 1
    gamma = instances.unit_interval(k, k.e(t.g, 0, 0)) / L
    H, lam = k.proj(t.B), instances.unit_interval(k, k.e(t.lam, 0, 0))
    after = t.W - gamma * (H @ G)
    f0, f1 = (k.tr(V.T @ A @ V) / 2 + slack for V in (t.W, after))
    mu = instances.unit_interval(k, k.e(t.mu, 0, 0)) * k.fro2(G) / (2 * f0 + 1)
    return Instance(
        G=G, H=H, E=lam * k.eye(d["m"]) + t.P @ t.P.T, lam=lam, L=L, gamma=gamma, f0=f0, f1=f1, mu=mu
    )


def free(d: dict[str, Any]) -> dict[str, tuple[int, int]]:
    """Curvature, point, subspace, law, and the numbers."""
    m, n = d["m"], d["n"]
    numbers = {name: (1, 1) for name in ("slack", "l", "g", "lam", "mu")}
    return {"C": (m, m), "W": (m, n), "B": (m, d["r"]), "P": (m, 1), **numbers}


def letters(k: Any) -> Instance:
    """One step of every size."""
    numbers = {name: k.number(name) for name in ("lam", "L", "gamma", "f0", "f1", "mu")}
    H, E = k.letter("H", "m", "m", symmetric=True), k.letter("E", "m", "m")
    return Instance(G=k.letter("G", "m", "n"), H=H, E=E, **numbers)


def scalar(**changes: Any) -> Json:
    """One step of w - w / 2 on w^2 / 2 from w = 1, H = E = 1, with changes."""
    plain: Json = {
        "G": [["1"]],
        "H": [["1"]],
        "E": [["1"]],
        "lam": "1",
        "L": "1",
        "gamma": "1/2",
        "f0": "1/2",
        "f1": "1/8",
        "mu": "1",
    }
    return {**plain, **changes}


EXACT = scalar(gamma="1", f1="0")
NO_GRADIENT_SEEN = scalar(H=[["0"]], f1="1/2")
SIZES: list[dict[str, Any]] = [
    {"m": m, "n": n, "r": r} for m, n, r in ((1, 1, 1), (2, 1, 1), (2, 2, 1), (3, 2, 2))
]
STEPS = Setting(
    dims=SIZES, free=free, build=build, letters=letters, boundary=[scalar(), EXACT, NO_GRADIENT_SEEN]
)

NUMBERS = ("g", "L", "Delta", "T", "lam", "gamma")
EARLY: Json = {"g": "2", "L": "1", "Delta": "1", "T": "2", "lam": "1/2", "gamma": "1"}
FIRST = Setting(
    dims=[{}],
    free=lambda d: {name: (1, 1) for name in ("share", "L", "Delta", "lam", "T", "g")},
    build=lambda k, t, d: _early(k, t),
    letters=lambda k: Instance({name: k.number(name) for name in NUMBERS}),
    boundary=[EARLY],
)


def _early(k: Kit, t: Instance) -> Instance:
    value = {name: k.sq(k.e(A, 0, 0)) for name, A in t.items()}
    L, Delta, lam, T = 1 + value["L"], value["Delta"], value["lam"], value["T"]
    gamma = instances.unit_interval(k, k.e(t.g, 0, 0)) / (L * (1 + lam * T))
    return Instance(
        g=2 * L * Delta * instances.unit_interval(k, k.e(t.share, 0, 0)),
        L=L,
        Delta=Delta,
        T=T,
        lam=lam,
        gamma=gamma,
    )


def _chain(k: Kit, t: Instance) -> Instance:
    value = {name: instances.unit_interval(k, k.e(A, 0, 0)) for name, A in t.items()}
    e0, L, q, p = 1 + value["e0"], k.num(1), value["q"] / 2, value["p"]
    g = 2 * L * e0 * value["g"]
    e1 = (e0 - q * g) * value["e1"]
    return Instance(e0=e0, e1=e1, g=g, L=L, q=q, p=p, s=(1 - p) * e1 * value["s"] / (q + 1))


CHAIN_NUMBERS = ("e0", "e1", "g", "s", "p", "q", "L")
ONE_CHAIN: Json = {"e0": "1", "e1": "1/2", "g": "2", "s": "0", "p": "1", "q": "1/4", "L": "1"}
TWO_CHAINS: Json = {"e0": "1", "e1": "1/2", "g": "2", "s": "1", "p": "1/2", "q": "1/4", "L": "1"}
CHAINS = Setting(
    dims=[{}],
    free=lambda d: {name: (1, 1) for name in CHAIN_NUMBERS},
    build=lambda k, t, d: _chain(k, t),
    letters=lambda k: Instance({name: k.number(name) for name in CHAIN_NUMBERS}),
    boundary=[ONE_CHAIN, TWO_CHAINS],
)
SHARE = Setting(
    dims=[{"m": 1, "n": 1}, {"m": 2, "n": 1}],
    free=lambda d: {"G": (d["m"], d["n"]), "L": (1, 1), "gamma": (1, 1), "lam": (1, 1)},
    build=lambda k, t, d: Instance(
        G=t.G, L=k.e(t.L, 0, 0), gamma=k.e(t.gamma, 0, 0), lam=instances.unit_interval(k, k.e(t.lam, 0, 0))
    ),
    letters=lambda k: Instance(
        G=k.letter("G", "m", "n"), **{name: k.number(name) for name in ("L", "gamma", "lam")}
    ),
    boundary=[{"G": [["1"]], "L": "1", "gamma": "1", "lam": "1"}],
)
FULL_SHARE: Json = SHARE.boundary[0]
RUNS: list[dict[str, Any]] = [
    {"m": 1, "n": 1, "draws": 1, "T": 2},
    {"m": 2, "n": 1, "draws": 2, "T": 3},
    {"m": 4, "n": 2, "draws": 2, "T": 2},
    {"m": 3, "n": 1, "draws": 3, "T": 3},
]
RUN: Json = {"W": [["1"], ["2"]], "L": "1", "gamma": "1/2", "draws": 2, "T": 2}
QUADRATIC = Setting(
    dims=RUNS,
    free=lambda d: {"W": (d["m"], d["n"]), "L": (1, 1), "gamma": (1, 1)},
    build=lambda k, t, d: Instance(
        W=t.W, L=k.e(t.L, 0, 0), gamma=k.e(t.gamma, 0, 0), draws=d["draws"], T=d["T"]
    ),
    boundary=[RUN],
)


def at_most_all(k: Kit, x: Instance) -> None:
    """A weaker statement: the first mean is the whole |G|^2 = 2 L (f - f*)."""
    k.claim("first", k.eq(x.L * x.L * k.fro2(x.W), 2 * x.L * (x.L * k.fro2(x.W) / 2)))


SCOPE = "one step of every smooth loss for every projector H; mean over H, then over the chains"
WRONG_LAW = scalar(lam="4", f1="1/8")
CLAIMS = (
    Claim(
        id="peso/rac_5_3",
        source=source("Theorem 5.3"),
        sentence=(
            "Over T chains of one step with fresh H and gamma <= 1 / L, the mean of |grad f|^2 is at most "
            "2 Delta / (lam gamma T)."
        ),
        headline=(
            "True for every size, law and smooth loss; not tight for gamma < 1 / L, and without content for the "
            "first m / r chains."
        ),
        setting=STEPS,
        readings=(
            Reading(
                name="as stated",
                statement=theorem_5_3,
                evidence=StepProof(proof_5_3),
                scope=SCOPE,
                unused=("lam >= 0",),
                sharp=EXACT,
                controls=(
                    Control("right side smaller by 1/20", tighten="1/20", instance=EXACT),
                    Control("lam above the smallest eigenvalue", drop=(LOWEST,), instance=WRONG_LAW),
                    Control("the sharpened step", kind="true", statement=theorem_5_3_sharp),
                ),
            ),
            Reading(
                name="sharpened",
                sentence="The same with Delta / (lam gamma (1 - gamma L / 2) T), for gamma <= 2 / L (ours).",
                statement=theorem_5_3_sharp,
                evidence=StepProof(proof_5_3_sharp),
                scope=SCOPE,
                unused=("lam >= 0",),
                sharp=scalar(),
                controls=(
                    Control("right side smaller by 1/50", tighten="1/50", instance=scalar()),
                    Control("the printed step", kind="true", statement=theorem_5_3),
                ),
            ),
            Reading(
                name="the first chains",
                sentence="For T <= 1 / (lam gamma L) the bound follows from |grad f|^2 <= 2 L Delta (ours).",
                statement=first_chains,
                setting=FIRST,
                evidence=WordProof(first_chains_proof),
                scope="every gradient method that does not increase the loss, also one that does nothing",
                vacuous="for T <= m / (r gamma L) the theorem bounds nothing that smoothness does not bound",
                sharp=EARLY,
                controls=(
                    Control("one chain more", drop=("T <= 1 / (lam gamma L)",), instance={**EARLY, "T": "3"}),
                    Control("the statement itself", kind="true", statement=first_chains),
                ),
            ),
        ),
    ),
    Claim(
        id="peso/rac_5_5",
        source=source("Theorem 5.5"),
        sentence="Under the PL condition with constant mu and gamma <= 1 / L, E f(W_T) - f* <= (1 - gamma mu lam)^T Delta.",
        headline="True for every size and law; the factor sharpens to 1 - gamma (2 - gamma L) mu lam, which is attained.",
        setting=STEPS,
        uses=("peso/rac_5_3",),
        readings=(
            Reading(
                name="as stated",
                statement=theorem_5_5,
                evidence=StepProof(proof_5_5),
                scope=SCOPE + " (the factors multiply)",
                sharp=NO_GRADIENT_SEEN,
                controls=(
                    Control("no PL condition", drop=(PL,), instance=scalar(mu="3")),
                    Control("the sharpened rate", kind="true", statement=theorem_5_5_sharp),
                ),
            ),
            Reading(
                name="sharpened",
                sentence="The same with the factor 1 - gamma (2 - gamma L) mu lam, for gamma <= 2 / L (ours).",
                statement=theorem_5_5_sharp,
                evidence=StepProof(proof_5_5_sharp),
                scope=SCOPE + " (the factors multiply)",
                sharp=scalar(),
                controls=(
                    Control("right side smaller by 1/50", tighten="1/50", instance=scalar()),
                    Control("the printed rate", kind="true", statement=theorem_5_5),
                ),
            ),
        ),
    ),
    Claim(
        id="peso/rac_sharp",
        source=source("ours; Theorem 5.3 made sharp"),
        sentence=(
            "With q = gamma (1 - L gamma / 2) lam, rho = 1 - 2 L q and gamma < 2 / L, the mean of |grad f|^2 over T "
            "chains is at most Delta (1 - rho^T) / (q T)."
        ),
        headline="True for every size, law and smooth loss, and attained on L |W - M|^2 / 2 for every T and gamma.",
        setting=CHAINS,
        uses=("peso/rac_5_3",),
        readings=(
            Reading(
                name="the bound",
                statement=last_to_first,
                evidence=StepProof(last_to_first_proof),
                scope=(
                    "the step of the induction over T, in means, from T = 0; the gain of a chain in the mean is "
                    "rac_5_3, sharpened"
                ),
                sharp=TWO_CHAINS,
                controls=(
                    Control("right side smaller by 1/50", tighten="1/50", instance=TWO_CHAINS),
                    Control(
                        "a gradient too long",
                        drop=("g <= 2 L e0",),
                        instance={**ONE_CHAIN, "g": "3", "e1": "1/4"},
                    ),
                    Control("the rate without rho", kind="true", statement=without_rho),
                ),
            ),
            Reading(
                name="rho is not negative",
                sentence="2 L q <= 1, so the powers of rho do not change sign.",
                statement=share,
                setting=SHARE,
                evidence=WordProof(share_proof),
                scope="every gamma, L and lam in [0, 1]",
                sharp=FULL_SHARE,
                controls=(
                    Control("right side smaller by 1/50", tighten="1/50", instance=FULL_SHARE),
                    Control("the statement itself", kind="true", statement=share),
                ),
            ),
            Reading(
                name="attained",
                sentence="On L |W - M|^2 / 2 with equally likely coordinate blocks the bound is an equality.",
                statement=attained,
                setting=QUADRATIC,
                evidence=Identity(RUNS),
                scope="up to four rows, three blocks and three chains",
                controls=(
                    Control("right side larger by 1/1000", tighten="1/1000", instance=RUN),
                    Control("the first mean", kind="true", statement=at_most_all),
                ),
            ),
        ),
    ),
)
