"""S2FT's bias exceeds that of full tuning by at most delta^2 kap(H)^2 E_i(pre), and no smaller factor will do.

Source: S2FT, Lemma F.14, the right inequality (T_bias^S2FT)^2 <= E_i(full) + delta^2 kap(H)^2 E_i(pre), under
Assumption F.4: the rows of H^+ D Si (m x p) outside S0 hold at most the share delta^2 of its energy. It is
enough to look at S = S0: for a larger S fewer rows are left out.

Proved for every size and rank: with V = (I - U U') H^+ N the difference is |(PS - I) H V|_F^2 <= |H|^2 |V|_F^2,
V is a contraction of the rows of Assumption F.4, and |H^+ D Si|_F <= |H^+| |D Si|_F. The factor kap(H)^2 cannot
be lowered: for H = diag(c, 1), c < 1, and D Si = (1, t)' left over right is (1 + c^2 t^2) / (1 + t^2), which
tends to 1 for t -> 0 at every kap(H) = 1/c. Our second reading stops before kap enters and is attained by every
D for H = I.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from theory.claim import Claim, Control, Json, Reading, Setting
from theory.evidence import WordProof
from theory.kits import spectral
from theory.protocol import Instance, Kit, Mat
from theory.s2ft import setting
from theory.s2ft.setting import BOUNDARY, DIMS, plane_instance

UNUSED = ("Si psd", "L Sig_i L' is not zero", "Sig_f is not zero")


def left_out(k: Kit, x: Instance, s: Any, Z: Mat) -> Mat:
    """The rows of H^+ Z outside S, the rows in S set to zero: (I - U U') H^+ Z."""
    rows: Mat = (k.eye(x.H.shape[1]) - s.U @ s.U.T) @ k.pinv(x.H) @ Z
    return rows


def assumption_f4(k: Kit, x: Instance, s: Any) -> None:
    """Assumption F.4 for S0 = S."""
    root = x.D @ x.Si
    k.given("delta > 0", k.lt(k.num(0), x.delta))
    total = k.fro2(k.pinv(x.H) @ root)
    k.given("F.4", k.le(k.fro2(left_out(k, x, s, root)), x.delta * x.delta * total))


def excess(k: Kit, x: Instance, s: Any) -> Any:
    """(T_bias^S2FT)^2 - E_i(full) by (23): |PS N - P N|_F^2."""
    return k.fro2(s.PS @ s.N - s.P @ s.N)


def statement(k: Kit, x: Instance) -> None:
    """As printed, with the bias term of (23)."""
    s = setting.quantities(k, x)
    setting.hypotheses(k, x, s)
    assumption_f4(k, x, s)
    kappa2 = k.sq(k.kap(x.H))
    bias = excess(k, x, s) + s.E_full
    k.claim("(T_S2FT)^2 <= E_full + ...", k.le(bias, s.E_full + x.delta * x.delta * kappa2 * s.E_pre))


def proof_terms(k: Any, x: Instance) -> list[Any]:
    """The steps of the docstring, one term each."""
    s = setting.quantities(k, x)
    root = x.D @ x.Si
    V, V0 = left_out(k, x, s, s.N), left_out(k, x, s, root)
    unseen = k.eye(x.Si.shape[0]) - x.Si @ x.L.T @ s.A_pinv @ s.A_pinv @ x.L @ x.Si
    norm_H, delta = spectral.norm(k, x.H), k.hypothesis("delta > 0")
    return [
        k.square(s.PS @ x.H @ V),
        k.submultiplicative(x.H, V),
        norm_H * norm_H * k.square(V0 @ unseen),
        norm_H * norm_H * k.hypothesis("F.4"),
        norm_H * norm_H * delta * delta * k.submultiplicative(k.pinv(x.H), root),
    ]


def proof(k: Any, x: Instance) -> Mapping[str, Sequence[Any]]:
    """The proof of the printed inequality."""
    return {"(T_S2FT)^2 <= E_full + ...": proof_terms(k, x)}


def before_kappa(k: Kit, x: Instance) -> None:
    """Ours: the excess is at most |(I - PS) H (I - U U')|^2 times the energy of the left-out rows of H^+ N."""
    s = setting.quantities(k, x)
    setting.hypotheses(k, x, s)
    reach = reached(k, x, s)
    k.claim("before kap", k.le(excess(k, x, s), k.sq(k.op(reach)) * k.fro2(left_out(k, x, s, s.N))))


def reached(k: Kit, x: Instance, s: Any) -> Mat:
    """(I - PS) H (I - U U'), q x m: what the channels outside S reach and those in S do not."""
    beyond: Mat = (k.eye(x.H.shape[0]) - s.PS) @ x.H @ (k.eye(x.H.shape[1]) - s.U @ s.U.T)
    return beyond


def before_kappa_proof(k: Any, x: Instance) -> Mapping[str, Sequence[Any]]:
    """|R V|_F <= |R| |V|_F."""
    s = setting.quantities(k, x)
    return {"before kap": [k.submultiplicative(reached(k, x, s), left_out(k, x, s, s.N))]}


def above_full(k: Kit, x: Instance) -> None:
    """Weaker: S2FT never beats full tuning of the layer in distribution, and loses at most |M|^2."""
    s = setting.quantities(k, x)
    setting.hypotheses(k, x, s)
    k.claim("excess <= |M|^2", k.le(excess(k, x, s), k.fro2(s.M)))


# -- instances ----------------------------------------------------------------------------------------------
def free(d: dict[str, Any]) -> dict[str, tuple[int, int]]:
    """The parameters of the common setting."""
    return dict(setting.free(d))


def build(k: Kit, t: Instance, d: dict[str, Any]) -> Instance:
    """An instance of the common setting with delta = (1 + share)/2, which is at least the root of the share."""
    x = setting.build(k, t, d)
    H_pinv, root = k.pinv(x.H), x.D @ x.Si
    others = [a for a in range(d["m"]) if a not in d["S"]]
    outside = k.fro2(k.rows(H_pinv @ root, others)) if others else k.num(0)
    return Instance({**x, "delta": (1 + outside / k.fro2(H_pinv @ root)) / 2})


def letters(k: Any) -> Instance:
    """Letters of the common setting and delta."""
    return Instance({**setting.letters(k), "delta": k.number("delta")})


ILL: Json = {
    "H": [["1/10", "0"], ["0", "1"]], "L": [["1"]], "D": [["1"], ["1/100"]], "Si": [["1"]],
    "W": [["0"], ["0"]], "Bo": [["1"], ["1/100"]], "S": [0], "r": 1, "delta": "1/1000",
}  # fmt: skip
PLAIN = plane_instance(D=[["0", "0"], ["0", "1"]], S=[0], delta="1")
SETTING = Setting(
    dims=DIMS,
    free=free,
    build=build,
    letters=letters,
    boundary=[*({**b, "delta": "1"} for b in BOUNDARY), ILL],
)

CLAIM = Claim(
    id="s2ft/lemma_f14_right",
    source=setting.source("Lemma F.14, right inequality"),
    sentence=(
        "Under Assumption F.4, for S containing S0, the squared bias term of S2FT is at most E_i(full) plus "
        "delta^2 kap(H)^2 E_i(pre)."
    ),
    headline=(
        "True for every size and rank, and the factor kap(H)^2 cannot be lowered for any kap; a bound without kap "
        "holds before the last step."
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
            sharp=ILL,
            controls=(
                Control("right side smaller by 1/50", instance=ILL, tighten="1/50"),
                Control("without Assumption F.4", instance={**PLAIN, "delta": "1/2"}, drop=("F.4",)),
                Control("excess <= |M|^2", kind="true", statement=above_full),
            ),
        ),
        Reading(
            name="before kap enters",
            sentence=(
                "The excess over E_i(full) is at most |(I - PS) H (I - U U')|^2 times the energy of the rows of "
                "H^+ N outside S (ours)."
            ),
            statement=before_kappa,
            evidence=WordProof(before_kappa_proof),
            scope="every size, rank, selection and covariance; Assumption F.4 is not used",
            unused=UNUSED,
            sharp=PLAIN,
            controls=(
                Control("right side smaller by 1/50", instance=PLAIN, tighten="1/50"),
                Control("excess <= |M|^2", kind="true", statement=above_full),
            ),
        ),
    ),
)
