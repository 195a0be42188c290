"""When the factors of a chain can be read off from its update, as the bounds of c3LA and RAC-LoRA assume.

Source: LoRA past, present, future, C.1.5 (c) and (e). Shapes of section 2: B_j (n x r), A_j (r x m), the update is
dW = sum_j B_j A_j = B S with B = [B_1 | ... | B_k] (n x kr) and the stack S = [A_1; ...; A_k] (kr x m).

`injectivity_c3la`: A_j selects block j. With kr <= m the blocks lie apart and B_j = dW A_j': true for every size. If the
shift wraps around, kr > m brings a block back and only sums of factors can be read off. The printed inverse cuts off the
last n_i - kr columns; there are m_i - kr to cut.

`injectivity_rac`: "frozen orthogonal" A_j (each with orthonormal rows) are not enough: two equal ones, or any with
kr > m, make different factors give one update. It is injective if and only if S has full row rank, for instance for
jointly orthonormal rows; for Gaussian A_j and kr <= m that holds with probability one (det SS' is a polynomial that is
not zero everywhere). The printed factor [Q^1 | ... | Q^k]^T (km x r) does not multiply B; the stack does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from theory import instances
from theory.claim import Claim, Control, Json, Reading, Repair, Setting
from theory.evidence import Counterexample, Custom, Identity, WordProof
from theory.kits.exact import Exact
from theory.lora_variants.setting import source
from theory.protocol import Instance, Kit, Mat

APART, FITS = "the blocks lie apart", "kr <= m"
EACH, SAME, RANK, JOINT = "orthonormal rows", "same update", "S has full row rank", "S S' = I"


# -- injectivity_c3la -----------------------------------------------------------------------------------------------
def two_blocks(k: Kit, x: Instance) -> tuple[Mat, Mat, Mat]:
    """(U, V, dW): the columns of one chain's block, those of all others, and the update."""
    U, V = k.cols(k.eye(x.m), x.one), k.cols(k.eye(x.m), x.others)
    return U, V, x.B @ U.T + x.R @ V.T


def read_off(k: Kit, x: Instance, U: Mat, V: Mat, dW: Mat) -> None:
    """Every factor is the update times its block."""
    k.claim("this chain", k.eq(dW @ U, x.B))
    k.claim("the others", k.eq(dW @ V, x.R))


def blocks_apart(k: Kit, x: Instance) -> None:
    """With kr <= m no column is in two blocks."""
    U, V, dW = two_blocks(k, x)
    k.given(APART, k.eq(U.T @ V, k.zeros(U.shape[1], V.shape[1])))
    read_off(k, x, U, V, dW)


def any_blocks(k: Kit, x: Instance) -> None:
    """The same for whatever blocks the wrapped shift gives."""
    read_off(k, x, *two_blocks(k, x))


def use_apart(k: Any, x: Instance) -> Mapping[str, Sequence[Any]]:
    """U'V = 0."""
    k.use(APART)
    return {}


def sums(k: Kit, x: Instance) -> None:
    """A weaker statement: the sum of all factors times their blocks is the update."""
    U, V, dW = two_blocks(k, x)
    k.claim("sum", k.eq(k.hcat(x.B, x.R) @ k.hcat(U, V).T, dW))


def chains(one: Sequence[int], others: Sequence[int], m: int) -> Json:
    """One row; this chain's factor is 1, the others' 2."""
    return {
        "B": [["1"] * len(one)],
        "R": [["2"] * len(others)],
        "one": list(one),
        "others": list(others),
        "m": m,
    }


def letters(k: Any) -> Instance:
    """Any sizes."""
    B, R = k.letter("B", "n", "|one|"), k.letter("R", "n", "|others|")
    return Instance(B=B, R=R, one="one", others="others", m="m")


CHAINS = Setting(
    dims=[
        {"n": 1, "m": 2, "one": (0,), "others": (1,)},
        {"n": 2, "m": 3, "one": (1,), "others": (0, 2)},
        {"n": 2, "m": 5, "one": (2, 3), "others": (0, 1)},
    ],
    free=lambda d: {"B": (d["n"], len(d["one"])), "R": (d["n"], len(d["others"]))},
    build=lambda k, t, d: Instance({**t, **d}),
    letters=letters,
    boundary=[chains((0,), (1,), 2)],
)
WRAPPED = replace(CHAINS, dims=[{"n": 1, "m": 1, "one": (0,), "others": (0,)}, *CHAINS.dims])


def slice_sizes(k: Kit, x: Instance) -> None:
    """Cutting the last n - q columns of dW leaves the q = kr columns of [B_1 | ... | B_k]."""
    k.given(FITS, k.le(k.num(x.q), k.num(x.m)))
    k.given("kr <= n", k.le(k.num(x.q), k.num(x.B.shape[0])))
    k.claim("columns left", k.eq(k.num(x.m - (x.B.shape[0] - x.q)), k.num(x.q)))


def slice_repaired(k: Kit, x: Instance) -> None:
    """Cutting the last m - q columns."""
    k.given(FITS, k.le(k.num(x.q), k.num(x.m)))
    dW = k.hcat(x.B, k.zeros(x.B.shape[0], x.m - x.q))
    k.claim("columns left", k.eq(k.cols(dW, range(x.m - (x.m - x.q))), x.B))


SLICES = Setting(
    dims=[{"n": n, "m": m, "q": q} for n, m, q in ((1, 2, 1), (2, 3, 2), (3, 4, 2))],
    free=lambda d: {"B": (d["n"], d["q"])},
    build=lambda k, t, d: Instance(B=t.B, m=d["m"], q=d["q"]),
    boundary=[{"B": [["1"]], "m": 1, "q": 1}],
)
ONE_ROW: Json = {"B": [["1"]], "m": 2, "q": 1}


# -- injectivity_rac ------------------------------------------------------------------------------------------------
def same_update(k: Kit, x: Instance) -> None:
    """D is the difference of two choices of B with one update."""
    k.given(SAME, k.eq(x.D @ x.S, k.zeros(x.D.shape[0], x.S.shape[1])))


def each_orthonormal(k: Kit, x: Instance) -> None:
    """As printed: each A_j has orthonormal rows; equal updates come from equal factors."""
    blocks = [k.rows(x.S, range(j, j + x.r)) for j in range(0, x.S.shape[0], x.r)]
    k.given(EACH, k.all_(*(k.eq(A @ A.T, k.eye(x.r)) for A in blocks)))
    same_update(k, x)
    k.claim("same factors", k.eq(x.D, k.zeros(*x.D.shape)))


def full_rank(k: Kit, x: Instance) -> None:
    """The factors are the update times the pseudo-inverse of the stack."""
    k.given(RANK, k.eq(x.S @ k.pinv(x.S), k.eye(x.S.shape[0])))
    k.claim("inverse", k.eq(x.D @ x.S @ k.pinv(x.S), x.D))


def jointly_orthonormal(k: Kit, x: Instance) -> None:
    """The factors are the update times S'."""
    k.given(JOINT, k.eq(x.S @ x.S.T, k.eye(x.S.shape[0])))
    k.claim("inverse", k.eq(x.D @ x.S @ x.S.T, x.D))


def use_rank(k: Any, x: Instance) -> Mapping[str, Sequence[Any]]:
    """S S^+ = I."""
    k.use(RANK)
    return {}


def use_joint(k: Any, x: Instance) -> Mapping[str, Sequence[Any]]:
    """S S' = I."""
    k.use(JOINT)
    return {}


def projected(k: Kit, x: Instance) -> None:
    """A weaker statement: what can always be recovered is B S S^+, which has the same update."""
    k.claim("same update", k.eq(x.D @ x.S @ k.pinv(x.S) @ x.S, x.D @ x.S))


def product_sizes(k: Kit, x: Instance) -> None:
    """B (n x kr) times [Q^1 | ... | Q^k]' (km x r) is defined."""
    stacked = k.hcat(x.Q1, x.Q2).T
    k.claim("inner sizes", k.eq(k.num(x.B1.shape[1] + x.B2.shape[1]), k.num(stacked.shape[0])))


def product_repaired(k: Kit, x: Instance) -> None:
    """Two chains: B_1 Q_1 + B_2 Q_2 = [B_1 | B_2] [Q_1; Q_2]."""
    k.claim("stack", k.eq(k.hcat(x.B1, x.B2) @ k.vcat(x.Q1, x.Q2), x.B1 @ x.Q1 + x.B2 @ x.Q2))


def build_each(k: Kit, t: Instance, d: dict[str, Any]) -> Instance:
    """Any A_j with orthonormal rows, and a D in the left kernel of the stack."""
    m, r = d["m"], d["r"]
    rows = [k.rows(k.skew_orth(t[f"Z{j}"]), range(r)) for j in range(d["k"])]
    S = k.vcat(*rows)
    return Instance(S=S, D=t.X - t.X @ S @ k.pinv(S), r=r, m=m)


def build_full(k: Kit, t: Instance, d: dict[str, Any]) -> Instance:
    """A stack [I | Z] of full row rank, and any D."""
    return Instance(S=k.hcat(k.eye(d["q"]), t.Z), D=t.X, r=1)


def letters_stack(k: Any) -> Instance:
    """Any sizes."""
    return Instance(S=k.letter("S", "q", "m"), D=k.letter("D", "n", "q"), r="r")


EACH_ROWS = Setting(
    dims=[
        {"n": 1, "m": m, "r": r, "k": c}
        for m, r, c in ((1, 1, 1), (1, 1, 2), (2, 1, 2), (2, 1, 3), (3, 2, 1))
    ],
    free=lambda d: {**{f"Z{j}": (d["m"], d["m"]) for j in range(d["k"])}, "X": (d["n"], d["k"] * d["r"])},
    build=build_each,
    boundary=[{"S": [["1"]], "D": [["0"]], "r": 1}],
)
STACKS = Setting(
    dims=[{"n": n, "q": q, "more": more} for n, q, more in ((1, 1, 1), (1, 2, 1), (2, 2, 2))],
    free=lambda d: {"Z": (d["q"], d["more"]), "X": (d["n"], d["q"])},
    build=build_full,
    letters=letters_stack,
    boundary=[{"S": [["1", "2"]], "D": [["3"]], "r": 1}],
)
ORTHONORMAL = Setting(
    dims=[{"n": 1, "m": 2, "r": 1, "k": 1}, {"n": 2, "m": 3, "r": 2, "k": 1}],
    free=lambda d: {"Z0": (d["m"], d["m"]), "X": (d["n"], d["r"])},
    build=lambda k, t, d: Instance(S=k.rows(k.skew_orth(t.Z0), range(d["r"])), D=t.X, r=d["r"]),
    letters=letters_stack,
    boundary=[{"S": [["3/5", "4/5"]], "D": [["1"]], "r": 1}],
)
PRODUCTS = Setting(
    dims=[{"n": n, "m": m, "r": r} for n, m, r in ((1, 2, 1), (2, 3, 1), (2, 3, 2))],
    free=lambda d: {
        **{f"B{j}": (d["n"], d["r"]) for j in (1, 2)},
        **{f"Q{j}": (d["r"], d["m"]) for j in (1, 2)},
    },
    build=lambda k, t, d: t,
    boundary=[{"B1": [["1"]], "B2": [["1"]], "Q1": [["1"]], "Q2": [["1"]]}],
)
TWICE: Json = {"S": [["1"], ["1"]], "D": [["1", "-1"]], "r": 1}
PLANE: Json = {"S": [["1", "0"], ["3/5", "4/5"], ["0", "1"]], "D": [["3", "-5", "4"]], "r": 1}
GAUSSIAN_SIZES = [(q, m) for m in range(1, 6) for q in range(1, m + 1)]


def points(sizes: Sequence[tuple[int, int]] = GAUSSIAN_SIZES) -> Json:
    """A stack with det SS' != 0 for each size, where [I | 0] is one."""
    return {f"{q} x {m}": [[str(int(i == j)) for j in range(m)] for i in range(q)] for q, m in sizes}


def not_identically_zero(payload: Json, sizes: Sequence[tuple[int, int]] = GAUSSIAN_SIZES) -> str | None:
    """A complaint unless det SS' is not zero at the stored stack of every size, all of them being there."""
    if list(payload) != [f"{q} x {m}" for q, m in sizes]:
        return "other sizes"
    for (q, m), rows in zip(sizes, payload.values(), strict=True):
        kit = Exact()
        S = instances.load(kit, {"S": rows}).S
        if S.shape != (q, m) or kit.det(S @ S.T) == 0:
            return f"det SS' is zero at the stack for {q} x {m}"
    return None


WIDE = [(2, 1)]
CUT = Control(
    "the repair's right side larger by 1/1000", statement=slice_repaired, tighten="1/1000", instance=ONE_ROW
)
RECOVERED = Repair(
    sentence=(
        "it is injective when the stack S has full row rank kr, with B = dW S^+; otherwise dW does not show a change of B "
        "by the rows of I - S S^+"
    ),
    statement=full_rank,
    setting=STACKS,
    evidence=WordProof(use_rank),
    necessary={RANK: TWICE},
    sharp=STACKS.boundary[0],
)
PROJECTED = Control("B S S^+ has the update of B", kind="true", statement=projected)

CLAIMS = (
    Claim(
        id="lora_variants/injectivity_c3la",
        source=source("C.1.5 (c)"),
        sentence="[B_1 | ... | B_k] -> sum_j B_j [0 | I_r | 0] is injective.",
        headline=(
            "True for every size while kr <= m; not if the shift wraps around beyond that. The printed inverse cuts off "
            "n - kr columns where m - kr must go."
        ),
        defect="misprint",
        setting=CHAINS,
        readings=(
            Reading(
                name="kr <= m",
                statement=blocks_apart,
                evidence=WordProof(use_apart),
                scope="every size: one chain against all others",
                controls=(
                    Control("right side larger by 1/1000", tighten="1/1000", instance=chains((0,), (1,), 2)),
                    Control("two chains with one block", drop=(APART,), instance=chains((0,), (0,), 1)),
                    Control("the update is the sum", kind="true", statement=sums),
                ),
            ),
            Reading(
                name="the shift wraps around, any k",
                sentence="The same for a circulant shift and any number of chains.",
                statement=any_blocks,
                setting=WRAPPED,
                evidence=Counterexample(chains((0,), (0,), 1)),
                scope="one column, two chains",
                repair=Repair(
                    sentence="it is injective if no column is in two blocks, that is if kr <= m",
                    statement=blocks_apart,
                    evidence=WordProof(use_apart),
                    necessary={APART: chains((0,), (0,), 1)},
                    sharp=chains((0,), (1,), 2),
                ),
                controls=(
                    Control(
                        "the repair's right side larger by 1/1000",
                        statement=blocks_apart,
                        tighten="1/1000",
                        instance=chains((0,), (1,), 2),
                    ),
                    Control("the update is the sum", kind="true", statement=sums),
                ),
            ),
            Reading(
                name="the printed inverse",
                sentence="Cutting the last n - kr columns off the update leaves [B_1 | ... | B_k].",
                statement=slice_sizes,
                setting=SLICES,
                evidence=Counterexample(ONE_ROW),
                scope="one by two, k = r = 1; it fails whenever n and m differ",
                repair=Repair(
                    sentence="cutting the last m - kr columns does",
                    statement=slice_repaired,
                    evidence=Identity(SLICES.dims),
                    sharp=ONE_ROW,
                ),
                controls=(CUT, Control("the repair", kind="true", statement=slice_repaired)),
            ),
        ),
    ),
    Claim(
        id="lora_variants/injectivity_rac",
        source=source("C.1.5 (e)"),
        sentence="(B_1, ..., B_k) -> sum_j B_j Q_j with frozen orthogonal Q_j is injective.",
        headline=(
            "False for Q_j that are only orthonormal one by one; true exactly when the stack of all Q_j has full row "
            "rank, which Gaussian Q_j have with probability one if kr <= m."
        ),
        defect="missing hypothesis",
        readings=(
            Reading(
                name="each Q_j orthonormal",
                statement=each_orthonormal,
                setting=EACH_ROWS,
                evidence=Counterexample(TWICE),
                open_instance=PLANE,
                scope="Q_1 = Q_2 = 1; whenever kr > m, as for three rows in the plane",
                repair=RECOVERED,
                controls=(
                    Control(
                        "the repair's right side larger by 1/1000",
                        statement=full_rank,
                        tighten="1/1000",
                        instance=STACKS.boundary[0],
                    ),
                    PROJECTED,
                ),
            ),
            Reading(
                name="all Q_j jointly orthonormal",
                sentence="If all rows of all Q_j are orthonormal, the factors are the update times S'.",
                statement=jointly_orthonormal,
                setting=ORTHONORMAL,
                evidence=WordProof(use_joint),
                scope="every size",
                controls=(
                    Control(
                        "right side larger by 1/1000", tighten="1/1000", instance=ORTHONORMAL.boundary[0]
                    ),
                    Control("two equal rows", drop=(JOINT,), instance=TWICE),
                    PROJECTED,
                ),
            ),
            Reading(
                name="Gaussian Q_j, kr <= m",
                sentence="For independent Gaussian Q_j and kr <= m the map is injective with probability one.",
                evidence=Custom(
                    "proved_within",
                    points,
                    not_identically_zero,
                    "det SS' is a polynomial in the entries that is not zero at a stored stack",
                ),
                scope="m <= 5; for every kr <= m, since det SS' = 1 at S = [I | 0]",
                controls=(
                    Control(
                        "kr = 2 > m = 1",
                        check=lambda: not_identically_zero(points(WIDE), WIDE) is not None,
                        spares=lambda: not_identically_zero(points()) is not None,
                    ),
                    Control(
                        "m = 1",
                        kind="true",
                        check=lambda: not_identically_zero(points([(1, 1)]), [(1, 1)]) is not None,
                    ),
                ),
            ),
            Reading(
                name="the printed product",
                sentence="[B_1 | ... | B_k] [Q_1 | ... | Q_k]' is defined.",
                statement=product_sizes,
                setting=PRODUCTS,
                evidence=Counterexample(
                    {"B1": [["1"]], "B2": [["1"]], "Q1": [["1", "0"]], "Q2": [["0", "1"]]}
                ),
                scope="n = 1, m = 2, r = 1, k = 2; it fails whenever r < m",
                repair=Repair(
                    sentence="sum_j B_j Q_j = [B_1 | ... | B_k] [Q_1; ...; Q_k]",
                    statement=product_repaired,
                    evidence=Identity(PRODUCTS.dims),
                    sharp=PRODUCTS.boundary[0],
                ),
                controls=(
                    Control(
                        "the repair's right side larger by 1/1000",
                        statement=product_repaired,
                        tighten="1/1000",
                        instance=PRODUCTS.boundary[0],
                    ),
                    Control("the repair", kind="true", statement=product_repaired),
                ),
            ),
        ),
    ),
)
