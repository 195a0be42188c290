"""How small PEFT's image is in parameter space, and what that does not say.

Source: Theorem 1 (second-hand). g: R^k -> R^d maps the tuned numbers to a change of the weights; for LoRA
g(B, A) = B A with B (m x r), A (r x n). The image's shape is the matter of `thm_1_manifold`.

- Null set: for g continuously differentiable and k < d the image has measure zero (cover the cube by N^k small ones;
  their images have total volume of order N^(k-d)). For g merely continuous it is false: a Hilbert curve is a
  continuous map of an interval onto a square. And k < d is not the right condition for B A: r (m + n) may exceed m n
  while every r + 1 minor of B A vanishes.
- "Measure zero means bad approximation": false. diag(1, t) lies at distance t from the null set of rank 1 matrices.
"""

from __future__ import annotations

from fractions import Fraction
from itertools import product
from typing import Any

from theory.claim import Claim, Control, Json, Reading, Repair, Setting
from theory.evidence import Counterexample, Custom, Identity, WordProof
from theory.peft_vs_fft.setting import source
from theory.protocol import Instance, Kit


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


# The four copies of a Hilbert curve in the next one: (x, y) of the h x h grid goes to M (x, y) + h u + v.
COPIES = (
    {"M": [[0, 1], [1, 0]], "u": [0, 0], "v": [0, 0]},
    {"M": [[1, 0], [0, 1]], "u": [0, 1], "v": [0, 0]},
    {"M": [[1, 0], [0, 1]], "u": [1, 1], "v": [0, 0]},
    {"M": [[0, -1], [-1, 0]], "u": [2, 1], "v": [-1, -1]},
)
Cell = tuple[int, int]


def curve() -> Json:
    """The four copies, and the first levels of the curve that they make from one cell."""
    levels: list[list[Cell]] = [[(0, 0)]]
    for level in range(4):
        levels.append([placed(c, cell, 2**level) for c in COPIES for cell in levels[-1]])
    return {
        "copies": [dict(c) for c in COPIES],
        "levels": [[list(cell) for cell in cells] for cells in levels],
    }


def placed(copy: Any, cell: Cell, h: int) -> Cell:
    """M (x, y) + h u + v."""
    a, b = (
        copy["M"][i][0] * cell[0] + copy["M"][i][1] * cell[1] + h * copy["u"][i] + copy["v"][i]
        for i in (0, 1)
    )
    return a, b


def curve_fills_the_square(payload: Json) -> str | None:
    """Every level visits every cell once, moves between neighbours, and refines the level before in order.

    Level 0 does. If a level does, made of cells 0 <= x, y < h from (0, 0) to (h - 1, 0), so does the next, for every h,
    since the four maps send these cells to the four quadrants (each M a signed permutation, with v = -1 where it turns
    an axis round), commute with halving (x -> floor(x / 2) at even h, by the same sign rule), and their ends, linear
    in h, are neighbours: this is decided here for all h. Hence the polygons converge uniformly (neighbours at level j
    stay within 2 / 2^j), the limit is continuous, and its image is compact and meets every cell of every level: it is
    the whole square, a set of measure one.
    """
    copies, levels = payload["copies"], payload["levels"]
    if levels[0] != [[0, 0]] or len(levels) < 4:
        return "the curve does not start with one cell, or its levels are not shown"
    quadrants = set()
    for copy in copies:
        M, u, v = copy["M"], copy["u"], copy["v"]
        if (
            sorted(sorted(map(abs, row)) for row in M) != [[0, 1], [0, 1]]
            or M[0][0] * M[1][0]
            or M[0][1] * M[1][1]
        ):
            return f"{M} is no signed permutation"
        turned = [min(row) == -1 for row in M]
        if v != [-int(t) for t in turned]:
            return f"with v = {v} the cells leave the grid or halving goes wrong"
        quadrants.add(tuple(a - int(t) for a, t in zip(u, turned, strict=True)))
    if len(copies) != 4 or quadrants != {(0, 0), (0, 1), (1, 0), (1, 1)}:
        return "the copies do not fill the four quadrants"
    joints = []
    for h in (1, 2):  # the ends are linear in h, so two values of h decide them for all
        ends = [(placed(c, (0, 0), h), placed(c, (h - 1, 0), h)) for c in copies]
        if ends[0][0] != (0, 0) or ends[-1][1] != (2 * h - 1, 0):
            return "the next level does not lead from (0, 0) to (2 h - 1, 0)"
        joints.append([(b[0] - a[0], b[1] - a[1]) for (_, a), (b, _) in zip(ends, ends[1:], strict=False)])
    if joints[0] != joints[1] or any(abs(x) + abs(y) != 1 for x, y in joints[0]):
        return "the curve jumps between two copies"
    for level, cells in enumerate(levels[1:]):
        made = [list(placed(c, (x, y), 2**level)) for c in copies for x, y in levels[level]]
        if cells != made:
            return f"level {level + 1} is not made of four copies of the level before"
        if [[x // 2, y // 2] for x, y in cells[::4]] != levels[level]:
            return f"level {level + 1} does not refine the level before"
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
                about="a Hilbert curve: four maps that carry one level to the next, decided for every level",
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
    """The last copy not turned round: it fills its quadrant and starts away from where the third one ends."""
    payload = curve()
    payload["copies"][3] = {"M": [[0, 1], [1, 0]], "u": [1, 0], "v": [0, 0]}
    return payload


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

CLAIMS = (NULL, DENSITY)
