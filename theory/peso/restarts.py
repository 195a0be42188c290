"""Restarts of PESO one by one: exact top-r, stochastic, with any exploitation.

Source: PESO, Theorem 5.1 and its variants (second-hand). Symbols as in `setting`; p = min(m, n).

- Exact top-r restarts (the step is eta SVD_r(G)) converge exactly: delta^2 <= (1 - r/p) |G|^2 and
  eta (1 - L eta / 2) |SVD_r(G)|^2 <= f - f+ for every size; together min |G_k|^2 <= 2 p Delta / (r eta T) for
  eta <= 1 / L. The share r / p is attained by equal singular values.
- A subspace from a stochastic gradient need not see the gradient at all: G = e1 e1', noise +-2 e2 e2'. The top-1
  subspace of every sample is e2 e2', so the component of G is never moved, though the noise has mean zero.
- "Any optimiser between restarts" fails in one dimension: an exploitation that undoes the restart's step makes a
  cycle with a constant gradient and delta = 0. What holds: an exploitation that does not increase the loss.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from theory import instances
from theory.claim import Claim, Control, Json, Reading, Repair, Setting
from theory.evidence import Counterexample
from theory.kits import perturbation
from theory.partial import StepProof
from theory.peso import setting, thm_5_1
from theory.peso.setting import SETTING, scalar_step
from theory.protocol import Instance, Kit

# -- exact top-r restarts -------------------------------------------------------------------------------------
SHARE, GAIN = "delta^2 <= (1 - r/p) |G|^2", "gain of one restart"


def top_r(k: Kit, x: Instance) -> None:
    """The subspace error of the top-r part (times p), and the gain of a step along it."""
    best = k.svd_r(x.G, x.r, "SVD_r(G)")
    k.given("eta >= 0", k.le(k.num(0), x.eta))
    bound = x.f0 - x.eta * k.dot(x.G, best) + x.L / 2 * x.eta * x.eta * k.fro2(best)
    k.given("smooth along the step", k.le(x.f1, bound))
    p, r = k.num(x.p), k.num(x.r)
    k.claim(SHARE, k.le(p * k.fro2(x.G - best), (p - r) * k.fro2(x.G)))
    moved = x.eta * k.fro2(best)
    k.claim(GAIN, k.le(moved - x.L / 2 * x.eta * moved, x.f0 - x.f1))


def top_r_proof(k: Any, x: Instance) -> Mapping[str, Sequence[Any]]:
    """The top r of p squares hold the share r / p; <G, SVD_r(G)> = |SVD_r(G)|^2."""
    return {SHARE: [perturbation.top_share(k, x.G, x.r, x.p)], GAIN: [k.hypothesis("smooth along the step")]}


def half_share(k: Kit, x: Instance) -> None:
    """A weaker share: the error is at most the gradient."""
    best = k.svd_r(x.G, x.r, "SVD_r(G)")
    k.claim("delta <= |G|", k.le(k.fro2(x.G - best), k.fro2(x.G)))


def top_r_build(k: Kit, t: Instance, d: dict[str, Any]) -> Instance:
    """A quadratic with Hessian L I and a gradient with rational singular values."""
    m, n = d["m"], d["n"]
    G = k.skew_orth(t.U) @ k.diagm(t.s, m, n) @ k.skew_orth(t.V)
    L = 1 + k.sq(k.e(t.slack, 0, 0))
    eta = 2 * instances.unit_interval(k, k.e(t.step, 0, 0)) / L
    best = k.svd_r(G, d["r"], "step")
    f0 = k.fro2(G) / (2 * L)
    f1 = k.fro2(G - L * eta * best) / (2 * L)
    return Instance(G=G, L=L, eta=eta, f0=f0, f1=f1, r=d["r"], p=min(m, n))


TOP_R = Setting(
    dims=[
        {"m": 1, "n": 1, "r": 1},
        {"m": 2, "n": 2, "r": 1},
        {"m": 3, "n": 2, "r": 1},
        {"m": 3, "n": 3, "r": 2},
    ],
    free=lambda d: {
        "U": (d["m"], d["m"]),
        "V": (d["n"], d["n"]),
        "s": (1, min(d["m"], d["n"])),
        "slack": (1, 1),
        "step": (1, 1),
    },
    build=top_r_build,
    letters=lambda k: Instance(
        G=k.letter("G", "m", "n"), r="r", p="p", **{n: k.number(n) for n in ("eta", "L", "f0", "f1")}
    ),
    boundary=[],
)
FLAT: Json = {
    "G": [["1", "0"], ["0", "1"]],
    "eta": "1",
    "L": "1",
    "f0": "1",
    "f1": "1/2",
    "r": 1,
    "p": 2,
}

SVD_RESTART = Claim(
    id="peso/thm_5_1_svd_restart",
    source=setting.source("Theorem 5.1 with exact top-r restarts"),
    sentence="Restarting in the top-r singular subspace of the full gradient converges exactly.",
    headline=(
        "True: the top-r part holds at least the share r / min(m, n) of the gradient, so the gradient vanishes at "
        "the rate 2 p Delta / (r eta T) over restarts."
    ),
    setting=TOP_R,
    uses=("peso/thm_5_1", "peso/finite_time_form"),
    readings=(
        Reading(
            name="deterministic",
            statement=top_r,
            evidence=StepProof(top_r_proof),
            scope="one restart, every size and rank 0 <= r <= p; summed over T restarts it gives the rate",
            sharp=FLAT,
            unused=("eta >= 0",),
            controls=(
                Control("the share smaller by 1/50", instance=FLAT, tighten="1/50", only=SHARE),
                Control("delta <= |G|", kind="true", statement=half_share),
            ),
        ),
    ),
)

# -- a subspace from a stochastic gradient ----------------------------------------------------------------------


def stochastic(k: Kit, x: Instance) -> None:
    """On average the samples' top-r subspaces see the share r / p of the gradient, as its own subspace does."""
    seen = k.num(0)
    for number, sample in enumerate((x.G + x.noise, x.G - x.noise)):
        part = k.svd_r(sample, x.r, f"sample {number}")
        seen = seen + k.fro2(part @ k.pinv(part) @ x.G)
    k.claim("share seen", k.le(2 * x.r * k.fro2(x.G), x.p * seen))


NOISY: Json = {
    "G": [["1", "0"], ["0", "0"]],
    "noise": [["0", "0"], ["0", "2"]],
    "r": 1,
    "p": 2,
}
STOCHASTIC = Claim(
    id="peso/thm_5_1_stochastic",
    source=setting.source("Theorem 5.1, stochastic regime"),
    sentence="Restarting in the top-r subspace of a stochastic gradient converges as with the full gradient.",
    headline=(
        "False at 2 x 2: noise with mean zero can hide the gradient from the top-1 subspace of every sample; the "
        "theorem survives only with the error measured on the full gradient, where it may stay large."
    ),
    defect="missing hypothesis",
    uses=("peso/thm_5_1",),
    readings=(
        Reading(
            name="subspace and its error from the sample",
            statement=stochastic,
            setting=Setting(
                dims=[{"m": 1, "n": 1, "r": 1}, {"m": 2, "n": 2, "r": 1}],
                free=lambda d: {"G": (d["m"], d["n"]), "noise": (d["m"], d["n"])},
                build=lambda k, t, d: Instance(G=t.G, noise=t.noise, r=d["r"], p=d["m"]),
                boundary=[{"G": [["1"]], "noise": [["0"]], "r": 1, "p": 1}],
            ),
            evidence=Counterexample(NOISY),
            scope="2 x 2, r = 1, two equally likely samples; the subspaces see nothing of the gradient",
            open_instance=NOISY,
            repair=Repair(
                sentence=(
                    "For whatever subspace, however it was found, the one-restart inequality of thm_5_1 holds with "
                    "delta measured on the full gradient"
                ),
                statement=thm_5_1.statement,
                evidence=StepProof(thm_5_1.proof),
                setting=SETTING,
                sharp=scalar_step(),
            ),
            controls=(
                Control(
                    "the repair's gain smaller by 1/50",
                    statement=thm_5_1.statement,
                    tighten="1/50",
                    instance=scalar_step(),
                ),
                Control("the repair", kind="true", statement=thm_5_1.statement),
            ),
        ),
    ),
)

# -- any exploitation between restarts ------------------------------------------------------------------------


def exploitation(k: Kit, x: Instance) -> None:
    """After the restart's step the exploitation leads to loss f2; the gain over a whole round is claimed."""
    setting.projector(k, x)
    setting.smooth_step(k, x)
    gap = k.fro2(x.G) - setting.delta2(k, x)
    k.claim("gain of one round", k.le(x.eta * (gap - x.L / 2 * x.eta * gap), x.f0 - x.f2))


def careful_exploitation(k: Kit, x: Instance) -> None:
    """The same for an exploitation that does not increase the loss."""
    k.given("exploitation does not increase the loss", k.le(x.f2, x.f1))
    exploitation(k, x)


def careful_proof(k: Any, x: Instance) -> Mapping[str, Sequence[Any]]:
    """Add the two hypotheses."""
    k.use("P idempotent")
    terms = [k.hypothesis("smooth along the step"), k.hypothesis("exploitation does not increase the loss")]
    return {"gain of one round": terms}


def round_build(k: Kit, t: Instance, d: dict[str, Any]) -> Instance:
    """A step of the common setting and an exploitation that moves the loss by a square, up or down."""
    x = setting.build(k, t, d)
    return Instance({**x, "f2": x.f1 + k.e(t.slack, 0, 0)})


CYCLE = scalar_step(f2="1/2")
ROUND = Setting(
    dims=setting.DIMS,
    free=setting.free,
    build=round_build,
    letters=lambda k: Instance({**setting.letters(k), "f2": k.number("f2")}),
    boundary=[scalar_step(f2="1/8"), scalar_step(f2="0")],
)
EXPLOITATION = Claim(
    id="peso/thm_5_1_exploitation",
    source=setting.source("Theorem 5.1, exploitation step"),
    sentence="Between two restarts any optimiser may be used inside the subspace.",
    headline=(
        "False in one dimension: an optimiser that undoes the restart's step makes a cycle with a constant "
        "gradient; true for any optimiser that does not increase the loss."
    ),
    setting=ROUND,
    defect="missing hypothesis",
    uses=("peso/thm_5_1",),
    readings=(
        Reading(
            name="any map of the iterate",
            statement=exploitation,
            evidence=Counterexample(CYCLE),
            scope="w^2 / 2, eta = 1/2: the restart moves 1 to 1/2 and the exploitation back to 1, for ever",
            open_instance=scalar_step(f2="2/3"),
            repair=Repair(
                sentence="The gain of a restart survives every exploitation that does not increase the loss",
                statement=careful_exploitation,
                evidence=StepProof(careful_proof),
                necessary={"exploitation does not increase the loss": CYCLE},
                sharp=scalar_step(f2="1/8"),
            ),
            controls=(
                Control(
                    "the repair without its added hypothesis",
                    statement=careful_exploitation,
                    drop=("exploitation does not increase the loss",),
                    instance=CYCLE,
                ),
                Control("the repair", kind="true", statement=careful_exploitation),
            ),
        ),
    ),
)

CLAIMS = (SVD_RESTART, STOCHASTIC, EXPLOITATION)
