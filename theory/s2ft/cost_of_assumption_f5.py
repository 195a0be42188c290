"""What Assumption F.5 costs: where it protects S2FT, S2FT cannot have learnt much.

Source: ours; about S2FT's Assumption F.5 (4.1), |PS X|_F^2 <= eps^2 E_o(pre) with X = (Bo - Bi) Si (q x p) and
no covariate shift. Under it (E_i(pre) - E_i(S2FT))^(1/2) <= (1 + eps) E_o(pre)^(1/2): if the pretrained network
is good out of distribution, the in-distribution gain of S2FT is small.

Proved for every size: the gain is |PS D Si Q|_F^2 (Q the projector on the rows of L Si), and PS D Si is
PS (Bo - W) Si less PS X. It is attained for every eps, by Bo - W against Bo - Bi on a single channel.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from theory.claim import Claim, Control, Reading, Setting
from theory.evidence import WordProof
from theory.protocol import Instance, Kit, Mat
from theory.s2ft import setting, shift
from theory.s2ft.shift import UNSHIFTED, scalar
from theory.s2ft.thm_f8 import assumption_f5, build_with_eps


def parts(k: Kit, x: Instance) -> tuple[Any, Any, Mat, Mat]:
    """(quantities, the same out of distribution, PS (Bo - W) Si, PS X)."""
    s = setting.quantities(k, x)
    setting.hypotheses(k, x, s)
    o = shift.quantities(k, x, s)
    return s, o, s.PS @ o.change @ x.Si, s.PS @ o.X


def gain(k: Kit, x: Instance, s: Any) -> Any:
    """E_i(pre) - E_i(S2FT)."""
    return s.E_pre - k.fro2((x.D - setting.s2ft(k, x, s)) @ x.Si)


def statement(k: Kit, x: Instance) -> None:
    """Both sides squared, times eps > 0."""
    s, o, _, _ = parts(k, x)
    assumption_f5(k, x, s, o)
    k.claim("gain <= (1 + eps)^2 E_o(pre)", k.le(x.eps * gain(k, x, s), x.eps * k.sq(1 + x.eps) * o.pre))


def proof(k: Any, x: Instance) -> Mapping[str, Sequence[Any]]:
    """With a = PS (Bo - W) Si, b = PS X: eps |a - b|^2 + |eps a + b|^2 = eps (1 + eps) |a|^2 + (1 + eps) |b|^2."""
    s, o, a, b = parts(k, x)
    eps = k.hypothesis("eps > 0")
    unseen = k.eye(x.Si.shape[0]) - k.pinv(x.L @ x.Si) @ x.L @ x.Si
    outside = k.square(o.change @ x.Si - a)
    return {
        "gain <= (1 + eps)^2 E_o(pre)": [
            eps * k.square((a - b) @ unseen),
            k.square(x.eps * a + b),
            eps * outside,
            eps * eps * outside,
            k.hypothesis("F.5"),
            eps * k.hypothesis("F.5"),
        ]
    }


def twice(k: Kit, x: Instance) -> None:
    """Weaker: gain <= 2 (1 + eps^2) E_o(pre)."""
    s, o, _, _ = parts(k, x)
    assumption_f5(k, x, s, o)
    k.claim("gain <= 2 (1 + eps^2) E_o(pre)", k.le(gain(k, x, s), 2 * (1 + x.eps * x.eps) * o.pre))


ATTAINED = scalar(D=[["3"]], Bo=[["1"]], eps="2")
SETTING = Setting(
    dims=UNSHIFTED.dims,
    free=UNSHIFTED.free,
    build=build_with_eps,
    letters=UNSHIFTED.letters,
    boundary=[*UNSHIFTED.boundary, ATTAINED],
)

CLAIM = Claim(
    id="s2ft/cost_of_assumption_f5",
    source=setting.source("ours; about Assumption F.5"),
    sentence=(
        "Under Assumption F.5 the root of S2FT's in-distribution gain is at most (1 + eps) times the root of the "
        "pretrained network's out-of-distribution risk."
    ),
    headline=(
        "True for every size and attained for every eps: where the assumption protects S2FT and the pretrained "
        "network is good out of distribution, S2FT has learnt little."
    ),
    setting=SETTING,
    uses=("s2ft/lemma_f12", "s2ft/gain_equals_movement"),
    readings=(
        Reading(
            name="as stated",
            statement=statement,
            evidence=WordProof(proof),
            scope="every size, rank, selection and covariance; squared, and times eps > 0",
            unused=("Si psd", "L Sig_i L' is not zero", "Sig_f is not zero"),
            sharp=ATTAINED,
            controls=(
                Control("right side smaller by 1/50", instance=ATTAINED, tighten="1/50"),
                Control("without Assumption F.5", instance={**ATTAINED, "eps": "1"}, drop=("F.5",)),
                Control("gain <= 2 (1 + eps^2) E_o(pre)", kind="true", statement=twice),
            ),
        ),
    ),
)
