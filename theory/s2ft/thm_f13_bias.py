"""The bias term of S2FT: full tuning plus what the channels S cannot reach of the residual.

Source: S2FT, Theorem F.13, (21), and (23), (24) of its proof. With N = D Sig_i L' A^+ (q x k), P and PS the
projectors on the columns of H and H U, Phi the left singular vectors of D Si,
(T_bias^S2FT)^2 = |PS N - P N|_F^2 + E_i(full) <= |(P - PS) Phi|^2 E_i(pre) + E_i(full).

Proved for every size and rank: the three parts of the error are orthogonal, N lies in the columns of D Si, and
|N|_F <= |D Si|_F. Two things are lost on the way and can be kept: only M = P N matters, so Phi may be replaced
by the left singular vectors of M, and |M|_F^2 = E_i(pre) - E_i(full) may stand in place of E_i(pre).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from theory.claim import Claim, Control, Reading
from theory.evidence import WordProof
from theory.kits import spectral
from theory.protocol import Instance, Kit, Mat
from theory.s2ft import setting
from theory.s2ft.setting import SETTING, plane_instance

UNUSED = ("Si psd", "L Sig_i L' is not zero", "Sig_f is not zero")


def bias(k: Kit, x: Instance, s: Any) -> Any:
    """(T_bias^S2FT)^2: the in-distribution risk of the population solution."""
    return k.fro2((x.D - setting.s2ft(k, x, s)) @ x.Si)


def distance(k: Kit, s: Any, Z: Mat) -> Mat:
    """(P - PS) Phi Phi', Phi the left singular vectors of Z; its norm is that of (P - PS) Phi."""
    missed: Mat = (s.P - s.PS) @ k.proj(Z)
    return missed


def statement(k: Kit, x: Instance) -> None:
    """(23), and (21) = (24)."""
    s = setting.quantities(k, x)
    setting.hypotheses(k, x, s)
    k.claim("(23)", k.eq(bias(k, x, s), k.fro2(s.PS @ s.N - s.P @ s.N) + s.E_full))
    angle2 = k.sq(k.op(distance(k, s, x.D @ x.Si)))
    k.claim("(21)", k.le(bias(k, x, s), angle2 * s.E_pre + s.E_full))


def proof(k: Any, x: Instance) -> Mapping[str, Sequence[Any]]:
    """|(P - PS) N| <= |(P - PS) Phi| |N|_F, and D Si = N A^+ L Si + what layer l does not see."""
    s = setting.quantities(k, x)
    angle = distance(k, s, x.D @ x.Si)
    norm = spectral.norm(k, angle)
    unseen = k.square(x.D @ x.Si - s.N @ s.A_pinv @ x.L @ x.Si)
    return {"(21)": [k.submultiplicative(angle, s.N), norm * norm * unseen]}


def sharpened(k: Kit, x: Instance) -> None:
    """Ours: (T_bias^S2FT)^2 <= |(P - PS) Phi_M|^2 (E_i(pre) - E_i(full)) + E_i(full)."""
    s = setting.quantities(k, x)
    setting.hypotheses(k, x, s)
    angle2 = k.sq(k.op(distance(k, s, s.M)))
    k.claim("sharpened", k.le(bias(k, x, s), angle2 * (s.E_pre - s.E_full) + s.E_full))


def sharpened_proof(k: Any, x: Instance) -> Mapping[str, Sequence[Any]]:
    """|(P - PS) M| <= |(P - PS) Phi_M| |M|_F."""
    s = setting.quantities(k, x)
    return {"sharpened": [k.submultiplicative(distance(k, s, s.M), s.M)]}


def below_pretrained(k: Kit, x: Instance) -> None:
    """Weaker: the population solution never hurts in distribution."""
    s = setting.quantities(k, x)
    setting.hypotheses(k, x, s)
    k.claim("E_i(S2FT) <= E_i(pre)", k.le(bias(k, x, s), s.E_pre))


MISSED = plane_instance(D=[["0", "0"], ["0", "1"]], S=[0])

CLAIM = Claim(
    id="s2ft/thm_f13_bias",
    source=setting.source("Theorem F.13, (21), (23), (24)"),
    sentence=(
        "The squared bias term of S2FT is |PS N - P N|_F^2 + E_i(full), which is at most "
        "|(P - PS) Phi|^2 E_i(pre) + E_i(full), Phi the left singular vectors of D Si."
    ),
    headline=(
        "True for every size and rank; it stays true with the singular vectors of M in place of those of the "
        "residual and with E_i(pre) - E_i(full) in place of E_i(pre)."
    ),
    setting=SETTING,
    uses=("s2ft/lemma_f12", "s2ft/lemma_f17"),
    readings=(
        Reading(
            name="as printed",
            statement=statement,
            evidence=WordProof(proof),
            scope="every size, rank, selection and covariance",
            unused=UNUSED,
            sharp=MISSED,
            controls=(
                Control(
                    "(21) with the right side smaller by 1/50", instance=MISSED, tighten="1/50", only="(21)"
                ),
                Control(
                    "(23) with the right side larger by 1/1000",
                    instance=MISSED,
                    tighten="1/1000",
                    only="(23)",
                ),
                Control("E_i(S2FT) <= E_i(pre)", kind="true", statement=below_pretrained),
            ),
        ),
        Reading(
            name="sharpened",
            sentence=(
                "The squared bias term of S2FT is at most |(P - PS) Phi_M|^2 (E_i(pre) - E_i(full)) + E_i(full), "
                "Phi_M the left singular vectors of M (ours)."
            ),
            statement=sharpened,
            evidence=WordProof(sharpened_proof),
            scope="every size, rank, selection and covariance",
            unused=UNUSED,
            sharp=MISSED,
            controls=(
                Control("right side smaller by 1/50", instance=MISSED, tighten="1/50"),
                Control("E_i(S2FT) <= E_i(pre)", kind="true", statement=below_pretrained),
            ),
        ),
    ),
)
