"""Restarting the factors of LoRA: the tangent step, the anchor, and the optimiser's state.

Source: PESO, Sections 3-4 and Appendix (second-hand). W = Wa + B A with anchor Wa (m x n), B (m x r), A (r x n),
gradient G (m x n) at W, U and V the top singular vectors of G.

- One gradient step on both factors from B = U, A = V' changes B A by -eta (U U' G + G V V') + eta^2 G V U' G. For the
  singular vectors of G that is -2 eta SVD_r(G) to first order: twice the projected step, which counts the shared
  block once. Refuted as an equality, at 1 x 1.
- Moving the anchor by the old minus the new product keeps the iterate, exactly.
- Momentum kept in the old coordinates points elsewhere in the new ones: a change of sign of the basis turns it
  round. Carried over by V' V_new it is the projection on the new space, and exact when the spaces agree.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from theory.claim import Claim, Control, Json, Reading, Repair, Setting
from theory.evidence import Counterexample, WordProof
from theory.peso import setting
from theory.protocol import Instance, Kit, Mat

SIZES: list[dict[str, Any]] = [{"m": 1, "n": 1, "r": 1}, {"m": 2, "n": 2, "r": 1}, {"m": 3, "n": 3, "r": 2}]


# -- the tangent step -------------------------------------------------------------------------------------------
def factor_step(k: Kit, x: Instance) -> Mat:
    """(B - eta G A') (A - eta B' G) from B = U, A = V'."""
    B, A = x.U, x.V.T
    product: Mat = (B - x.eta * (x.G @ A.T)) @ (A - x.eta * (B.T @ x.G))
    return product


def singular_vectors(k: Kit, x: Instance) -> None:
    """U, V are matching singular vectors of G: orthonormal columns with U U' G = G V V'."""
    r = x.U.shape[1]
    k.given("U orthonormal", k.eq(x.U.T @ x.U, k.eye(r)))
    k.given("V orthonormal", k.eq(x.V.T @ x.V, k.eye(r)))
    k.given("matching", k.eq(x.U @ x.U.T @ x.G, x.G @ x.V @ x.V.T))


def tangent(k: Kit, x: Instance) -> None:
    """The factor step equals the gradient step projected on the tangent space at U V'."""
    singular_vectors(k, x)
    left, right = x.U @ x.U.T, x.V @ x.V.T
    projected = left @ x.G + x.G @ right - left @ x.G @ right
    k.claim("projected gradient step", k.eq(factor_step(k, x), x.U @ x.V.T - x.eta * projected))


def tangent_repaired(k: Kit, x: Instance) -> None:
    """Twice the projected step, plus a term of second order."""
    singular_vectors(k, x)
    part = x.U @ x.U.T @ x.G
    second = x.eta * x.eta * (x.G @ x.V @ x.U.T @ x.G)
    k.claim("twice and second order", k.eq(factor_step(k, x), x.U @ x.V.T - 2 * x.eta * part + second))


def tangent_proof(k: Any, x: Instance) -> Mapping[str, Sequence[Any]]:
    """U U' G = G V V'."""
    k.use("matching")
    return {}


def tangent_free(d: dict[str, Any]) -> dict[str, tuple[int, int]]:
    """Rotations, singular values and the step."""
    return {"Z": (d["m"], d["m"]), "Y": (d["n"], d["n"]), "s": (1, min(d["m"], d["n"])), "eta": (1, 1)}


def tangent_build(k: Kit, t: Instance, d: dict[str, Any]) -> Instance:
    """G with a rational singular value decomposition and its first r singular vectors."""
    m, n, r = d["m"], d["n"], d["r"]
    left, right = k.skew_orth(t.Z), k.skew_orth(t.Y)
    G = left @ k.diagm(t.s, m, n) @ right.T
    return Instance(G=G, U=k.cols(left, range(r)), V=k.cols(right, range(r)), eta=k.e(t.eta, 0, 0))


ONE: Json = {"G": [["1"]], "U": [["1"]], "V": [["1"]], "eta": "1/2"}
TANGENT_SETTING = Setting(
    dims=SIZES,
    free=tangent_free,
    build=tangent_build,
    letters=lambda k: Instance(
        G=k.letter("G", "m", "n"), U=k.letter("U", "m", "r"), V=k.letter("V", "n", "r"), eta=k.number("eta")
    ),
    boundary=[{**ONE, "eta": "0"}],
)
TANGENT = Claim(
    id="peso/tangent_map",
    source=setting.source("LoRA as a map on the tangent space"),
    sentence=(
        "One gradient step of LoRA from the top singular vectors of the gradient is the gradient step projected on "
        "the tangent space."
    ),
    headline=(
        "False, already at 1 x 1: the factor step moves twice as far to first order and has a term of second order; "
        "the exact identity is proved."
    ),
    setting=TANGENT_SETTING,
    defect="wrong constant",
    readings=(
        Reading(
            name="equality",
            statement=tangent,
            evidence=Counterexample(ONE),
            scope="1 x 1",
            open_instance={**ONE, "eta": "1/3"},
            repair=Repair(
                sentence="The step changes the product by -2 eta SVD_r(G) + eta^2 G V U' G",
                statement=tangent_repaired,
                evidence=WordProof(tangent_proof),
            ),
            controls=(
                Control(
                    "the repair larger by 1/1000",
                    statement=tangent_repaired,
                    tighten="1/1000",
                    instance=ONE,
                ),
                Control("the repair", kind="true", statement=tangent_repaired),
            ),
        ),
    ),
)


# -- the anchor ---------------------------------------------------------------------------------------------------
def anchor(k: Kit, x: Instance) -> None:
    """With the anchor moved by B A - B1 A1 the iterate stays."""
    moved = x.Wa + x.B @ x.A - x.B1 @ x.A1
    k.claim("same iterate", k.eq(moved + x.B1 @ x.A1, x.Wa + x.B @ x.A))


def anchor_kept(k: Kit, x: Instance) -> None:
    """Without moving the anchor the iterate jumps unless the products agree."""
    k.claim("same iterate", k.eq(x.Wa + x.B1 @ x.A1, x.Wa + x.B @ x.A))


def anchor_norm(k: Kit, x: Instance) -> None:
    """A consequence: the new anchor is at most |B A| + |B1 A1| away (squared, times 2)."""
    moved = x.B @ x.A - x.B1 @ x.A1
    k.claim("moved", k.le(k.fro2(moved), 2 * k.fro2(x.B @ x.A) + 2 * k.fro2(x.B1 @ x.A1)))


SMALL: Json = {"Wa": [["0"]], "B": [["1"]], "A": [["1"]], "B1": [["2"]], "A1": [["1"]]}
ANCHOR_SETTING = Setting(
    dims=SIZES,
    free=lambda d: {
        "Wa": (d["m"], d["n"]),
        "B": (d["m"], d["r"]),
        "A": (d["r"], d["n"]),
        "B1": (d["m"], d["r"]),
        "A1": (d["r"], d["n"]),
    },
    build=lambda k, t, d: Instance(t),
    letters=lambda k: Instance(
        Wa=k.letter("Wa", "m", "n"),
        B=k.letter("B", "m", "r"),
        A=k.letter("A", "r", "n"),
        B1=k.letter("B1", "m", "s"),
        A1=k.letter("A1", "s", "n"),
    ),
    boundary=[SMALL],
)
ANCHOR = Claim(
    id="peso/anchor_offset",
    source=setting.source("restart of the factors at nonzero values"),
    sentence="Starting the new factors at nonzero values keeps the iterate when the anchor is moved accordingly.",
    headline="True, as an identity in every size and for factors of different rank.",
    setting=ANCHOR_SETTING,
    readings=(
        Reading(
            name="anchor moved",
            statement=anchor,
            evidence=WordProof(),
            scope="every size; in exact arithmetic (in floats the move rounds once)",
            controls=(
                Control("the anchor not moved", statement=anchor_kept, instance=SMALL),
                Control("the move is bounded", kind="true", statement=anchor_norm),
            ),
        ),
    ),
)


# -- the optimiser's state ----------------------------------------------------------------------------------------
def carried(k: Kit, x: Instance) -> None:
    """Momentum kept in coordinates means the same direction of weights after the change of basis."""
    r = x.V.shape[1]
    k.given("V orthonormal", k.eq(x.V.T @ x.V, k.eye(r)))
    k.given("V1 orthonormal", k.eq(x.V1.T @ x.V1, k.eye(r)))
    k.claim("same direction", k.eq(x.state @ x.V1.T, x.state @ x.V.T))


def aligned(k: Kit, x: Instance) -> None:
    """Momentum carried by V' V1 means the old direction, when the spaces agree."""
    k.given("same space", k.eq(x.V1 @ x.V1.T, x.V @ x.V.T))
    k.given("V orthonormal", k.eq(x.V.T @ x.V, k.eye(x.V.shape[1])))
    k.claim("same direction", k.eq((x.state @ x.V.T @ x.V1) @ x.V1.T, x.state @ x.V.T))


def aligned_proof(k: Any, x: Instance) -> Mapping[str, Sequence[Any]]:
    """V1 V1' = V V' and V' V = I."""
    k.use("same space")
    k.use("V orthonormal")
    return {}


def squares(k: Kit, x: Instance) -> None:
    """The squares of a rotated gradient are the squares rotated by the squared rotation."""
    k.given("O orthogonal", k.eq(x.O @ x.O.T, k.eye(x.O.shape[0])))
    turned = x.g @ x.O
    k.claim("squares rotate", k.eq(k.had(turned, turned), k.had(x.g, x.g) @ k.had(x.O, x.O)))


def total_square(k: Kit, x: Instance) -> None:
    """The sum of the squares is kept."""
    k.given("O orthogonal", k.eq(x.O @ x.O.T, k.eye(x.O.shape[0])))
    k.claim("sum of squares", k.eq(k.fro2(x.g @ x.O), k.fro2(x.g)))


def total_square_proof(k: Any, x: Instance) -> Mapping[str, Sequence[Any]]:
    """O O' = I."""
    k.use("O orthogonal")
    return {}


TURN = [["3/5", "-4/5"], ["4/5", "3/5"]]
SQUARES_SETTING = Setting(
    dims=[{"r": 1}, {"r": 2}, {"r": 3}],
    free=lambda d: {"g": (1, d["r"]), "Z": (d["r"], d["r"])},
    build=lambda k, t, d: Instance(g=t.g, O=k.skew_orth(t.Z)),
    letters=lambda k: Instance(g=k.letter("g", "1", "r"), O=k.letter("O", "r", "r")),
    boundary=[{"g": [["1"]], "O": [["-1"]]}],
)
TURNED: Json = {"state": [["1"]], "V": [["1"]], "V1": [["-1"]]}
STATE_SETTING = Setting(
    dims=SIZES,
    free=lambda d: {"state": (d["m"], d["r"]), "Z": (d["n"], d["n"]), "O": (d["r"], d["r"])},
    build=lambda k, t, d: Instance(
        state=t.state,
        V=k.cols(k.skew_orth(t.Z), range(d["r"])),
        V1=k.cols(k.skew_orth(t.Z), range(d["r"])) @ k.skew_orth(t.O),
    ),
    letters=lambda k: Instance(
        state=k.letter("state", "m", "r"), V=k.letter("V", "n", "r"), V1=k.letter("V1", "n", "r")
    ),
    boundary=[{"state": [["1"]], "V": [["1"]], "V1": [["1"]]}],
)
STATE = Claim(
    id="peso/state_alignment",
    source=setting.source("optimiser states across a restart"),
    sentence="The states of the optimiser may be carried over a restart.",
    headline=(
        "False when they are carried as they are: a basis of the same space with another sign turns the momentum "
        "round; true for momentum that is rotated into the new basis."
    ),
    setting=STATE_SETTING,
    defect="missing hypothesis",
    uses=("peso/anchor_offset",),
    readings=(
        Reading(
            name="first moment, carried as it is",
            statement=carried,
            evidence=Counterexample(TURNED),
            scope="1 x 1, the same space with the basis vector turned",
            open_instance={"state": [["1"]], "V": [["1"], ["0"]], "V1": [["3/5"], ["4/5"]]},
            repair=Repair(
                sentence=(
                    "The state times V' V_new means the same direction whenever the two spaces agree (and its "
                    "projection otherwise)"
                ),
                statement=aligned,
                evidence=WordProof(aligned_proof),
                necessary={
                    "same space": {"state": [["1"]], "V": [["1"], ["0"]], "V1": [["0"], ["1"]]},
                },
            ),
            controls=(
                Control(
                    "the repair for different spaces",
                    statement=aligned,
                    drop=("same space",),
                    instance={"state": [["1"]], "V": [["1"], ["0"]], "V1": [["0"], ["1"]]},
                ),
                Control("the repair", kind="true", statement=aligned),
            ),
        ),
        Reading(
            name="second moment of Adam, rotated likewise",
            sentence="Adam's second moment can be carried over by a rotation of the coordinates.",
            statement=squares,
            setting=SQUARES_SETTING,
            evidence=Counterexample({"g": [["1", "1"]], "O": TURN}),
            scope="one gradient, a rotation of two coordinates",
            open_instance={"g": [["1", "2"]], "O": TURN},
            repair=Repair(
                sentence="Only the sum of the second moments survives a rotation",
                statement=total_square,
                evidence=WordProof(total_square_proof),
                necessary={"O orthogonal": {"g": [["1"]], "O": [["2"]]}},
            ),
            controls=(
                Control(
                    "the repair for a matrix that is no rotation",
                    statement=total_square,
                    drop=("O orthogonal",),
                    instance={"g": [["1"]], "O": [["2"]]},
                ),
                Control("the repair", kind="true", statement=total_square),
            ),
        ),
    ),
)

CLAIMS = (TANGENT, ANCHOR, STATE)
