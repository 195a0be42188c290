"""When S2FT beats LoRA out of distribution: compare two numbers that know nothing of the fits.

Source: ours; it stands behind S2FT's Theorem 4.2. Without covariate shift, for Bi that layer l can realise and
r >= rank(D Si), the population risks satisfy
E_o(S2FT) - E_o(LoRA) = |(I - PS)(Bo - W) Si|_F^2 - |(I - PS)(Bo - Bi) Si|_F^2,
so S2FT wins exactly when, seen through the outputs that its channels do not reach, the out-of-distribution map
Bo is nearer to the pretrained W than to the in-distribution Bi (all q x p; PS projects on the columns of H U).

Proved for every size: LoRA then fits D, S2FT fits PS D, and both fits agree inside the range of PS. Without
realisability, and for smaller r, it breaks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from theory.claim import Claim, Control, Reading
from theory.evidence import WordProof
from theory.protocol import Instance, Kit
from theory.s2ft import setting, shift
from theory.s2ft.shift import REALISABLE, plane
from theory.s2ft.thm_f8 import FULL_RANK, lora_full_rank_proof, unshifted


def sides(k: Kit, x: Instance, s: Any, o: Any) -> tuple[Any, Any]:
    """|(I - PS)(Bo - W) Si|^2 and |(I - PS)(Bo - Bi) Si|^2."""
    rest = o.I - s.PS
    return k.fro2(rest @ o.change @ o.So), k.fro2(rest @ o.X)


def statement(k: Kit, x: Instance) -> None:
    """The difference of the risks."""
    s, o = unshifted(k, x)
    best = k.svd_r(s.M, x.r, "SVD_r(M)")
    k.given(FULL_RANK, k.eq(best, s.M))
    sparse, low_rank = shift.risk(k, o, setting.s2ft(k, x, s)), shift.risk(k, o, best @ s.A_pinv @ x.L)
    stay, follow = sides(k, x, s, o)
    k.claim("difference", k.eq(sparse - low_rank, stay - follow))


def proof(k: Any, x: Instance) -> Mapping[str, Sequence[Any]]:
    """Uses that D = H C L and that nothing of M is cut off."""
    return lora_full_rank_proof(k, x)


def nothing_moved(k: Kit, x: Instance) -> None:
    """A consequence: for Bo = W LoRA is never better."""
    s, o = unshifted(k, x)
    best = k.svd_r(s.M, x.r, "SVD_r(M)")
    k.given(FULL_RANK, k.eq(best, s.M))
    k.given("Bo = W", k.eq(x.Bo, x.W))
    sparse, low_rank = shift.risk(k, o, setting.s2ft(k, x, s)), shift.risk(k, o, best @ s.A_pinv @ x.L)
    k.claim("S2FT forgets less", k.le(sparse, low_rank))


PLAIN = plane(D=[["2", "0"], ["0", "1"]], Bo=[["1", "0"], ["0", "3"]], S=[0], r=2)

CLAIM = Claim(
    id="s2ft/ood_crossover",
    source=setting.source("ours; behind Theorem 4.2"),
    sentence=(
        "Without covariate shift, for realisable Bi and r >= rank(D Si), S2FT beats LoRA out of distribution "
        "exactly when |(I - PS)(Bo - W) Si|_F < |(I - PS)(Bo - Bi) Si|_F."
    ),
    headline=(
        "True for every size: outside the reach of its channels S2FT keeps the old map and LoRA takes the other; "
        "the nearer one wins."
    ),
    setting=REALISABLE,
    uses=("s2ft/lemma_f9", "s2ft/lemma_f12", "s2ft/thm_f8_lora", "s2ft/remark_f16"),
    readings=(
        Reading(
            name="as stated",
            statement=statement,
            evidence=WordProof(proof),
            scope="every size, selection and covariance; r >= rank(M) = rank(D Si)",
            unused=("Si psd", "L Sig_i L' is not zero", "Sig_f is not zero", "W = H Wl L"),
            controls=(
                Control("right side larger by 1/1000", instance=PLAIN, tighten="1/1000"),
                Control("for smaller r", instance={**PLAIN, "r": 1}, drop=(FULL_RANK,)),
                Control(
                    "not realisable",
                    drop=("realisable",),
                    instance={**PLAIN, "L": [["1", "0"], ["0", "0"]], "D": [["0", "0"], ["1", "1"]]},
                ),
                Control("S2FT forgets less when nothing moved", kind="true", statement=nothing_moved),
            ),
        ),
    ),
)
