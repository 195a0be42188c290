"""With full gradient restarts the gradient ends within the subspace error: liminf |G_k| <= lim delta_k.

Source: PESO, Theorem 5.1, deterministic regime (second-hand). One restart: choose P from the full gradient G,
move to W - eta P G with a step 0 < eta < 2 / L, delta = |(I - P) G|_F.

Proved, in the form that carries the limit: eta (1 - L eta / 2) (|G|^2 - delta^2) <= f(W) - f(W - eta P G) for every
size, subspace and smooth loss. Summed over restarts with f bounded below, the differences |G_k|^2 - delta_k^2, which
are never negative, are summable: liminf |G_k| <= lim delta_k, and where delta_k converges, |G_k| converges to the
same limit. So in the deterministic regime the theorem is an equality: it fixes where the gradient ends, but says
nothing about how small delta is, which is the whole question (see `thm_5_1_content`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from theory import instances
from theory.claim import Claim, Control, Reading, Repair, Setting
from theory.evidence import Counterexample
from theory.partial import StepProof
from theory.peso import setting
from theory.peso.setting import SETTING, scalar_step
from theory.protocol import Instance, Kit

STEP = "gain of one restart"


def statement(k: Kit, x: Instance) -> None:
    """The one-restart inequality whose sum over restarts is the theorem."""
    setting.projector(k, x)
    setting.smooth_step(k, x)
    gap = k.fro2(x.G) - setting.delta2(k, x)
    k.claim(STEP, k.le(x.eta * (gap - x.L / 2 * x.eta * gap), x.f0 - x.f1))


def proof(k: Any, x: Instance) -> Mapping[str, Sequence[Any]]:
    """|G|^2 - delta^2 = |P G|^2, and the rest is the descent inequality."""
    k.use("P idempotent")
    return {STEP: [k.hypothesis("smooth along the step")]}


def never_negative(k: Kit, x: Instance) -> None:
    """delta^2 <= |G|^2: with the theorem this makes the limits equal."""
    setting.projector(k, x)
    k.claim("delta^2 <= |G|^2", k.le(setting.delta2(k, x), k.fro2(x.G)))


def never_negative_proof(k: Any, x: Instance) -> Mapping[str, Sequence[Any]]:
    """The difference is |P G|^2."""
    k.use("P idempotent")
    return {"delta^2 <= |G|^2": [k.square(x.P @ x.G)]}


def any_projection_like(k: Kit, x: Instance) -> None:
    """The equality needs a projector: without idempotence delta may exceed |G|."""
    k.given("P symmetric", k.sym(x.P))
    k.claim("delta^2 <= |G|^2", k.le(setting.delta2(k, x), k.fro2(x.G)))


def decreasing(k: Kit, x: Instance) -> None:
    """What follows for eta <= 1 / L: no restart makes the loss larger."""
    setting.projector(k, x)
    setting.smooth_step(k, x)
    k.given("L eta <= 1", k.le(x.L * x.eta, k.num(1)))
    k.given("L >= 0", k.le(k.num(0), x.L))
    k.claim("no ascent", k.le(x.f1, x.f0))


THEOREM = Claim(
    id="peso/thm_5_1",
    source=setting.source("Theorem 5.1"),
    sentence=(
        "For a smooth loss bounded below and full gradient restarts, the lower limit of the gradient norm is at "
        "most the limit of the subspace error."
    ),
    headline=(
        "True in the deterministic regime, and then an equality: the gradient norm ends exactly at the error that "
        "the subspaces make."
    ),
    setting=SETTING,
    readings=(
        Reading(
            name="deterministic, exact gradient steps",
            statement=statement,
            evidence=StepProof(proof),
            scope=(
                "one restart, for every size, projector and smooth loss; summing over restarts and letting their "
                "number grow is the only step left"
            ),
            sharp=scalar_step(),
            controls=(
                Control("the gain smaller by 1/50", instance=scalar_step(), tighten="1/50"),
                Control("no ascent for eta <= 1 / L", kind="true", statement=decreasing),
            ),
        ),
        Reading(
            name="equality in the deterministic regime",
            sentence="The lower limit of the gradient norm equals the limit of the subspace error.",
            statement=never_negative,
            evidence=StepProof(never_negative_proof),
            scope=(
                "delta_k <= |G_k| at every restart, for every size and projector; with the first reading both limits "
                "agree where delta_k converges"
            ),
            sharp=scalar_step(P=[["0"]], f1="1/2"),
            controls=(
                Control(
                    "P need not be idempotent", statement=any_projection_like, instance=scalar_step(P=[["3"]])
                ),
                Control("the inequality at twice its right side", kind="true", tighten="-1"),
            ),
        ),
    ),
)


def says_something(k: Kit, x: Instance) -> None:
    """What a reader takes from the theorem: whatever satisfies its bound has a vanishing gradient or moves."""
    setting.projector(k, x)
    k.given("the bound of the theorem", k.le(k.fro2(x.G), setting.delta2(k, x)))
    k.claim("the gradient vanishes", k.eq(k.fro2(x.G), k.num(0)))


def with_share_build(k: Kit, t: Instance, d: dict[str, Any]) -> Instance:
    """The common instances with the share c in [0, 1)."""
    return Instance({**setting.build(k, t, d), "c": instances.unit_interval(k, k.e(t.slack, 0, 0))})


def vanishing(k: Kit, x: Instance) -> None:
    """The repair as an inequality: (1 - c) |G|^2 <= 0 (so G = 0 for c < 1)."""
    setting.projector(k, x)
    k.given("the bound of the theorem", k.le(k.fro2(x.G), setting.delta2(k, x)))
    k.given("delta^2 <= c |G|^2", k.le(setting.delta2(k, x), x.c * k.fro2(x.G)))
    k.claim("(1 - c) |G|^2 <= 0", k.le((1 - x.c) * k.fro2(x.G), k.num(0)))


def vanishing_proof(k: Any, x: Instance) -> Mapping[str, Sequence[Any]]:
    """Add the two hypotheses."""
    return {
        "(1 - c) |G|^2 <= 0": [k.hypothesis("the bound of the theorem"), k.hypothesis("delta^2 <= c |G|^2")]
    }


def share_letters(k: Any) -> Instance:
    """The common letters and c."""
    return Instance({**setting.letters(k), "c": k.number("c")})


DO_NOTHING = scalar_step(P=[["0"]], f1="1/2", c="1")
_SHARE = Setting(
    dims=setting.DIMS,
    free=setting.free,
    build=with_share_build,
    letters=share_letters,
    boundary=[scalar_step(G=[["0"]], f0="0", f1="0", c="1/2")],
)

CONTENT = Claim(
    id="peso/thm_5_1_content",
    source=setting.source("Theorem 5.1, as the summary sells it"),
    sentence="The bound liminf |G_k| <= lim delta_k ensures convergence to a stationary point.",
    headline=(
        "False: the method that never moves (P = 0) satisfies the bound with equality at any gradient; convergence "
        "needs delta_k to be a fixed share below |G_k|."
    ),
    setting=_SHARE,
    defect="missing hypothesis",
    uses=("peso/thm_5_1",),
    readings=(
        Reading(
            name="the bound alone",
            statement=says_something,
            evidence=Counterexample(DO_NOTHING),
            scope="one number, P = 0",
            vacuous="for P = 0 the subspace error is the gradient itself: the bound reads |G| <= |G|",
            open_instance={**DO_NOTHING, "G": [["1"], ["2"]], "P": [["0", "0"], ["0", "0"]]},
            repair=Repair(
                sentence=(
                    "If delta^2 <= c |G|^2 with c < 1 (top-r restarts: c = 1 - r / min(m, n)), the bound forces the "
                    "gradient to vanish; so in the limit over restarts"
                ),
                statement=vanishing,
                evidence=StepProof(vanishing_proof),
                necessary={"delta^2 <= c |G|^2": {**DO_NOTHING, "c": "0"}},
            ),
            controls=(
                Control(
                    "the repair without the share",
                    statement=vanishing,
                    drop=("delta^2 <= c |G|^2",),
                    instance={**DO_NOTHING, "c": "0"},
                ),
                Control("the repair", kind="true", statement=vanishing),
            ),
        ),
    ),
)

CLAIMS = (THEOREM, CONTENT)
