"""What PEFT can reach in parameter space: how small the image is, and what shape it has.

Source: Theorem 1 (second-hand). g: R^k -> R^d maps the tuned numbers to a change of the weights; for LoRA
g(B, A) = B A with B (m x r), A (r x n).

- Null set: for g continuously differentiable and k < d the image has measure zero (cover the cube by N^k small ones;
  their images have total volume of order N^(k-d)). For g merely continuous it is false: a Hilbert curve is a
  continuous map of an interval onto a square. And k < d is not the right condition for B A: r (m + n) may exceed m n
  while every r + 1 minor of B A vanishes.
- Submanifold of dimension k: false for LoRA. At B = A = 0 the derivative is zero; where B and A have full rank its
  kernel is {(-B Z, Z A)}, of dimension r^2, so the image has dimension r (m + n - r). An injective derivative is not
  enough either: t -> (t^2 - 1, t^3 - t) crosses itself.
- "Measure zero means bad approximation": false. diag(1, t) lies at distance t from the null set of rank 1 matrices.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from itertools import product
from typing import Any

from theory.claim import Claim, Control, Json, Reading, Repair, Setting
from theory.evidence import Counterexample, Custom, Identity, WordProof
from theory.peft_vs_fft.setting import source
from theory.protocol import Instance, Kit, Mat


# -- measure zero -----------------------------------------------------------------------------------------------------
def covering_bound(k: int, d: int, cells: int, lipschitz: Fraction) -> Fraction:
    """Volume that covers the image of a unit k-cube under a Lipschitz map: cells^k cubes of edge 2 K / cells."""
    return Fraction(cells) ** k * (2 * lipschitz / cells) ** d


def covering() -> Json:
    """Covering volumes for small k < d, doubling the number of cells per edge."""
    rows = []
    for k in range(1, 5):
        for d in range(k + 1, k + 4):
            values = [str(covering_bound(k, d, 2**j, Fraction(3, 2))) for j in range(6)]
            rows.append(
                {"k": k, "d": d, "lipschitz": "3/2", "cells": [2**j for j in range(6)], "volume": values}
            )
    return {"rows": rows}


def covering_tends_to_zero(payload: Json) -> str | None:
    """Each doubling of the cells multiplies the covering volume by exactly 2^(k-d) <= 1/2, so it tends to zero."""
    if not payload["rows"]:
        return "no covering is given"
    for row in payload["rows"]:
        k, d, K = row["k"], row["d"], Fraction(row["lipschitz"])
        if not 1 <= k < d:
            return f"k = {k} is not below d = {d}"
        for cells, shown in zip(row["cells"], row["volume"], strict=True):
            if Fraction(shown) != covering_bound(k, d, cells, K):
                return f"the covering volume for k = {k}, d = {d}, {cells} cells is not {shown}"
            if covering_bound(k, d, 2 * cells, K) != covering_bound(k, d, cells, K) * Fraction(
                1, 2 ** (d - k)
            ):
                return "doubling the cells does not multiply the volume by 2^(k-d)"
    return None


def hilbert(level: int) -> list[tuple[int, int]]:
    """The cells of the 2^level grid in the order of the Hilbert curve."""
    if level == 0:
        return [(0, 0)]
    half, inner = 2 ** (level - 1), hilbert(level - 1)
    first = [(y, x) for x, y in inner]
    second = [(x, y + half) for x, y in inner]
    third = [(x + half, y + half) for x, y in inner]
    last = [(2 * half - 1 - y, half - 1 - x) for x, y in inner]
    return [*first, *second, *third, *last]


def curve() -> Json:
    """The first four levels of the Hilbert curve."""
    return {"levels": [[list(cell) for cell in hilbert(level)] for level in range(5)]}


def curve_fills_the_square(payload: Json) -> str | None:
    """Each level visits every cell once, moves between neighbours, and refines the level before in order.

    Hence the polygons converge uniformly (neighbours at level j stay within 2 / 2^j), so the limit is continuous, and
    its image is compact and meets every cell of every level: it is the whole square, a set of measure one.
    """
    levels = payload["levels"]
    if len(levels) < 4:
        return "too few levels to see the refinement"
    for level, cells in enumerate(levels):
        side = 2**level
        if sorted(map(tuple, cells)) != [(x, y) for x in range(side) for y in range(side)]:
            return f"level {level} does not visit every cell once"
        if any(abs(a[0] - b[0]) + abs(a[1] - b[1]) != 1 for a, b in zip(cells, cells[1:], strict=False)):
            return f"level {level} jumps"
        if level and [[x // 2, y // 2] for x, y in cells[::4]] != [list(c) for c in levels[level - 1]]:
            return f"level {level} does not refine the level before"
        if cells != [list(c) for c in hilbert(level)]:
            return f"level {level} is not made by the recursion, which continues for ever"
    return None


def minors(k: Kit, x: Instance) -> None:
    """For r = 1 and 2 x 2: four numbers for four weights, and the determinant of B A vanishes all the same."""
    k.claim("det(B A) = 0", k.eq(k.det(x.B @ x.A), k.num(0)))


def thin_grid() -> Json:
    """det(B A) for B (2 x 1) and A (1 x 2) at the 2^4 points with entries 0 and 1, and the sizes."""
    points = [list(p) for p in product((0, 1), repeat=4)]
    return {"parameters": 4, "weights": 4, "points": points}


def determinant_vanishes(payload: Json) -> str | None:
    """K >= d, and det(B A), of degree one in each entry, vanishes at 2^4 points, hence everywhere."""
    if payload["parameters"] < payload["weights"]:
        return "fewer tuned numbers than weights"
    if sorted(map(tuple, payload["points"])) != sorted(product((0, 1), repeat=4)):
        return "the points do not decide a polynomial of degree one in each entry"
    for b1, b2, a1, a2 in payload["points"]:
        if (b1 * a1) * (b2 * a2) - (b1 * a2) * (b2 * a1) != 0:
            return f"det(B A) is not zero at B = ({b1}, {b2}), A = ({a1}, {a2})"
    return None


def free(d: dict[str, Any]) -> dict[str, tuple[int, int]]:
    """The factors."""
    return {"B": (d["m"], d["r"]), "A": (d["r"], d["n"])}


def build(k: Kit, t: Instance, d: dict[str, Any]) -> Instance:
    """The factors themselves."""
    return Instance(B=t.B, A=t.A)


THIN: Json = {"B": [["1"], ["1"]], "A": [["1", "1"]]}
SQUARE: Json = {"B": [["1", "0"], ["0", "1"]], "A": [["1", "0"], ["0", "1"]]}
THIN_SIZES: list[dict[str, Any]] = [
    {"m": 2, "n": 2, "r": 1},
    {"m": 3, "n": 3, "r": 2},
    {"m": 4, "n": 4, "r": 3},
]
THIN_SETTING = Setting(dims=THIN_SIZES, free=free, build=build, boundary=[THIN])

NULL = Claim(
    id="peft_vs_fft/thm_1_null",
    source=source("Theorem 1, measure zero"),
    sentence="The image of g has Lebesgue measure zero when k < d.",
    headline=(
        "True for differentiable g, which covers every method of the paper; false for g merely continuous; and k < d is "
        "not the condition for LoRA, whose image is null for every r < min(m, n)."
    ),
    readings=(
        Reading(
            name="g continuously differentiable",
            evidence=Custom(
                status="proved_within",
                produce=covering,
                verify=covering_tends_to_zero,
                about="covering argument: the exact covering volume shrinks by 2^(k-d) when the cells are halved",
            ),
            scope="every k < d; a C^1 map is Lipschitz on each cube, and countably many cubes cover R^k",
            controls=(
                Control("k = d", check=lambda: covering_tends_to_zero(_changed_row("k", 2)) is not None),
                Control(
                    "twice the cells",
                    kind="true",
                    check=lambda: covering_tends_to_zero(covering()) is not None,
                ),
            ),
        ),
        Reading(
            name="g merely continuous",
            evidence=Custom(
                status="refuted",
                produce=curve,
                verify=curve_fills_the_square,
                about="a Hilbert curve: levels visit every cell once, without jumps, each refining the one before",
            ),
            scope="k = 1, d = 2: a continuous map of the interval onto the square",
            controls=(
                Control("a curve that jumps", check=lambda: curve_fills_the_square(_jumping()) is not None),
                Control("the curve", kind="true", check=lambda: curve_fills_the_square(curve()) is not None),
            ),
        ),
        Reading(
            name="k < d is the condition for LoRA",
            sentence="With at least as many tuned numbers as weights LoRA's image is no null set.",
            setting=THIN_SETTING,
            evidence=Custom(
                status="refuted",
                produce=thin_grid,
                verify=determinant_vanishes,
                about="the determinant of B A as a polynomial, decided on a grid of 2^4 points",
            ),
            scope="2 x 2, r = 1: k = d = 4, and every B A lies in the null set of matrices of determinant zero",
            repair=Repair(
                sentence="For every r < min(m, n) the image of B A lies in the zeros of the minors of order r + 1",
                statement=minors,
                evidence=Identity(THIN_SIZES),
                necessary={},
            ),
            controls=(
                Control("r = min(m, n)", statement=minors, instance=SQUARE),
                Control("the repair", kind="true", statement=minors),
            ),
        ),
    ),
)


def _changed_row(name: str, value: int) -> Json:
    payload = covering()
    payload["rows"][0][name] = value
    return payload


def _jumping() -> Json:
    payload = curve()
    cells = payload["levels"][3]
    cells[5], cells[40] = cells[40], cells[5]
    return payload


# -- a submanifold? ----------------------------------------------------------------------------------------------------
def jacobian(k: Kit, x: Instance) -> Mat:
    """The derivative of vec(B A) in (vec B, vec A): [A' kron I, I kron B] (mn x r(m+n))."""
    return k.hcat(k.kron(x.A.T, k.eye(x.B.shape[0])), k.kron(k.eye(x.A.shape[1]), x.B))


def immersion(k: Kit, x: Instance) -> None:
    """As printed: the derivative is injective, so that the image has dimension k = r (m + n)."""
    parameters = x.B.shape[1] * (x.B.shape[0] + x.A.shape[1])
    k.claim("rank of the derivative = k", k.eq(k.rank(jacobian(k, x)), k.num(parameters)))


def kernel(k: Kit, x: Instance) -> None:
    """At full rank the kernel of the derivative is {(-B Z, Z A)}, of dimension r^2: here Z = Y A^+ for each member."""
    r = x.B.shape[1]
    k.given("B of full rank", k.eq(k.pinv(x.B) @ x.B, k.eye(r)))
    k.given("A of full rank", k.eq(x.A @ k.pinv(x.A), k.eye(r)))
    k.given("in the kernel", k.eq(x.B @ x.Y, -(x.X @ x.A)))
    Z = x.Y @ k.pinv(x.A)
    k.claim("X = -B Z", k.eq(x.X, -(x.B @ Z)))
    k.claim("B Y = B Z A", k.eq(x.B @ x.Y, x.B @ Z @ x.A))


def kernel_proof(k: Any, x: Instance) -> Mapping[str, Sequence[Any]]:
    """X = X A A^+ = -B Y A^+, and B Y = -X A = B Z A; B is injective, so Y = Z A."""
    k.use("A of full rank")
    k.use("in the kernel")
    return {}


def kernel_build(k: Kit, t: Instance, d: dict[str, Any]) -> Instance:
    """Factors of full rank (an identity on top or in front) and a member of the kernel."""
    m, n, r = d["m"], d["n"], d["r"]
    B = k.vcat(k.eye(r), t.B) if m > r else k.eye(r)
    A = k.hcat(k.eye(r), t.A) if n > r else k.eye(r)
    return Instance(B=B, A=A, X=-(B @ t.Z), Y=t.Z @ A)


def kernel_free(d: dict[str, Any]) -> dict[str, tuple[int, int]]:
    """What is free below and beside the identities, and the member of the kernel."""
    m, n, r = d["m"], d["n"], d["r"]
    return {"B": (m - r, r), "A": (r, n - r), "Z": (r, r)}


def same_size(k: Kit, x: Instance) -> None:
    """A consequence: X and Y vanish together."""
    k.given("A of full rank", k.eq(x.A @ k.pinv(x.A), k.eye(x.B.shape[1])))
    k.given("in the kernel", k.eq(x.B @ x.Y, -(x.X @ x.A)))
    k.given("Y = 0", k.eq(k.fro2(x.Y), k.num(0)))
    k.claim("X = 0", k.eq(k.fro2(x.X), k.num(0)))


ORIGIN: Json = {"B": [["0"]], "A": [["0"]], "X": [["0"]], "Y": [["0"]]}
GENERIC: Json = {"B": [["1"]], "A": [["1"]], "X": [["-1"]], "Y": [["1"]]}
KERNEL_SETTING = Setting(
    dims=[{"m": 2, "n": 2, "r": 1}, {"m": 3, "n": 2, "r": 1}, {"m": 3, "n": 3, "r": 2}],
    free=kernel_free,
    build=kernel_build,
    letters=lambda k: Instance(
        B=k.letter("B", "m", "r"),
        A=k.letter("A", "r", "n"),
        X=k.letter("X", "m", "r"),
        Y=k.letter("Y", "r", "n"),
    ),
    boundary=[GENERIC],
)


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


SUBMANIFOLD = Claim(
    id="peft_vs_fft/thm_1_submanifold",
    source=source("Theorem 1, embedded submanifold"),
    sentence="The image of g is a k-dimensional embedded submanifold.",
    headline=(
        "False for LoRA: the derivative vanishes at the origin, and its rank is r (m + n - r), not r (m + n), where it is "
        "largest; an injective derivative would not suffice either."
    ),
    defect="false statement",
    uses=("peft_vs_fft/thm_1_null",),
    readings=(
        Reading(
            name="LoRA",
            statement=immersion,
            setting=KERNEL_SETTING,
            evidence=Counterexample(ORIGIN),
            scope="1 x 1, at the start of training B = 0",
            open_instance=GENERIC,
            repair=Repair(
                sentence=(
                    "Where B and A have full rank the kernel of the derivative is {(-B Z, Z A)}, of dimension r^2: the "
                    "image has dimension r (m + n - r)"
                ),
                statement=kernel,
                evidence=WordProof(kernel_proof),
                necessary={"A of full rank": {"B": [["1"]], "A": [["0"]], "X": [["1"]], "Y": [["0"]]}},
                sharp=GENERIC,
            ),
            controls=(
                Control(
                    "a member that is not in the kernel",
                    statement=kernel,
                    drop=("in the kernel",),
                    instance={**GENERIC, "X": [["1"]]},
                ),
                Control("X and Y vanish together", kind="true", statement=same_size),
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


# -- density -----------------------------------------------------------------------------------------------------------
def relative_error(k: Kit, x: Instance) -> None:
    """A null set misses diag(1, t) by at least a fixed share c > 0 of its size."""
    k.given("c > 0", k.lt(k.num(0), x.c))
    k.given("the target is not zero", k.lt(k.num(0), k.fro2(x.M)))
    rest = x.M - k.svd_r(x.M, x.r, "SVD_r(M)")
    k.claim("error >= c |M|^2", k.le(x.c * k.fro2(x.M), k.fro2(rest)))


def family() -> Json:
    """Targets diag(1, 1/n) with their exact relative errors for rank 1."""
    return {"n": [1, 10, 100, 1000], "share": [str(Fraction(1, n * n + 1)) for n in (1, 10, 100, 1000)]}


def family_tends_to_zero(payload: Json) -> str | None:
    """The share (1/n^2) / (1 + 1/n^2) = 1 / (n^2 + 1) falls below every c > 0: n > 1/sqrt(c) suffices."""
    for n, share in zip(payload["n"], payload["share"], strict=True):
        tail, total = Fraction(1, n * n), 1 + Fraction(1, n * n)
        if Fraction(share) != tail / total or Fraction(share) != Fraction(1, n * n + 1):
            return f"the share at n = {n} is not {share}"
    if len(payload["n"]) < 2 or sorted(payload["n"]) != payload["n"]:
        return "the family does not grow"
    return None


def _wrong_family() -> Json:
    return {**family(), "share": ["1/2", "1/10", "1/100", "1/1000"]}


DENSITY = Claim(
    id="peft_vs_fft/thm_1_density",
    source=source("Theorem 1, its reading as a limit of what PEFT can represent"),
    sentence="Since PEFT reaches a null set only, it approximates what full tuning reaches badly.",
    headline=(
        "False: being a null set says nothing about distances; rank 1 misses diag(1, 1/n) by the share 1 / (n^2 + 1) of "
        "its energy."
    ),
    defect="false statement",
    uses=("peft_vs_fft/thm_1_null",),
    readings=(
        Reading(
            name="a fixed share of the target is missed",
            evidence=Custom(
                status="refuted",
                produce=family,
                verify=family_tends_to_zero,
                about="a family of targets whose exact relative error tends to zero",
            ),
            scope="2 x 2 targets and the null set of matrices of rank 1",
            controls=(
                Control("shares 1 / n", check=lambda: family_tends_to_zero(_wrong_family()) is not None),
                Control("the family", kind="true", check=lambda: family_tends_to_zero(family()) is not None),
            ),
        ),
        Reading(
            name="half of the target is missed",
            sentence="Rank 1 misses at least the share c = 1/2 of every target that is not of rank 1.",
            statement=relative_error,
            setting=Setting(
                dims=[{"n": 2, "r": 1}],
                free=lambda d: {"M": (2, 2)},
                build=lambda k, t, d: Instance(M=t.M, r=1, c=k.num("1/2")),
                boundary=[{"M": [["1", "0"], ["0", "1"]], "r": 1, "c": "1/2"}],
            ),
            evidence=Counterexample({"M": [["2", "0"], ["0", "1"]], "r": 1, "c": "1/2"}),
            scope="2 x 2, r = 1",
            open_instance={"M": [["2", "0"], ["0", "1"]], "r": 1, "c": "1/2"},
            repair=Repair(
                sentence="The error is exactly the energy of the singular values beyond r",
                statement=lambda k, x: k.claim(
                    "error = tail", k.eq(k.fro2(x.M - k.svd_r(x.M, x.r, "SVD_r(M)")), k.tail2(x.M, x.r))
                ),
                evidence=WordProof(),
                setting=Setting(
                    dims=[{"n": 2, "r": 1}],
                    free=lambda d: {"M": (2, 2)},
                    build=lambda k, t, d: Instance(M=t.M, r=1, c=k.num("1/2")),
                    letters=lambda k: Instance(M=k.letter("M", "m", "n"), r="r", c=k.number("c")),
                    boundary=[{"M": [["1", "0"], ["0", "1"]], "r": 1, "c": "1/2"}],
                ),
            ),
            controls=(
                Control(
                    "the share asked of a rank 1 target",
                    statement=relative_error,
                    tighten="-1",
                    instance={"M": [["1", "0"], ["0", "0"]], "r": 1, "c": "1/2"},
                ),
                Control(
                    "no share at all",
                    kind="true",
                    statement=lambda k, x: k.claim("error >= 0", k.le(k.num(0), k.tail2(x.M, x.r))),
                ),
            ),
        ),
    ),
)

CLAIMS = (NULL, SUBMANIFOLD, DENSITY)
