"""What shape LoRA's image has: its dimension, its fibres, its tangent cones.

Source: Theorem 1 (second-hand). g(B, A) = B A with B (m x r), A (r x n): k = r (m + n) tuned numbers for d = m n
weights. The theorem calls the image an embedded submanifold of dimension k.

- Its dimension is not k, also where k < d: at factors of full rank the kernel of the derivative is {(-B Z, Z A)}, of
  dimension r^2, so the derivative has rank r (m + n - r) there, and nowhere more. The fibre through (B, A) is
  {(B Z, Z^-1 A)}, a copy of the invertible r x r matrices.
- At every point the derivative's image is {H : (I - P) H (I - Q) = 0} with P = B B^+ and Q = A^+ A, of dimension
  m rank A + n rank B - rank A rank B; it vanishes at B = A = 0.
- It is no submanifold of any dimension: at W = 0 the image is a cone that is not closed under sums. At a matrix W of
  rank s <= r the tangent cone is {H : rank((I - P) H (I - Q)) <= r - s}: each such H is the velocity of a curve in the
  image, and no other, since a bordered minor of W + t H of order s + q begins with t^q.
- An injective derivative is not enough for a submanifold either: t -> (t^2 - 1, t^3 - t) crosses itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from theory import instances
from theory.claim import Claim, Control, Json, Reading, Repair, Setting
from theory.evidence import Counterexample, Custom, Identity, WordProof
from theory.kits.exact import Exact
from theory.peft_vs_fft import image_size
from theory.peft_vs_fft.setting import source
from theory.protocol import Instance, Kit, Mat

FEWER, B_FULL, A_FULL = "k < d", "B of full rank", "A of full rank"


# -- its dimension ------------------------------------------------------------------------------------------------------
def jacobian(k: Kit, x: Instance) -> Mat:
    """The derivative of vec(B A) in (vec B, vec A): [A' kron I, I kron B] (mn x r(m+n))."""
    return k.hcat(k.kron(x.A.T, k.eye(x.B.shape[0])), k.kron(k.eye(x.A.shape[1]), x.B))


def full_rank(k: Kit, x: Instance) -> None:
    """B has independent columns and A independent rows."""
    r = x.B.shape[1]
    k.given(B_FULL, k.eq(k.pinv(x.B) @ x.B, k.eye(r)))
    k.given(A_FULL, k.eq(x.A @ k.pinv(x.A), k.eye(r)))


def fewer(k: Kit, m: int, n: int, r: int) -> None:
    """Fewer tuned numbers than weights."""
    k.given(FEWER, k.lt(k.num(r * (m + n)), k.num(m * n)))


def dimension_k(k: Kit, x: Instance) -> None:
    """As printed: where the derivative has its largest rank, that rank, the dimension of the image, is k."""
    (m, r), n = x.B.shape, x.A.shape[1]
    fewer(k, m, n, r)
    full_rank(k, x)
    k.claim("rank of the derivative = k", k.eq(k.rank(jacobian(k, x)), k.num(r * (m + n))))


def kernel(k: Kit, x: Instance) -> None:
    """At full rank the kernel of the derivative is {(-B Z, Z A)}, of dimension r^2: here Z = Y A^+ for each member."""
    full_rank(k, x)
    k.given("in the kernel", k.eq(x.B @ x.Y, -(x.X @ x.A)))
    Z = x.Y @ k.pinv(x.A)
    k.claim("X = -B Z", k.eq(x.X, -(x.B @ Z)))
    k.claim("B Y = B Z A", k.eq(x.B @ x.Y, x.B @ Z @ x.A))


def kernel_proof(k: Any, x: Instance) -> Mapping[str, Sequence[Any]]:
    """X = X A A^+ = -B Y A^+, and B Y = -X A = B Z A; B is injective, so Y = Z A."""
    k.use(A_FULL)
    k.use("in the kernel")
    return {}


def same_size(k: Kit, x: Instance) -> None:
    """A consequence: X and Y vanish together."""
    k.given(A_FULL, k.eq(x.A @ k.pinv(x.A), k.eye(x.B.shape[1])))
    k.given("in the kernel", k.eq(x.B @ x.Y, -(x.X @ x.A)))
    k.given("Y = 0", k.eq(k.fro2(x.Y), k.num(0)))
    k.claim("X = 0", k.eq(k.fro2(x.X), k.num(0)))


def on_top(k: Kit, t: Instance, d: dict[str, Any]) -> tuple[Mat, Mat]:
    """Factors of full rank: an identity on top or in front of what is free."""
    m, n, r = d["m"], d["n"], d["r"]
    B = k.vcat(k.eye(r), t.B) if m > r else k.eye(r)
    A = k.hcat(k.eye(r), t.A) if n > r else k.eye(r)
    return B, A


def kernel_build(k: Kit, t: Instance, d: dict[str, Any]) -> Instance:
    """Factors of full rank and a member of the kernel."""
    B, A = on_top(k, t, d)
    return Instance(B=B, A=A, X=-(B @ t.Z), Y=t.Z @ A)


def kernel_free(d: dict[str, Any]) -> dict[str, tuple[int, int]]:
    """What is free below and beside the identities, and the member of the kernel."""
    m, n, r = d["m"], d["n"], d["r"]
    return {"B": (m - r, r), "A": (r, n - r), "Z": (r, r)}


def column(*entries: str) -> list[list[str]]:
    """A column as JSON."""
    return [[v] for v in entries]


SCALARS: Json = {"B": [["1"]], "A": [["1"]], "X": [["-1"]], "Y": [["1"]]}
FIRST: Json = {
    "B": column("1", "0", "0"),
    "A": [["1", "0", "0"]],
    "X": column("-1", "0", "0"),
    "Y": [["1", "0", "0"]],
}
OPEN: Json = {
    "B": column("1", "2", "3"),
    "A": [["1", "1", "2"]],
    "X": column("-1", "-2", "-3"),
    "Y": [["1", "1", "2"]],
}
KERNEL_SETTING = Setting(
    dims=[{"m": 3, "n": 3, "r": 1}, {"m": 4, "n": 3, "r": 1}, {"m": 5, "n": 5, "r": 2}],
    free=kernel_free,
    build=kernel_build,
    letters=lambda k: Instance(
        B=k.letter("B", "m", "r"),
        A=k.letter("A", "r", "n"),
        X=k.letter("X", "m", "r"),
        Y=k.letter("Y", "r", "n"),
    ),
    boundary=[FIRST],
)


# -- its fibres ---------------------------------------------------------------------------------------------------------
def fibre(k: Kit, x: Instance) -> None:
    """Other factors B1, A1 (inner size r) of the same product: B1 = B Z, A1 = Z^-1 A, Z = B^+ B1, Z^-1 = A1 A^+."""
    full_rank(k, x)
    k.given("the same product", k.eq(x.B1 @ x.A1, x.B @ x.A))
    Z, back = k.pinv(x.B) @ x.B1, x.A1 @ k.pinv(x.A)
    k.claim("Z is invertible", k.eq(Z @ back, k.eye(x.B.shape[1])))
    k.claim("B1 Z^-1 = B", k.eq(x.B1 @ back, x.B))
    k.claim("Z A1 = A", k.eq(Z @ x.A1, x.A))


def fibre_proof(k: Any, x: Instance) -> Mapping[str, Sequence[Any]]:
    """B^+ B1 A1 A^+ = B^+ B A A^+ = I, and so on."""
    for name in ("the same product", B_FULL, A_FULL):
        k.use(name)
    return {}


def same_length(k: Kit, x: Instance) -> None:
    """A consequence: the products have the same length."""
    k.given("the same product", k.eq(x.B1 @ x.A1, x.B @ x.A))
    k.claim("lengths", k.eq(k.fro2(x.B1 @ x.A1), k.fro2(x.B @ x.A)))


def fibre_build(k: Kit, t: Instance, d: dict[str, Any]) -> Instance:
    """Factors of full rank, and the same product with an invertible Z between them."""
    B, A = on_top(k, t, d)
    Z = k.skew_orth(t.Z)
    return Instance(B=B, A=A, B1=B @ Z, A1=Z.T @ A)


HALVED: Json = {"B": [["1"]], "A": [["1"]], "B1": [["2"]], "A1": [["1/2"]]}
FIBRE_SETTING = Setting(
    dims=[{"m": 2, "n": 2, "r": 1}, {"m": 3, "n": 2, "r": 1}, {"m": 3, "n": 3, "r": 2}],
    free=kernel_free,
    build=fibre_build,
    letters=lambda k: Instance(
        B=k.letter("B", "m", "r"),
        A=k.letter("A", "r", "n"),
        B1=k.letter("B1", "m", "r"),
        A1=k.letter("A1", "r", "n"),
    ),
    boundary=[HALVED],
)


# -- the image of the derivative ------------------------------------------------------------------------------------------
def outside(k: Kit, x: Instance, H: Mat) -> Mat:
    """(I - P) H (I - Q) with P = B B^+ and Q = A^+ A."""
    P, Q = x.B @ k.pinv(x.B), k.pinv(x.A) @ x.A
    part: Mat = H - P @ H - H @ Q + P @ H @ Q
    return part


def moves(k: Kit, x: Instance, H: Mat) -> tuple[Mat, Mat]:
    """The moves X = H A^+ of B and Y = B^+ H (I - Q) of A."""
    return H @ k.pinv(x.A), k.pinv(x.B) @ (H - H @ k.pinv(x.A) @ x.A)


def tangent(k: Kit, x: Instance) -> None:
    """The derivative's values X A + B Y are the H without outside part, and all of them, whatever the ranks."""
    k.claim("values have none", k.eq(outside(k, x, x.X @ x.A + x.B @ x.Y), k.zeros(*x.H.shape)))
    X, Y = moves(k, x, x.H)
    k.claim("X A + B Y = H less its outside part", k.eq(X @ x.A + x.B @ Y, x.H - outside(k, x, x.H)))


def tangent_size(k: Kit, x: Instance) -> None:
    """A weaker statement: values of the derivative have an outside part of length zero."""
    k.claim("values", k.le(k.fro2(outside(k, x, x.X @ x.A + x.B @ x.Y)), k.num(0)))


def everywhere(k: Kit, x: Instance) -> None:
    """Wrong: the derivative reaches every H."""
    X, Y = moves(k, x, x.H)
    k.claim("X A + B Y = H", k.eq(X @ x.A + x.B @ Y, x.H))


TANGENT_SHAPES = {"B": ("m", "r"), "A": ("r", "n"), "X": ("m", "r"), "Y": ("r", "n"), "H": ("m", "n")}
ORIGIN: Json = {n: [["0"]] for n in "BAXY"} | {"H": [["1"]]}
TANGENT_SETTING = Setting(
    dims=[{"m": 1, "n": 1, "r": 1}, {"m": 2, "n": 2, "r": 1}, {"m": 3, "n": 3, "r": 2}],
    free=lambda d: {n: (d[a], d[b]) for n, (a, b) in TANGENT_SHAPES.items()},
    build=lambda k, t, d: Instance(t),
    letters=lambda k: Instance({n: k.letter(n, a, b) for n, (a, b) in TANGENT_SHAPES.items()}),
    boundary=[ORIGIN],
)


# -- ranks at rational points -------------------------------------------------------------------------------------------
POINTS = (
    (1, 1, 1, 1, 1), (1, 1, 1, 0, 0), (2, 2, 1, 1, 1), (2, 2, 1, 0, 1), (3, 3, 1, 1, 1), (3, 3, 1, 0, 0),
    (4, 3, 2, 2, 2), (4, 3, 2, 1, 2), (4, 3, 2, 1, 1), (5, 5, 2, 2, 2), (5, 5, 2, 0, 2), (5, 4, 4, 4, 4),
)  # fmt: skip


def factor(rows: int, columns: int, rank: int) -> list[list[str]]:
    """A rows x columns matrix of that rank: L (rows x rank) times R (rank x columns) with fixed small entries."""
    return [
        [str(sum((1 + (i + a) ** a) * (2 + (j - a) ** (a + 1)) for a in range(rank))) for j in range(columns)]
        for i in range(rows)
    ]


def rational_points() -> Json:
    """Factors of chosen ranks with the rank of the derivative there."""
    rows = []
    for m, n, r, rank_B, rank_A in POINTS:
        x = {"B": factor(m, r, rank_B), "A": factor(r, n, rank_A)}
        told = image_size.derivative_rank(m, n, rank_B, rank_A)
        rows.append({**x, "rank B": rank_B, "rank A": rank_A, "rank of the derivative": told})
    return {"points": rows}


def ranks_are_right(payload: Json) -> str | None:
    """Every rank, of factors and derivative, is found again by elimination over the rationals."""
    kit, seen = Exact(), set()
    for row in payload["points"]:
        x = instances.load(kit, {name: row[name] for name in "BA"})
        (m, r), n = x.B.shape, x.A.shape[1]
        if (kit.rank(x.B), kit.rank(x.A)) != (row["rank B"], row["rank A"]):
            return f"the factors {row['B']}, {row['A']} have other ranks"
        found = kit.rank(jacobian(kit, x))
        told = image_size.derivative_rank(m, n, row["rank B"], row["rank A"])
        if not found == told == row["rank of the derivative"]:
            return f"the derivative at B = {row['B']}, A = {row['A']} has rank {found}, told {told}"
        seen.add((m, n, r, row["rank B"], row["rank A"]))
    return None if seen == set(POINTS) else "these are not the points"


def _as_printed() -> Json:
    """The points with k = r (m + n) for the rank of the derivative."""
    rows = [
        {**row, "rank of the derivative": len(row["A"]) * (len(row["B"]) + len(row["A"][0]))}
        for row in rational_points()["points"]
    ]
    return {"points": rows}


# -- tangent cones ------------------------------------------------------------------------------------------------------
def linear_cone(k: Kit, x: Instance) -> None:
    """At W = 0 the image is its own tangent cone; a submanifold's would be closed under sums."""
    m, n = x.X.shape
    fewer(k, m, n, x.r)
    k.given("X in the image", k.rank_le(x.X, x.r))
    k.given("Y in the image", k.rank_le(x.Y, x.r))
    k.claim("X + Y in the image", k.rank_le(x.X + x.Y, x.r))


def twice_the_rank(k: Kit, x: Instance) -> None:
    """A weaker statement: the sum has at most rank 2 r."""
    k.given("X in the image", k.rank_le(x.X, x.r))
    k.given("Y in the image", k.rank_le(x.Y, x.r))
    k.claim("rank of X + Y", k.rank_le(x.X + x.Y, 2 * x.r))


def cone_build(k: Kit, t: Instance, d: dict[str, Any]) -> Instance:
    """Two products of rank r."""
    return Instance(X=t.B @ t.A, Y=t.C @ t.D, r=d["r"])


def curve(k: Kit, x: Instance) -> None:
    """H with outside part F K at W = B A: the curve [B + t X, t F] [A + t Y; K] in the image has the velocity H."""
    k.given("outside part F K", k.eq(outside(k, x, x.H), x.F @ x.K))
    X, Y = moves(k, x, x.H)
    product = (x.B + x.t * X) @ (x.A + x.t * Y) + x.t * (x.F @ x.K)
    k.claim("W + t H to first order", k.eq(product, x.B @ x.A + x.t * x.H + x.t * x.t * (X @ Y)))


def curve_proof(k: Any, x: Instance) -> Mapping[str, Sequence[Any]]:
    """X A + B Y is H less its outside part."""
    k.use("outside part F K")
    return {}


def curve_build(k: Kit, t: Instance, d: dict[str, Any]) -> Instance:
    """H = X A + B Y + (I - P) F1 K1 (I - Q), whose outside part is ((I - P) F1) (K1 (I - Q))."""
    F = t.F - t.B @ k.pinv(t.B) @ t.F
    K = t.K - t.K @ k.pinv(t.A) @ t.A
    H = t.X @ t.A + t.B @ t.Y + F @ K
    return Instance(B=t.B, A=t.A, F=F, K=K, H=H, t=k.e(t.t, 0, 0))


def bordered(k: Kit, x: Instance) -> None:
    """Det [S + t a, t b; t c, t D] = t^q det(S + t a) det(D - t c (S + t a)^-1 b): it begins with t^q det S det D."""
    top = x.S + x.t * x.a
    whole = k.vcat(k.hcat(top, x.t * x.b), k.hcat(x.t * x.c, x.t * x.D))
    rest, power = x.D - x.t * (x.c @ k.inv(top) @ x.b), k.num(1)
    for _ in range(x.D.shape[0]):
        power = power * x.t
    k.claim("bordered minor", k.eq(k.det(whole), power * k.det(top) * k.det(rest)))


def bordered_build(k: Kit, t: Instance, d: dict[str, Any]) -> Instance:
    """Blocks with S + t a invertible: a positive definite matrix times a rotation, as every such matrix but for a sign."""
    step = k.e(t.t, 0, 0)
    top = (t.S @ t.S.T + k.eye(d["s"])) @ k.skew_orth(t.Z)
    return Instance(S=top - step * t.a, a=t.a, b=t.b, c=t.c, D=t.D, t=step)


CURVE_SHAPES = {"B": ("m", "s"), "A": ("s", "n"), "F": ("m", "q"), "K": ("q", "n"), "H": ("m", "n")}
CURVE_SETTING = Setting(
    dims=[
        {"m": 2, "n": 2, "s": 1, "q": 1},
        {"m": 3, "n": 3, "s": 1, "q": 1},
        {"m": 4, "n": 3, "s": 1, "q": 2},
    ],
    free=lambda d: (
        {n: (d[a], d[b]) for n, (a, b) in CURVE_SHAPES.items()}
        | {"X": (d["m"], d["s"]), "Y": (d["s"], d["n"]), "t": (1, 1)}
    ),
    build=curve_build,
    letters=lambda k: Instance(
        {n: k.letter(n, a, b) for n, (a, b) in CURVE_SHAPES.items()} | {"t": k.number("t")}
    ),
    boundary=[],
)
BLOCKS: list[dict[str, Any]] = [{"s": s, "q": q} for s, q in ((1, 1), (1, 2), (2, 1), (2, 2))]
BORDER_SETTING = Setting(
    dims=BLOCKS,
    free=lambda d: (
        {n: (d["s"], d["s"]) for n in "SZa"}
        | {"b": (d["s"], d["q"]), "c": (d["q"], d["s"]), "D": (d["q"], d["q"]), "t": (1, 1)}
    ),
    build=bordered_build,
    boundary=[],
)
ONES: Json = {"S": [["1"]], "a": [["0"]], "b": [["1"]], "c": [["1"]], "D": [["1"]], "t": "1/2"}
AXES: Json = {
    "X": [["1", "0", "0"], ["0", "0", "0"], ["0", "0", "0"]],
    "Y": [["0", "0", "0"], ["0", "1", "0"], ["0", "0", "0"]],
    "r": 1,
}
ORIGIN_CURVE: Json = {"B": [["0"]], "A": [["0"]], "F": [["1"]], "K": [["1"]], "H": [["1"]], "t": "1"}


def first_part(k: Kit, x: Instance) -> None:
    """A weaker statement: the determinant vanishes with t."""
    k.given("t = 0", k.eq(x.t, k.num(0)))
    bordered(k, x)


# -- an injective derivative ----------------------------------------------------------------------------------------------
def one_to_one(k: Kit, x: Instance) -> None:
    """A map with an injective derivative everywhere takes different numbers to different points: here a nodal cubic."""
    k.given("the derivative never vanishes", k.lt(k.num(0), _speed2(k, x.s)))
    k.given("and at t", k.lt(k.num(0), _speed2(k, x.t)))
    k.given("different numbers", k.lt(x.s, x.t))
    a, b = _cubic(x.s), _cubic(x.t)
    k.claim("different points", k.lt(k.num(0), k.sq(a[0] - b[0]) + k.sq(a[1] - b[1])))


def _cubic(t: Any) -> tuple[Any, Any]:
    return t * t - 1, t * (t * t - 1)


def _speed2(k: Kit, t: Any) -> Any:
    return k.sq(2 * t) + k.sq(3 * t * t - 1)


def chord(k: Kit, x: Instance) -> None:
    """Symmetric numbers have equal first coordinates."""
    k.claim("first coordinates agree", k.eq(_cubic(-x.t)[0], _cubic(x.t)[0]))


def chord_in_the_plane(k: Kit, x: Instance) -> None:
    """Symmetric numbers have equal second coordinates, wrong but at t = 0, 1, -1."""
    k.claim("second coordinates agree", k.eq(_cubic(-x.t)[1], _cubic(x.t)[1]))


CLAIM = Claim(
    id="peft_vs_fft/thm_1_submanifold",
    source=source("Theorem 1, embedded submanifold"),
    sentence="The image of g is a k-dimensional embedded submanifold.",
    headline=(
        "False for LoRA: its dimension is r (m + n - r), not r (m + n), and at matrices of rank below r it is a cone, no "
        "submanifold of any dimension; an injective derivative would not suffice either."
    ),
    defect="false statement",
    uses=("peft_vs_fft/thm_1_null",),
    readings=(
        Reading(
            name="LoRA, of dimension k",
            statement=dimension_k,
            setting=KERNEL_SETTING,
            evidence=Counterexample(FIRST),
            scope="3 x 3, r = 1: k = 6 < d = 9, the derivative's rank is 5 at factors of full rank and nowhere more",
            open_instance=OPEN,
            repair=Repair(
                sentence=(
                    "Where B and A have full rank the kernel of the derivative is {(-B Z, Z A)}, of dimension r^2: the "
                    "image has dimension r (m + n - r)"
                ),
                statement=kernel,
                evidence=WordProof(kernel_proof),
                necessary={A_FULL: {"B": [["1"]], "A": [["0"]], "X": [["1"]], "Y": [["0"]]}},
                sharp=SCALARS,
            ),
            controls=(
                Control(
                    "a member that is not in the kernel",
                    statement=kernel,
                    drop=("in the kernel",),
                    instance={**SCALARS, "X": [["1"]]},
                ),
                Control("X and Y vanish together", kind="true", statement=same_size),
            ),
        ),
        Reading(
            name="LoRA, of any dimension",
            sentence="The image of LoRA is an embedded submanifold; so its tangent cones are linear spaces.",
            statement=linear_cone,
            setting=Setting(
                dims=[{"m": 3, "n": 3, "r": 1}, {"m": 5, "n": 5, "r": 2}],
                free=lambda d: {
                    "B": (d["m"], d["r"]),
                    "A": (d["r"], d["n"]),
                    "C": (d["m"], d["r"]),
                    "D": (d["r"], d["n"]),
                },
                build=cone_build,
                boundary=[{**AXES, "Y": AXES["X"]}],
            ),
            evidence=Counterexample(AXES),
            scope="3 x 3, r = 1, at W = 0: e1 e1' and e2 e2' are velocities of curves in the image, their sum is none",
            open_instance={**AXES, "X": [["1", "1", "2"], ["2", "2", "4"], ["3", "3", "6"]]},
            repair=Repair(
                sentence=(
                    "At W = B A, of rank s, every H with rank((I - P) H (I - Q)) <= r - s is the velocity of a curve in "
                    "the image"
                ),
                statement=curve,
                evidence=WordProof(curve_proof),
                setting=CURVE_SETTING,
                necessary={"outside part F K": {**ORIGIN_CURVE, "F": [["0"]]}},
            ),
            controls=(
                Control(
                    "an outside part of larger rank",
                    statement=curve,
                    drop=("outside part F K",),
                    instance={**ORIGIN_CURVE, "F": [["0"]]},
                ),
                Control(
                    "the sum has at most rank 2 r",
                    kind="true",
                    statement=twice_the_rank,
                ),
            ),
        ),
        Reading(
            name="tangent cones hold nothing else",
            sentence=(
                "A bordered minor of order s + q of W + t H begins with t^q det S det D, D a minor of the outside part: if "
                "W + t H + o(t) has rank at most r, the outside part has rank at most r - s."
            ),
            statement=bordered,
            setting=BORDER_SETTING,
            evidence=Identity(BLOCKS),
            scope="s, q <= 2, in bases of the row and column spaces of W and their complements",
            controls=(
                Control("the minor larger by 1/1000", tighten="1/1000", instance=ONES),
                Control("at t = 0", kind="true", statement=first_part),
            ),
        ),
        Reading(
            name="fibres",
            sentence="Factors of the same product of rank r are B Z and Z^-1 A: the fibre has dimension r^2.",
            statement=fibre,
            setting=FIBRE_SETTING,
            evidence=WordProof(fibre_proof),
            scope="every size, B and A of full rank",
            sharp=HALVED,
            controls=(
                Control("another product", drop=("the same product",), instance={**HALVED, "B1": [["3"]]}),
                Control("the products have the same length", kind="true", statement=same_length),
            ),
        ),
        Reading(
            name="tangent spaces",
            sentence=(
                "The derivative's image is {H : (I - P) H (I - Q) = 0} at every point, of dimension m rank A + n rank B - "
                "rank A rank B."
            ),
            statement=tangent,
            setting=TANGENT_SETTING,
            evidence=WordProof(),
            scope="every size and factors of any rank",
            controls=(
                Control("the derivative reaches every H", statement=everywhere, instance=ORIGIN),
                Control("values of the derivative", kind="true", statement=tangent_size),
            ),
        ),
        Reading(
            name="ranks of the derivative at rational points",
            sentence="The derivative's rank is m rank A + n rank B - rank A rank B.",
            evidence=Custom(
                status="proved_within",
                produce=rational_points,
                verify=ranks_are_right,
                about="elimination over the rationals at factors of chosen ranks, from 1 x 1 to 5 x 5",
                reason="points only; the dimension at every point follows from the reading on tangent spaces",
            ),
            scope="twelve points, seven of full rank and five below, the origin among them",
            controls=(
                Control("rank k, as printed", check=lambda: ranks_are_right(_as_printed()) is not None),
                Control(
                    "the points",
                    kind="true",
                    check=lambda: ranks_are_right(rational_points()) is not None,
                ),
            ),
        ),
        Reading(
            name="a smooth map with an injective derivative",
            sentence="If the derivative of g is injective everywhere, the image is an embedded submanifold.",
            statement=one_to_one,
            setting=Setting(
                dims=[{}],
                free=lambda d: {"s": (1, 1), "t": (1, 1)},
                build=lambda k, t, d: Instance(s=k.e(t.s, 0, 0), t=k.e(t.t, 0, 0)),
                letters=lambda k: Instance(s=k.number("s"), t=k.number("t")),
                boundary=[{"s": "0", "t": "1"}],
            ),
            evidence=Counterexample({"s": "-1", "t": "1"}),
            scope="the nodal cubic t -> (t^2 - 1, t^3 - t), k = 1, d = 2",
            repair=Repair(
                sentence=(
                    "The curve meets itself at t = 1 and t = -1, where the first coordinates always agree: an injective, "
                    "proper map is needed as well"
                ),
                statement=chord,
                evidence=WordProof(lambda k, x: {}),
            ),
            controls=(
                Control(
                    "the second coordinates", statement=chord_in_the_plane, instance={"s": "0", "t": "2"}
                ),
                Control("symmetric chords", kind="true", statement=chord),
            ),
        ),
    ),
)
