"""The mean of the projector H = A'(AA')^+A under the laws of A that the paper names.

Source: LoRA past, present, future, Section 3.2 and Proposition 4. A (r x m), H (m x m), E = mean of H.

`lambda_min_gaussian`: Gaussian A. A law of A that no signed permutation of the columns changes makes E a multiple of
I: sign changes make the entries off the diagonal vanish, exchanges of columns make those on it equal, both proved for
every size. Its trace is r, the rank of A, so E = (r / m) I. The paper prints r / n_i with A in R^{r x m_i} (section 2);
that is right only in the shapes of Proposition 4, where A is r x n. Checked also as the mean over all signed
permutations of any one A, an identity for every law with that symmetry, Gaussian or not.

`prop_4`: A is one of k coordinate blocks A^j = [0_{r x jr} | I_r | 0]. True when j runs from 0 to k - 1, each as likely.
As printed j runs from 1 to k: block k lies outside the matrix and block 0 never comes; the k - 1 blocks that exist
leave lambda_min = 0. Algorithm 2 draws an offset of single columns from {0, ..., n/r - 1}: again lambda_min = 0 as
soon as r, k >= 2, since the last columns are never covered. For c3LA the blocks come in a fixed order: given W_t
the next H is known, and lambda_min of its conditional mean, which the proof of Theorem 2 needs, is 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import permutations, product
from typing import Any

from theory.claim import Claim, Control, Json, Reading, Repair, Setting
from theory.evidence import Counterexample, Identity, WordProof
from theory.lora_variants.setting import source
from theory.protocol import Instance, Kit, Mat

APART, SIGN, EXCHANGE, TAKES = (
    "i is not j",
    "sign change of column i",
    "exchange of i and j",
    "S takes j to i",
)
SCALAR, SMALLEST, FULL = "E = (r/m) I", "lambda_min(E)", "A has full rank"


def signed_permutations(k: Kit, m: int) -> list[Mat]:
    """All m! 2^m of them."""
    out = []
    for order in permutations(range(m)):
        for signs in product((1, -1), repeat=m):
            out.append(k.mat([[signs[i] * (order[i] == j) for j in range(m)] for i in range(m)]))
    return out


def symmetric_mean(k: Kit, x: Instance) -> Mat:
    """The mean of H over all A g, g a signed permutation: H of A g is g'H g."""
    A = x.A
    k.given(FULL, k.eq(k.num(A.shape[0]), k.rank(A)))
    H, m = k.pinv(A) @ A, A.shape[1]
    total = k.zeros(m, m)
    group = signed_permutations(k, m)
    for g in group:
        total = total + g.T @ H @ g
    mean: Mat = k.num(f"1/{len(group)}") * total
    return mean


def identity_of_the_mean(k: Kit, x: Instance) -> None:
    """E = (r / m) I."""
    E, m = symmetric_mean(k, x), x.A.shape[1]
    k.claim(SCALAR, k.eq(E, k.num(f"{x.A.shape[0]}/{m}") * k.eye(m)))


def with_rows(k: Kit, x: Instance) -> None:
    """As printed, with the number of rows n of the layer: lambda_min(E) = r / n."""
    E, (r, m) = symmetric_mean(k, x), x.A.shape
    k.claim(SMALLEST, k.eq(k.eig(E, m), k.num(f"{r}/{x.n}")))


def with_columns(k: Kit, x: Instance) -> None:
    """With the number of columns m of A: lambda_min(E) = r / m."""
    E, (r, m) = symmetric_mean(k, x), x.A.shape
    k.claim(SCALAR, k.eq(E, k.num(f"{r}/{m}") * k.eye(m)))


def trace_of_the_mean(k: Kit, x: Instance) -> None:
    """A weaker statement: tr E = r."""
    k.claim("trace", k.eq(k.tr(symmetric_mean(k, x)), k.num(x.A.shape[0])))


SHAPES: list[dict[str, Any]] = [
    {"r": 1, "m": 1, "n": 1},
    {"r": 1, "m": 2, "n": 1},
    {"r": 2, "m": 2, "n": 3},
    {"r": 1, "m": 3, "n": 2},
    {"r": 2, "m": 3, "n": 3},
]


def rows_of_identity(r: int, m: int) -> list[list[str]]:
    """[I_r | 0]."""
    return [[str(int(i == j)) for j in range(m)] for i in range(r)]


def factor(r: int, m: int, n: int) -> Json:
    """A = [I_r | 0] for a layer with n rows."""
    return {"A": rows_of_identity(r, m), "n": n}


GAUSSIAN = Setting(
    dims=SHAPES,
    free=lambda d: {"A": (d["r"], d["m"])},
    build=lambda k, t, d: Instance(A=t.A, n=d["n"]),
    boundary=[factor(1, 1, 1), factor(1, 2, 2)],
)
WITH_ROWS = factor(1, 2, 1)


def sign_changes(k: Kit, x: Instance) -> None:
    """E commutes with I - 2 u u', so v'E u = 0 for every v orthogonal to u (written with u' behind it)."""
    k.given(APART, k.eq(x.v.T @ x.u, k.zeros(1, 1)))
    k.given(SIGN, k.eq(x.E @ x.u @ x.u.T, x.u @ x.u.T @ x.E))
    k.claim("off the diagonal", k.eq(x.v.T @ x.E @ x.u @ x.u.T, k.zeros(1, x.E.shape[0])))


def off_diagonal(k: Kit, x: Instance) -> None:
    """A weaker statement: (v'E u)(u'u) = 0."""
    sign_changes(k, x)
    k.claim("times the length", k.eq(x.v.T @ x.E @ x.u @ x.u.T @ x.u, k.zeros(1, 1)))


def sign_changes_proof(k: Any, x: Instance) -> Mapping[str, Sequence[Any]]:
    """V'E u u' = v'u u'E = 0."""
    k.use(APART)
    k.use(SIGN)
    return {}


def exchanges(k: Kit, x: Instance) -> None:
    """S'E S = E for an S that takes v to u, so u'E u = v'E v."""
    k.given(EXCHANGE, k.eq(x.S.T @ x.E @ x.S, x.E))
    k.given(TAKES, k.eq(x.u, x.S @ x.v))
    k.claim("on the diagonal", k.eq(x.u.T @ x.E @ x.u, x.v.T @ x.E @ x.v))


def both_diagonals(k: Kit, x: Instance) -> None:
    """A weaker statement: their sum is twice the one."""
    k.given(EXCHANGE, k.eq(x.S.T @ x.E @ x.S, x.E))
    k.given(TAKES, k.eq(x.u, x.S @ x.v))
    one, other = x.u.T @ x.E @ x.u, x.v.T @ x.E @ x.v
    k.claim("sum", k.eq(one + other, 2 * one))


def exchanges_proof(k: Any, x: Instance) -> Mapping[str, Sequence[Any]]:
    """U'E u = v'S'E S v."""
    k.use(EXCHANGE)
    k.use(TAKES)
    return {}


def build_symmetric(k: Kit, t: Instance, d: dict[str, Any]) -> Instance:
    """E that commutes with the sign change of column i and the exchange of i and j."""
    m, i, j = d["m"], d["i"], d["j"]
    order = list(range(m))
    order[i], order[j] = j, i
    S = k.cols(k.eye(m), order)
    others = k.eye(m) - k.unit(m, m, i, i) - k.unit(m, m, j, j)
    E = others @ t.C @ others + k.e(t.c, 0, 0) * (k.eye(m) - others)
    return Instance(E=E, S=S, u=k.unit(m, 1, i, 0), v=k.unit(m, 1, j, 0))


def two_columns(E: list[list[str]]) -> Json:
    """Two columns and their exchange."""
    return {"E": E, "S": [["0", "1"], ["1", "0"]], "u": [["1"], ["0"]], "v": [["0"], ["1"]]}


SYMMETRIC = Setting(
    dims=[{"m": 2, "i": 0, "j": 1}, {"m": 3, "i": 2, "j": 0}],
    free=lambda d: {"C": (d["m"], d["m"]), "c": (1, 1)},
    build=build_symmetric,
    letters=lambda k: Instance(
        E=k.letter("E", "m", "m"), S=k.letter("S", "m", "m"), u=k.letter("u", "m", 1), v=k.letter("v", "m", 1)
    ),
    boundary=[two_columns([["1", "0"], ["0", "1"]])],
)


# -- prop_4 -----------------------------------------------------------------------------------------------------
def block(k: Kit, x: Instance, offset: int) -> Mat:
    """H of A = c [0 | I_r | 0] with the identity at that offset; c is any non-zero factor."""
    n = x.r * x.k
    A = x.c * k.mat([[int(j == offset + i) for j in range(n)] for i in range(x.r)])
    H: Mat = k.pinv(A) @ A
    return H


def mean_over(k: Kit, x: Instance, offsets: Sequence[int]) -> Mat:
    """Each offset as likely as any other."""
    k.given("the factor is not zero", k.lt(k.num(0), k.sq(x.c)))
    total = k.zeros(x.r * x.k, x.r * x.k)
    for offset in offsets:
        total = total + block(k, x, offset)
    mean: Mat = k.num(f"1/{len(offsets)}") * total
    return mean


def each_block(k: Kit, x: Instance) -> None:
    """J = 0, ..., k - 1: E = (r / n) I."""
    E = mean_over(k, x, [j * x.r for j in range(x.k)])
    k.claim(SCALAR, k.eq(E, k.num(f"1/{x.k}") * k.eye(x.r * x.k)))


def smallest(k: Kit, x: Instance, offsets: Sequence[int]) -> None:
    """lambda_min(E) = r / n."""
    E = mean_over(k, x, offsets)
    k.claim(SMALLEST, k.eq(k.eig(E, x.r * x.k), k.num(f"1/{x.k}")))


def blocks_from_one(k: Kit, x: Instance) -> None:
    """J = 1, ..., k as printed, without the block that does not exist."""
    smallest(k, x, [j * x.r for j in range(1, x.k)] or [0])


def single_columns(k: Kit, x: Instance) -> None:
    """Algorithm 2: the offset itself, in columns, is uniform on 0, ..., n / r - 1."""
    smallest(k, x, list(range(x.k)))


def next_block(k: Kit, x: Instance) -> None:
    """c3LA: given the past the next block is certain."""
    smallest(k, x, [0])


def at_most(k: Kit, x: Instance) -> None:
    """A weaker statement: lambda_min of any such mean is at most r / n, since its trace is r."""
    for offsets in ([j * x.r for j in range(x.k)], list(range(x.k)), [0]):
        E = mean_over(k, x, offsets)
        k.claim(f"offsets {offsets}", k.le(k.eig(E, x.r * x.k), k.num(f"1/{x.k}")))


LAWS: list[dict[str, Any]] = [{"r": r, "k": k} for r, k in ((1, 1), (1, 2), (2, 2), (1, 4), (2, 3), (3, 2))]


def law(r: int, k: int) -> Json:
    """K blocks of r columns."""
    return {"c": "1", "r": r, "k": k}


BLOCKS = Setting(
    dims=LAWS,
    free=lambda d: {"c": (1, 1)},
    build=lambda k, t, d: Instance(c=1 + k.sq(k.e(t.c, 0, 0)), **d),
    boundary=[law(1, 1)],
)
REPAIR = Repair(
    sentence="lambda_min(E[H]) = r / n when each of the blocks j = 0, ..., k - 1 is as likely",
    statement=each_block,
    evidence=Identity(LAWS),
)
CONTROLS = (
    Control("right side larger by 1/1000", statement=each_block, tighten="1/1000", instance=law(1, 1)),
    Control("lambda_min <= r / n", kind="true", statement=at_most),
)

CLAIMS = (
    Claim(
        id="lora_variants/lambda_min_gaussian",
        source=source("3.2, after Theorem 2"),
        sentence="For Gaussian A in R^{r x m_i}, lambda_min(E[H]) = r / n_i.",
        headline=(
            "It is r over the number of columns of A: r / m_i in the shapes of section 2, r / n_i in those of "
            "Proposition 4."
        ),
        defect="misprint",
        setting=GAUSSIAN,
        readings=(
            Reading(
                name="shapes of section 2",
                statement=with_rows,
                evidence=Counterexample(WITH_ROWS),
                scope="n = 1, m = 2, r = 1; it fails whenever n and m differ",
                repair=Repair(
                    sentence="E[H] = (r / m) I for every law of A that signed permutations of the columns leave as it is",
                    statement=with_columns,
                    evidence=Identity(SHAPES),
                    necessary={FULL: {"A": [["0", "0"]], "n": 1}},
                ),
                controls=(
                    Control(
                        "the repair's right side larger by 1/1000",
                        statement=with_columns,
                        tighten="1/1000",
                        instance=WITH_ROWS,
                    ),
                    Control("tr E = r", kind="true", statement=trace_of_the_mean),
                ),
            ),
            Reading(
                name="shapes of Proposition 4",
                sentence="For Gaussian A in R^{r x n}, E[H] = (r / n) I, so lambda_min(E[H]) = r / n.",
                statement=identity_of_the_mean,
                evidence=Identity(SHAPES),
                scope=(
                    "up to three columns; for more, sign changes and exchanges of columns leave only multiples "
                    "of I, and tr E = r"
                ),
                controls=(
                    Control("right side larger by 1/1000", tighten="1/1000", instance=factor(1, 1, 1)),
                    Control("A without full rank", drop=(FULL,), instance={"A": [["0", "0"]], "n": 2}),
                    Control("tr E = r", kind="true", statement=trace_of_the_mean),
                ),
            ),
            Reading(
                name="sign changes of columns",
                sentence="If sign changes of the columns leave the law of A as it is, E[H] is diagonal.",
                statement=sign_changes,
                setting=SYMMETRIC,
                evidence=WordProof(sign_changes_proof),
                scope="every size and pair of columns",
                controls=(
                    Control("no sign change", drop=(SIGN,), instance=two_columns([["1", "1"], ["1", "1"]])),
                    Control("times the length of u", kind="true", statement=off_diagonal),
                ),
            ),
            Reading(
                name="exchanges of columns",
                sentence="If exchanges of columns leave the law of A as it is, the diagonal of E[H] is constant.",
                statement=exchanges,
                setting=SYMMETRIC,
                evidence=WordProof(exchanges_proof),
                scope="every size and pair of columns",
                controls=(
                    Control("no exchange", drop=(EXCHANGE,), instance=two_columns([["1", "0"], ["0", "2"]])),
                    Control("the sum of the two", kind="true", statement=both_diagonals),
                ),
            ),
        ),
    ),
    Claim(
        id="lora_variants/prop_4",
        source=source("Proposition 4"),
        sentence="For c3LA and random-cLA with n = r k, lambda_min(E[H]) = r / n.",
        headline=(
            "True if each of the blocks 0, ..., k - 1 is as likely; zero for the printed range 1, ..., k, for the "
            "printed offset of Algorithm 2 and for a fixed order of the blocks."
        ),
        defect="misprint",
        setting=BLOCKS,
        readings=(
            Reading(
                name="blocks 0 to k - 1, each as likely",
                statement=each_block,
                evidence=Identity(LAWS),
                scope="r k <= 6; for every size, since the blocks partition the columns",
                controls=CONTROLS,
            ),
            Reading(
                name="blocks 1 to k as printed",
                sentence="The same for the law that is uniform on those of the printed blocks 1, ..., k that exist.",
                statement=blocks_from_one,
                evidence=Counterexample(law(1, 2)),
                scope="r = 1, k = 2",
                repair=REPAIR,
                controls=CONTROLS,
            ),
            Reading(
                name="the offset of Algorithm 2",
                sentence="The same for the law of Algorithm 2: an offset of single columns, uniform on 0, ..., n / r - 1.",
                statement=single_columns,
                evidence=Counterexample(law(2, 2)),
                scope="r = 2, k = 2",
                repair=REPAIR,
                controls=CONTROLS,
            ),
            Reading(
                name="c3LA, given the past",
                sentence="The same for the mean of c3LA's next H given the iterates so far.",
                statement=next_block,
                evidence=Counterexample(law(1, 2)),
                scope="r = 1, k = 2",
                repair=REPAIR,
                controls=CONTROLS,
            ),
        ),
    ),
)
