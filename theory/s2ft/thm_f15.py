"""S2FT out of distribution: the bound with covariate shift, and the identity behind it without.

Source: S2FT, Theorem F.15 and Remark F.16. For the population solution of S2FT, with X = (Bo - Bi) So (q x p),
G = (L Si)^+ L So (p x p) and `moved` = So - Si G,
E_o(S2FT) <= E_o(pre) + 3 |PS X|_F^2 + 3 |Bi moved|_F^2 + 3 |Wb|^2 |L moved|_F^2,
and without covariate shift (So = Si) E_o(S2FT) <= E_o(pre) + 3 |PS X|_F^2 + 3 |Bi Si (I - Q)|_F^2, Q the
projector on the rows of L Si.

In the text at hand the bars that mark products of layers are lost. With Wb = H Wl, the product down to layer l,
which is what the proof uses, the theorem is true for every size and attained; with the layer alone it is false:
H = 2, and inputs whose out-of-distribution spread layer l cannot tell from the in-distribution one. Since the
residual D enters only as PS D moved, two terms do (our reading, attained too). The remark is true but loose:
without covariate shift E_o(S2FT) = E_o(pre) + |PS X Q|_F^2 - |PS (Bo - W) Si Q|_F^2.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from theory.claim import Claim, Control, Json, Reading, Repair
from theory.evidence import Counterexample, WordProof
from theory.protocol import Instance, Kit, Mat
from theory.s2ft import setting, shift
from theory.s2ft.shift import SHIFTED, UNSHIFTED, plane, scalar
from theory.s2ft.unseen import UNSEEN

UNUSED = ("Si psd", "So psd", "L Sig_i L' is not zero", "Sig_f is not zero")


# -- with covariate shift -----------------------------------------------------------------------------------
def shifted(k: Kit, x: Instance) -> tuple[Any, Any, Any]:
    """(in-distribution quantities, out-of-distribution quantities, E_o(S2FT)), the hypotheses stated."""
    s = setting.quantities(k, x)
    shift.hypotheses(k, x, s)
    o = shift.quantities(k, x, s, x.So)
    return s, o, shift.risk(k, o, setting.s2ft(k, x, s))


def printed_bound(k: Kit, x: Instance, s: Any, o: Any, Wb: Mat) -> Any:
    """The right side of Theorem F.15 for a reading Wb of its matrix in the last term."""
    return (
        o.pre
        + 3 * k.fro2(s.PS @ o.X)
        + 3 * k.fro2(o.Bi @ o.moved)
        + 3 * k.sq(k.op(Wb)) * k.fro2(x.L @ x.So - x.L @ x.Si @ o.G)
    )


def with_product(k: Kit, x: Instance) -> None:
    """Theorem F.15 with the product H Wl of the layers from the top down to layer l."""
    s, o, risk = shifted(k, x)
    k.claim("F.15", k.le(risk, printed_bound(k, x, s, o, x.H @ x.Wl)))


def with_product_proof(k: Any, x: Instance) -> Mapping[str, Sequence[Any]]:
    """The error splits into (I - PS)(Bo - W) So and PS (a + b - c), a = X, b = Bi moved, c = H Wl L moved."""
    k.use("W = H Wl L")
    s, o, _ = shifted(k, x)
    Wb = x.H @ x.Wl
    a, b, c = s.PS @ o.X, s.PS @ o.Bi @ o.moved, s.PS @ Wb @ x.L @ o.moved
    rest, follow = o.I - s.PS, k.submultiplicative(Wb, x.L @ o.moved)
    return {
        "F.15": [
            k.square(s.PS @ o.change @ x.So),
            k.square(a - b),
            k.square(a + c),
            k.square(b + c),
            k.square(rest @ o.Bi @ o.moved, 3),
            k.square(rest @ Wb @ x.L @ o.moved, 3),
            follow + follow + follow,
        ]
    }


def layer_alone(k: Kit, x: Instance) -> None:
    """Theorem F.15 with the tuned layer alone in the last term."""
    s, o, risk = shifted(k, x)
    k.claim("F.15", k.le(risk, printed_bound(k, x, s, o, x.Wl)))


def sharpened(k: Kit, x: Instance) -> None:
    """Ours: E_o(S2FT) <= |(I - PS)(Bo - W) So|^2 + 2 |PS X|^2 + 2 |PS D moved|^2."""
    s, o, risk = shifted(k, x)
    untouched = k.fro2((o.I - s.PS) @ o.change @ x.So)
    k.claim("two terms", k.le(risk, untouched + 2 * k.fro2(s.PS @ o.X) + 2 * k.fro2(s.PS @ x.D @ o.moved)))


def sharpened_proof(k: Any, x: Instance) -> Mapping[str, Sequence[Any]]:
    """|a + b|^2 + |a - b|^2 = 2 |a|^2 + 2 |b|^2."""
    s, o, _ = shifted(k, x)
    return {"two terms": [k.square(s.PS @ (o.X - x.D @ o.moved))]}


# -- without covariate shift ----------------------------------------------------------------------------------
def unshifted(k: Kit, x: Instance) -> tuple[Any, Any, Any, Mat]:
    """(quantities, the same out of distribution, E_o(S2FT), Q) for So = Si, the hypotheses stated."""
    s = setting.quantities(k, x)
    setting.hypotheses(k, x, s)
    o = shift.quantities(k, x, s)
    return s, o, shift.risk(k, o, setting.s2ft(k, x, s)), k.pinv(x.L @ x.Si) @ x.L @ x.Si


def remark(k: Kit, x: Instance) -> None:
    """Remark F.16 as printed."""
    s, o, risk, Q = unshifted(k, x)
    hidden = k.fro2(o.Bi @ x.Si @ (k.eye(x.Si.shape[0]) - Q))
    k.claim("F.16", k.le(risk, o.pre + 3 * k.fro2(s.PS @ o.X) + 3 * hidden))


def remark_proof(k: Any, x: Instance) -> Mapping[str, Sequence[Any]]:
    """The identity, and |PS X Q|_F <= |PS X|_F."""
    s, o, _, Q = unshifted(k, x)
    unseen = k.eye(x.Si.shape[0]) - Q
    return {
        "F.16": [
            k.square(s.PS @ o.change @ x.Si @ Q),
            k.square(s.PS @ o.X @ unseen),
            k.square(s.PS @ o.X, 2),
            k.square(o.Bi @ x.Si @ unseen, 3),
        ]
    }


def identity(k: Kit, x: Instance) -> None:
    """Ours: E_o(S2FT) = E_o(pre) + |PS X Q|^2 - |PS (Bo - W) Si Q|^2."""
    s, o, risk, Q = unshifted(k, x)
    gained = k.fro2(s.PS @ o.X @ Q) - k.fro2(s.PS @ o.change @ x.Si @ Q)
    k.claim("identity", k.eq(risk, o.pre + gained))


def one_term(k: Kit, x: Instance) -> None:
    """What the identity implies: E_o(S2FT) <= E_o(pre) + |PS X|^2."""
    s, o, risk, _ = unshifted(k, x)
    k.claim("one term", k.le(risk, o.pre + k.fro2(s.PS @ o.X)))


BLIND = {
    "Si": [["1", "0"], ["0", "0"]],
    "So": [["1", "1"], ["1", "1"]],
    "L": [["1", "0"], ["0", "1"]],
    "r": 1,
}
LAYER_ALONE: Json = {
    **BLIND, "H": [["2"]], "Wl": [["0", "-1"]], "W": [["0", "-2"]], "D": [["-2", "2"]], "Bo": [["-2", "0"]],
    "S": [0], "C": [["0", "0"]], "eta": "1/2", "eps": "1", "delta": "1",
}  # fmt: skip
GAINED = plane(D=[["1", "0"], ["0", "0"]], Bo=[["2", "0"], ["0", "0"]], S=[0])
FORGOTTEN = scalar(Bo=[["0"]])
ATTAINED: Json = {
    **LAYER_ALONE, "H": [["1"]], "Wl": [["0", "-1"]], "W": [["0", "-1"]], "D": [["-3", "2"]], "Bo": [["-2", "1"]],
}  # fmt: skip
PARALLEL: Json = {**LAYER_ALONE, "Bo": [["0", "0"]]}

CLAIMS = (
    Claim(
        id="s2ft/thm_f15",
        source=setting.source("Theorem F.15"),
        sentence=(
            "The out-of-distribution risk of S2FT is at most E_o(pre) + 3 |PS X|^2 + 3 |Bi moved|^2 + "
            "3 |Wb|^2 |L moved|^2."
        ),
        headline=(
            "True, and attained, when the matrix in the last term is the product of the layers down to the tuned "
            "one, as the proof has it; false for the tuned layer alone, which the text without its bars would say."
        ),
        setting=SHIFTED,
        defect="text uncertain",
        uses=("s2ft/lemma_f12",),
        readings=(
            Reading(
                name="product of the layers down to l",
                statement=with_product,
                evidence=WordProof(with_product_proof),
                scope="every size, rank, selection and pair of covariances",
                unused=UNUSED,
                sharp=ATTAINED,
                controls=(
                    Control("right side smaller by 1/50", instance=ATTAINED, tighten="1/50"),
                    Control("two terms", kind="true", statement=sharpened),
                ),
            ),
            Reading(
                name="layer l alone",
                sentence="The same with the tuned layer alone, |Wl|, in the last term.",
                statement=layer_alone,
                setting=UNSEEN,
                evidence=Counterexample(LAYER_ALONE),
                scope="q = m = 1, p = k = 2; it takes a singular Sig_i, since L moved vanishes otherwise",
                repair=Repair(
                    sentence="with the product H Wl in place of Wl the bound holds",
                    statement=with_product,
                    evidence=WordProof(with_product_proof),
                    sharp=ATTAINED,
                ),
                controls=(
                    Control(
                        "the repair's right side smaller by 1/50",
                        statement=with_product,
                        tighten="1/50",
                        instance=ATTAINED,
                    ),
                    Control("the repair", kind="true", statement=with_product),
                ),
            ),
            Reading(
                name="two terms",
                sentence=("E_o(S2FT) <= |(I - PS)(Bo - W) So|^2 + 2 |PS X|^2 + 2 |PS D moved|^2 (ours)."),
                statement=sharpened,
                evidence=WordProof(sharpened_proof),
                scope="every size, rank, selection and pair of covariances",
                unused=(*UNUSED, "W = H Wl L"),
                sharp=PARALLEL,
                controls=(
                    Control("right side smaller by 1/50", instance=PARALLEL, tighten="1/50"),
                    Control("the printed bound", kind="true", statement=with_product),
                ),
            ),
        ),
    ),
    Claim(
        id="s2ft/remark_f16",
        source=setting.source("Remark F.16"),
        sentence=(
            "Without covariate shift the out-of-distribution risk of S2FT is at most E_o(pre) + 3 |PS X|^2 + "
            "3 |Bi Si (I - Q)|^2."
        ),
        headline=(
            "True, and far from sharp: exactly, the risk is E_o(pre) + |PS X Q|^2 - |PS (Bo - W) Si Q|^2, so one "
            "term with the constant 1 is enough."
        ),
        setting=UNSHIFTED,
        uses=("s2ft/lemma_f12", "s2ft/thm_f15"),
        readings=(
            Reading(
                name="as printed",
                statement=remark,
                evidence=WordProof(remark_proof),
                scope="every size, rank, selection and covariance",
                unused=("Si psd", "L Sig_i L' is not zero", "Sig_f is not zero"),
                sharp=FORGOTTEN,
                controls=(
                    Control("right side smaller by 17/25", instance=FORGOTTEN, tighten="17/25"),
                    Control("one term", kind="true", statement=one_term),
                ),
            ),
            Reading(
                name="the identity behind it",
                sentence="E_o(S2FT) = E_o(pre) + |PS X Q|^2 - |PS (Bo - W) Si Q|^2 (ours).",
                statement=identity,
                evidence=WordProof(),
                scope="every size, rank, selection and covariance",
                unused=("Si psd", "L Sig_i L' is not zero", "Sig_f is not zero"),
                controls=(
                    Control("right side larger by 1/1000", instance=GAINED, tighten="1/1000"),
                    Control("one term", kind="true", statement=one_term),
                ),
            ),
        ),
    ),
)
