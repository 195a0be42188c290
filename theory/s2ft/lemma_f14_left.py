"""LoRA's bias does not stay below that of S2FT: it can exceed it when S2FT tunes more channels than r.

Source: S2FT, Lemma F.14, the inequality (T_bias^LoRA)^2 <= (T_bias^S2FT)^2. With M = P N (q x k) what layer l
could learn, (T_LoRA)^2 = |SVD_r(M) - M|_F^2 + E_full and (T_S2FT)^2 = |PS N - P N|_F^2 + E_full.

Why one believes it: rank-r LoRA is the best rank-r change, and S2FT looks like a special case. Where it
breaks: at equal parameter count S2FT tunes s = floor(r (m + k) / k) > r channels, a change of rank up to s.
The proof compares SVD_r(M) with PS N as if rank(PS N) <= r. What is true: add the energy of PS M beyond its
first r singular values; the lemma as printed is true for s <= r.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from theory.claim import Claim, Control, Reading, Repair
from theory.evidence import Counterexample, WordProof
from theory.protocol import Instance, Kit
from theory.s2ft import setting
from theory.s2ft.setting import SETTING, plane_instance


def statement(k: Kit, x: Instance) -> None:
    """As printed, with Assumption F.4 for S0 = S, where it holds for every delta large enough."""
    s = setting.quantities(k, x)
    setting.hypotheses(k, x, s)
    best = k.svd_r(s.M, x.r, "SVD_r(M)")
    bias_lora = k.fro2(best - s.M) + s.E_full
    bias_s2ft = k.fro2(s.PS @ s.N - s.P @ s.N) + s.E_full
    k.claim("(T_LoRA)^2 <= (T_S2FT)^2", k.le(bias_lora, bias_s2ft))


def repaired(k: Kit, x: Instance) -> None:
    """With the tail of PS M, which vanishes for s <= r."""
    s = setting.quantities(k, x)
    setting.hypotheses(k, x, s)
    best = k.svd_r(s.M, x.r, "SVD_r(M)")
    excess_lora = k.fro2(best - s.M)
    excess_s2ft = k.fro2(s.PS @ s.N - s.P @ s.N)
    k.claim("with the tail", k.le(excess_lora, excess_s2ft + k.tail2(s.PS @ s.M, x.r)))


def repaired_proof(k: Any, x: Instance) -> Mapping[str, Sequence[Any]]:
    """SVD_r(PS M) has rank <= r, and the error of PS M is orthogonal to its tail."""
    s = setting.quantities(k, x)
    q, kk = x.H.shape[0], x.L.shape[0]
    return {"with the tail": [k.eckart_young(s.M, x.r, k.eye(q), s.PS @ s.M, k.eye(kk))]}


COUNTEREXAMPLE = plane_instance()

CLAIM = Claim(
    id="s2ft/lemma_f14_left",
    source=setting.source("Lemma F.14, left inequality"),
    sentence=(
        "For S containing the important channels, the squared bias term of LoRA is at most that of S2FT."
    ),
    headline=(
        "False: at equal parameter count S2FT tunes more channels than LoRA has ranks and can have the smaller "
        "bias; true after adding the energy of the tuned part beyond rank r."
    ),
    setting=SETTING,
    defect="false statement",
    uses=("s2ft/lemma_f9", "s2ft/lemma_f12", "s2ft/lemma_f17"),
    readings=(
        Reading(
            name="as printed",
            statement=statement,
            evidence=Counterexample(COUNTEREXAMPLE),
            scope="sizes 2, r = 1, s = 2, which is the paper's parameter parity for m = k = 2",
            open_instance=plane_instance(D=[["2", "0"], ["0", "1"]]),
            repair=Repair(
                sentence=(
                    "(T_LoRA)^2 <= (T_S2FT)^2 + the sum over j > r of sigma_j(PS M)^2; in particular the lemma "
                    "holds as printed when s <= r"
                ),
                statement=repaired,
                evidence=WordProof(repaired_proof),
                sharp=COUNTEREXAMPLE,
            ),
            controls=(
                Control(
                    "the repair's right side smaller by 1/50",
                    statement=repaired,
                    tighten="1/50",
                    instance=COUNTEREXAMPLE,
                ),
                Control("the repair", kind="true", statement=repaired),
            ),
        ),
    ),
)
