"""Intruder dimensions: what the definition depends on, and which thresholds it can have.

Source: LoRA past, present, future, D.4.2 and 4.2 (ii). Left singular vectors u of the tuned matrix, u_1, ..., u_n of the
pretrained one (the columns of U); u is an intruder for eps in (0, 1) if |<u, u_k>| < eps for all k.

The count is not a function of the two matrices: where singular values repeat (or in the left kernel of a matrix with more
rows than columns, if U is square) the vectors are a free choice, and a matrix that was not changed at all has intruders
for large eps. With simple singular values the vectors are determined up to sign, which the definition does not see: for
unit vectors with M u = s u + R_u, M v = t v + R_v, M = W W', (s - t) <u, v> = <u, R_v> - <R_u, v>, so vectors of
different singular values are orthogonal whichever decompositions they come from.

If U is square, sum_k <u, u_k>^2 = |u|^2: some |<u, u_k>| is at least 1/sqrt(n), and for eps <= 1/sqrt(n) nothing is an
intruder, whatever the update; "almost orthogonal to all vectors" is possible up to that value only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from theory.claim import Claim, Control, Json, Reading, Repair, Setting
from theory.evidence import Counterexample, WordProof
from theory.lora_variants.setting import source
from theory.partial import StepProof
from theory.protocol import Instance, Kit

SIMPLE, WHOLE = "singular values positive and distinct", "U U' = I"


def two_decompositions(k: Kit, x: Instance) -> None:
    """U S V' and U2 S V2' are decompositions of one matrix; eps in (0, 1)."""
    for name in ("U", "V", "U2", "V2"):
        basis = getattr(x, name)
        k.given(f"{name} orthogonal", k.eq(basis.T @ basis, k.eye(basis.shape[1])))
    k.given("one matrix", k.eq(x.U @ x.S @ x.V.T, x.U2 @ x.S @ x.V2.T))
    k.given("eps in (0, 1)", k.all_(k.lt(k.num(0), x.eps), k.lt(x.eps, k.num(1))))


def no_intruder(k: Kit, x: Instance) -> None:
    """Every column of U2 has |<u, u_k>| >= eps for some k."""
    inner, n = x.U.T @ x.U2, x.U.shape[0]
    for j in range(n):
        k.claim(f"vector {j}", k.any_(*(k.le(x.eps, k.abs_(k.e(inner, i, j))) for i in range(n))))


def unchanged(k: Kit, x: Instance) -> None:
    """An unchanged matrix has no intruder, whichever decompositions are taken."""
    two_decompositions(k, x)
    no_intruder(k, x)


def unchanged_simple(k: Kit, x: Instance) -> None:
    """The same where the positive singular values are distinct and none is zero."""
    two_decompositions(k, x)
    values = [k.e(x.S, i, i) for i in range(min(x.S.shape))]
    ordered = [k.lt(b, a) for a, b in zip(values, [*values[1:], k.num(0)], strict=True)]
    k.given(SIMPLE, k.all_(*ordered))
    no_intruder(k, x)


def one_decomposition(k: Kit, x: Instance) -> None:
    """A weaker statement: with the same vectors on both sides there is none."""
    no_intruder(k, Instance({**x, "U2": x.U}))


def orthogonal_vectors(k: Kit, x: Instance) -> None:
    """(s - t) <u, v> = <u, R_v> - <R_u, v>."""
    M = x.W @ x.W.T
    rest_u, rest_v = M @ x.u - x.s * x.u, M @ x.v - x.t * x.v
    k.claim("orthogonal", k.eq((x.s - x.t) * k.dot(x.u, x.v), k.dot(x.u, rest_v) - k.dot(rest_u, x.v)))


def parseval(k: Kit, x: Instance) -> None:
    """The squared inner products with a whole orthonormal basis add up to |u|^2."""
    k.given(WHOLE, k.eq(x.U @ x.U.T, k.eye(x.U.shape[0])))
    k.claim("sum of squares", k.eq(k.fro2(x.U.T @ x.u), k.fro2(x.u)))


def use_whole(k: Any, x: Instance) -> Mapping[str, Sequence[Any]]:
    """U U' = I."""
    k.use(WHOLE)
    return {}


def triangle(k: Kit, x: Instance) -> None:
    """A weaker statement: the reflected vector has the same sum."""
    k.claim("sign", k.eq(k.fro2(x.U.T @ x.u), k.fro2(x.U.T @ -x.u)))


def build_unchanged(k: Kit, t: Instance, d: dict[str, Any]) -> Instance:
    """An n x m matrix with the first singular values simple and the rest equal, whose space the second choice turns."""
    n, m, simple = d["n"], d["m"], d["simple"]
    U, V, turn = k.skew_orth(t.Z), k.skew_orth(t.Y), k.skew_orth(t.T)
    head = k.hcat(k.eye(simple), k.zeros(simple, n - simple))
    R = k.vcat(head, k.hcat(k.zeros(n - simple, simple), turn))
    S = k.zeros(n, m)
    for i in range(m):
        S = S + k.num(m + 1 - min(i, simple)) * k.unit(n, m, i, i)
    Rm = k.cols(k.rows(R, range(m)), range(m)) if n == m else k.eye(m)
    eps = k.num("1/4") + k.num("1/2") / (1 + k.sq(k.e(t.eps, 0, 0)))
    return Instance(U=U, V=V, S=S, U2=U @ R, V2=V @ Rm, eps=eps)


def free_unchanged(d: dict[str, Any]) -> dict[str, tuple[int, int]]:
    """Two orthogonal matrices, a turn of the free space, a threshold."""
    n, m, rest = d["n"], d["m"], d["n"] - d["simple"]
    return {"Z": (n, n), "Y": (m, m), "T": (rest, rest), "eps": (1, 1)}


def eye(n: int) -> list[list[str]]:
    """The identity as text."""
    return [[str(int(i == j)) for j in range(n)] for i in range(n)]


TURN = [["3/5", "-4/5"], ["4/5", "3/5"]]
IDENTITY: Json = {"U": eye(2), "V": eye(2), "S": eye(2), "U2": TURN, "V2": TURN, "eps": "9/10"}
KERNEL: Json = {
    "U": eye(3),
    "V": [["1"]],
    "S": [["1"], ["0"], ["0"]],
    "U2": [["1", "0", "0"], ["0", "3/5", "-4/5"], ["0", "4/5", "3/5"]],
    "V2": [["1"]],
    "eps": "9/10",
}
SCALAR: Json = {"U": [["1"]], "V": [["1"]], "S": [["2"]], "U2": [["-1"]], "V2": [["-1"]], "eps": "1/2"}
PAIR: Json = {"W": [["2", "0"], ["0", "1"]], "u": [["1"], ["1"]], "v": [["1"], ["2"]], "s": "4", "t": "1"}
QUARTERS: Json = {"U": eye(4), "u": [["1/2"]] * 4}
LINE: Json = {"U": [["1"], ["0"]], "u": [["0"], ["1"]]}

SAME = Setting(
    dims=[{"n": n, "m": m, "simple": s} for n, m, s in ((2, 2, 0), (3, 3, 1), (2, 2, 1))],
    free=free_unchanged,
    build=build_unchanged,
    boundary=[SCALAR],
)
TALL = Setting(
    dims=[{"n": n, "m": m, "simple": m} for n, m in ((3, 1), (2, 1), (3, 2))],
    free=free_unchanged,
    build=build_unchanged,
    boundary=[SCALAR],
)


def letters_vectors(k: Any) -> Instance:
    """Any sizes."""
    u, v = (k.letter(name, "n", 1) for name in ("u", "v"))
    return Instance(W=k.letter("W", "n", "m"), u=u, v=v, s=k.number("s"), t=k.number("t"))


VECTORS = Setting(
    dims=[{"n": 1, "m": 1}, {"n": 2, "m": 2}, {"n": 3, "m": 2}],
    free=lambda d: {"W": (d["n"], d["m"]), "u": (d["n"], 1), "v": (d["n"], 1), "s": (1, 1), "t": (1, 1)},
    build=lambda k, t, d: Instance({**t, "s": k.e(t.s, 0, 0), "t": k.e(t.t, 0, 0)}),
    letters=letters_vectors,
    boundary=[PAIR],
)
BASES = Setting(
    dims=[{"n": 1}, {"n": 2}, {"n": 3}],
    free=lambda d: {"Z": (d["n"], d["n"]), "u": (d["n"], 1)},
    build=lambda k, t, d: Instance(U=k.skew_orth(t.Z), u=t.u),
    letters=lambda k: Instance(U=k.letter("U", "n", "n"), u=k.letter("u", "n", 1)),
    boundary=[QUARTERS],
)
UP_TO_SIGN = Repair(
    sentence=(
        "singular vectors of different singular values are orthogonal whichever decompositions they come from; hence with "
        "n simple singular values they are determined up to sign, and an unchanged matrix has no intruder"
    ),
    statement=orthogonal_vectors,
    setting=VECTORS,
    evidence=StepProof(),
    sharp=PAIR,
)
CONTROLS = (
    Control(
        "the repair's right side larger by 1/1000",
        statement=orthogonal_vectors,
        tighten="1/1000",
        instance=PAIR,
    ),
    Control("the same vectors on both sides", kind="true", statement=one_decomposition),
)

CLAIM = Claim(
    id="lora_variants/intruder_definition",
    source=source("D.4.2, with eps in (0, 1] in 4.2"),
    sentence="Whether a singular vector is an intruder is determined by the two matrices and eps in (0, 1).",
    headline=(
        "Only for simple singular values: otherwise an unchanged matrix may have intruders; and with a square U none "
        "exists for eps <= 1/sqrt(n)."
    ),
    defect="missing hypothesis",
    readings=(
        Reading(
            name="an unchanged matrix has none",
            sentence="With W_0 on both sides no vector is an intruder, whichever decompositions are computed.",
            statement=unchanged,
            setting=SAME,
            evidence=Counterexample(IDENTITY),
            scope="the 2 x 2 identity, eps = 9/10: both vectors of a turned basis are intruders",
            repair=UP_TO_SIGN,
            controls=CONTROLS,
        ),
        Reading(
            name="distinct positive singular values, square U",
            sentence="The same for matrices whose singular values are distinct and positive.",
            statement=unchanged_simple,
            setting=TALL,
            evidence=Counterexample(KERNEL),
            scope="3 x 1: the left kernel has two dimensions, its basis is a free choice",
            repair=UP_TO_SIGN,
            controls=CONTROLS,
        ),
        Reading(
            name="small thresholds, square U",
            sentence=(
                "For eps <= 1/sqrt(n) and a square U no vector is an intruder, whatever the update: its n squared inner "
                "products with the columns of U add up to one."
            ),
            statement=parseval,
            setting=BASES,
            evidence=WordProof(use_whole),
            scope="every size; below that threshold every count is zero",
            sharp=QUARTERS,
            controls=(
                Control("right side larger by 1/1000", tighten="1/1000", instance=QUARTERS),
                Control("a basis of a part of the space", drop=(WHOLE,), instance=LINE),
                Control("the sign of u", kind="true", statement=triangle),
            ),
        ),
    ),
)
