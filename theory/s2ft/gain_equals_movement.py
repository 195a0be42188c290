"""What a fit gains in distribution is what it moves: |F Si|_F^2 = E_i(pre) - E_i(F).

Source: ours; it stands behind F.8, F.16 and the phase law. F (q x p) is the change of the network's map by the
population solution of LoRA, S2FT or full tuning of layer l, Si (p x p) the root of the input covariance, E_i
the in-distribution excess risk.

Proved for every size and rank: each F is the projection of D onto a linear space (S2FT, full) or a truncated
SVD of one (LoRA), so F Si is orthogonal to (D - F) Si. It breaks for anything that is no such projection, for
example gradient descent stopped early. With Bo = W and So = Si the out-of-distribution risk of F is |F Si|^2:
forgetting then equals learning.
"""

from __future__ import annotations

from theory.claim import Claim, Control, Reading
from theory.evidence import WordProof
from theory.protocol import Instance, Kit
from theory.s2ft import setting
from theory.s2ft.setting import SETTING, scalar_instance


def statement(k: Kit, x: Instance) -> None:
    """The identity for the three methods."""
    s = setting.quantities(k, x)
    setting.hypotheses(k, x, s)
    for method, fit in (("LoRA", setting.lora), ("S2FT", setting.s2ft), ("full", setting.full)):
        F = fit(k, x, s)
        k.claim(f"gain = movement, {method}", k.eq(k.fro2(F @ x.Si), s.E_pre - k.fro2((x.D - F) @ x.Si)))


def bounded(k: Kit, x: Instance) -> None:
    """What the identity implies: no method moves by more than the pretrained risk."""
    s = setting.quantities(k, x)
    setting.hypotheses(k, x, s)
    for method, fit in (("LoRA", setting.lora), ("S2FT", setting.s2ft), ("full", setting.full)):
        k.claim(f"movement <= E_i(pre), {method}", k.le(k.fro2(fit(k, x, s) @ x.Si), s.E_pre))


CLAIM = Claim(
    id="s2ft/gain_equals_movement",
    source=setting.source("ours; behind F.8 and F.16"),
    sentence=(
        "For the population solution of LoRA, S2FT or full tuning of one layer, the squared movement of the "
        "network on in-distribution inputs equals the in-distribution risk that it gains."
    ),
    headline="True for every size and rank: on unshifted inputs a population fit moves by exactly what it gains.",
    setting=SETTING,
    readings=(
        Reading(
            name="as stated",
            statement=statement,
            evidence=WordProof(),
            scope="every size, rank, selection and covariance",
            unused=("L Sig_i L' is not zero", "Sig_f is not zero"),
            controls=(
                Control("each right side larger by 1/1000", instance=scalar_instance(), tighten="1/1000"),
                Control("movement is at most E_i(pre)", kind="true", statement=bounded),
            ),
        ),
    ),
)
