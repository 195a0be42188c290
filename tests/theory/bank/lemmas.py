"""A bank of lemmas that stand in none of the papers: what the falsifier must refute, and what it must not.

Each lemma is a statement over its own setting, true or false. Tags of false ones say why they are hard:
"thin" (a rank drop, a tie or another set of measure zero), "narrow" (a small cone), "large" (needs dimension
>= 4 and rank >= 3), "tie" (a tie or a rank drop). Whether a lemma survives a million Gaussian draws is
measured by `bench.py`, not claimed here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from theory.claim import Setting
from theory.instances import gram, positive_definite, smooth_quadratic
from theory.protocol import Instance

BANK: dict[str, Lemma] = {}


@dataclass(frozen=True)
class Lemma:
    """A lemma of the bank."""

    name: str
    true: bool
    setting: Setting
    statement: Callable[..., None]
    tags: tuple[str, ...] = ()


def lemma(true: bool, setting: Setting, *tags: str) -> Callable[..., Any]:
    """Enter a statement into the bank under its function's name."""

    def enter(statement: Callable[..., None]) -> Callable[..., None]:
        name = statement.__name__
        assert name not in BANK, name
        BANK[name] = Lemma(name, true, setting, statement, tags)
        return statement

    return enter


def sizes(*values: int) -> list[dict[str, Any]]:
    """Sizes n."""
    return [{"n": n} for n in values]


def squares(*names: str) -> Callable[[dict[str, Any]], dict[str, tuple[int, int]]]:
    """Free n x n parameters of those names."""
    return lambda d: {name: (d["n"], d["n"]) for name in names}


def as_is(k: Any, t: Instance, d: dict[str, Any]) -> Instance:
    """The parameters themselves."""
    return Instance(t)


def grams(k: Any, t: Instance, d: dict[str, Any]) -> Instance:
    """Gram matrices of the parameters."""
    return Instance({name: gram(M) for name, M in t.items()})


def raw_psd(*names: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Symmetric raw variables for the solver."""
    return lambda d: {name: (d["n"], d["n"], True) for name in names}


def plain(names: str, *values: int) -> Setting:
    """Square matrices without hypotheses."""
    return Setting(sizes(*values), squares(*names), as_is)


def psd(names: str, *values: int) -> Setting:
    """Psd matrices."""
    return Setting(sizes(*values), squares(*names), grams, raw=raw_psd(*names))


def vector(*values: int) -> Setting:
    """A row v of length n."""
    return Setting(sizes(*values), lambda d: {"v": (1, d["n"])}, as_is)


def assume_psd(k: Any, x: Instance, *names: str) -> None:
    """State that the named matrices are psd."""
    for name in names:
        k.given(f"{name} psd", k.psd(x[name]))


def entries(k: Any, v: Any) -> list[Any]:
    """The entries of a row."""
    return [k.e(v, 0, i) for i in range(v.shape[1])]


# -- matrix order -------------------------------------------------------------------------------------------
@lemma(False, psd("AB", 1, 2, 3))
def anticommutator_of_psd_is_psd(k, x):
    assume_psd(k, x, "A", "B")
    k.claim("AB + BA psd", k.psd(x.A @ x.B + x.B @ x.A))


@lemma(
    False,
    Setting(
        sizes(1, 2, 3), squares("A", "B"), lambda k, t, d: Instance(A=gram(t.A), B=gram(t.A) + gram(t.B))
    ),
)
def squares_keep_the_order(k, x):
    k.given("A psd", k.psd(x.A))
    k.given("A <= B", k.psd(x.B - x.A))
    k.claim("A^2 <= B^2", k.psd(x.B @ x.B - x.A @ x.A))


@lemma(False, psd("AB", 1, 2, 3))
def the_cube_is_operator_convex(k, x):
    assume_psd(k, x, "A", "B")
    half = k.num("1/2") * (x.A + x.B)
    cubes = k.num("1/2") * (x.A @ x.A @ x.A + x.B @ x.B @ x.B)
    k.claim("((A+B)/2)^3 <= (A^3+B^3)/2", k.psd(cubes - half @ half @ half))


@lemma(
    False,
    Setting(sizes(1, 2), squares("A", "B"), lambda k, t, d: Instance(A=gram(t.A), B=gram(t.A) + gram(t.B))),
    "tie",
)
def pseudo_inverses_reverse_the_order(k, x):
    k.given("A psd", k.psd(x.A))
    k.given("A <= B", k.psd(x.B - x.A))
    k.claim("B+ <= A+", k.psd(k.pinv(x.A) - k.pinv(x.B)))


@lemma(False, psd("ABC", 1, 2, 3))
def the_trace_of_three_psd_is_non_negative(k, x):
    assume_psd(k, x, "A", "B", "C")
    k.claim("0 <= tr(ABC)", k.le(0, k.tr(x.A @ x.B @ x.C)))


@lemma(False, psd("AB", 1, 2, 3), "narrow")
def a_trace_word_of_degree_six_is_non_negative(k, x):
    """Two psd matrices of size 3 with tr(A^2 B^2 A B) < 0 exist, in a narrow cone (Johnson and Hillar)."""
    assume_psd(k, x, "A", "B")
    k.claim("0 <= tr(A^2 B^2 AB)", k.le(0, k.tr(x.A @ x.A @ x.B @ x.B @ x.A @ x.B)))


# -- singular values and norms --------------------------------------------------------------------------------
@lemma(False, plain("AB", 2, 3))
def the_second_singular_value_is_subadditive(k, x):
    k.claim("s2", k.le(k.sv(x.A + x.B, 2), k.sv(x.A, 2) + k.sv(x.B, 2)))


@lemma(False, plain("AB", 2, 3), "narrow")
def commutators_below_199_percent(k, x):
    C = x.A @ x.B - x.B @ x.A
    k.claim("|[A,B]|^2", k.le(k.fro2(C), k.num("199/100") * k.fro2(x.A) * k.fro2(x.B)))


@lemma(False, plain("A", 3, 4), "narrow", "large")
def the_nuclear_norm_below_3995_thousandths(k, x):
    """Needs four nearly equal singular values: nuc^2 <= rank fro^2."""
    k.claim("flat", k.le(k.sq(k.nuc(x.A)), k.num("3995/1000") * k.fro2(x.A)))


@lemma(False, psd("AB", 3, 4), "large")
def the_fourth_eigenvalue_of_a_sum(k, x):
    """Weyl's bound lambda_{i+j-1} <= lambda_i + lambda_j, off by one index; needs rank(A + B) = 4."""
    assume_psd(k, x, "A", "B")
    if x.A.shape[0] < 4:
        k.claim("Weyl", k.le(k.eig(x.A + x.B, 3), k.eig(x.A, 2) + k.eig(x.B, 2)))
    else:
        k.claim("off by one", k.le(k.eig(x.A + x.B, 4), k.eig(x.A, 3) + k.eig(x.B, 3)))


@lemma(False, plain("A", 3, 4, 5), "narrow", "large")
def triangular_truncation_below_six_fifths(k, x):
    """The norm of A -> its upper triangle grows with log n: 2/sqrt(3) at n = 2, above 6/5 from n = 3 on."""
    n = x.A.shape[0]
    U = k.had(x.A, k.mat([[int(j >= i) for j in range(n)] for i in range(n)]))
    bound = "6/5" if n < 4 else "5/4"
    k.claim("truncation", k.le(k.op(U), k.num("3/2" if n < 4 else bound) * k.op(x.A)))


@lemma(False, plain("A", 2))
def the_entrywise_sign_does_not_raise_the_norm(k, x):
    n = x.A.shape[0]
    signs = k.mat([[1 if i <= j else -1 for j in range(n)] for i in range(n)])
    k.claim("norm", k.le(k.op(k.had(x.A, signs)), k.op(x.A)))


# -- ranks, determinants, pseudo-inverses -----------------------------------------------------------------------
@lemma(False, plain("AB", 1, 2, 3), "thin", "tie")
def the_pseudo_inverse_of_a_product(k, x):
    k.claim("(AB)+ = B+ A+", k.eq(k.pinv(x.A @ x.B), k.pinv(x.B) @ k.pinv(x.A)))


@lemma(False, plain("AB", 1, 2, 3), "thin", "tie")
def the_rank_of_a_product_commutes(k, x):
    k.claim("rank AB = rank BA", k.eq(k.rank(x.A @ x.B), k.rank(x.B @ x.A)))


@lemma(False, plain("AB", 3, 4), "thin", "large", "tie")
def ranks_cancel_at_most_seven(k, x):
    """Needs B = -A of rank 4."""
    k.claim("cancel", k.le(k.rank(x.A) + k.rank(x.B), 7 + k.rank(x.A + x.B)))


@lemma(False, plain("ABC", 3, 4), "large")
def a_triple_product_loses_at_most_six(k, x):
    """The loss is at most 2n, which is 8 at n = 4."""
    loss = k.rank(x.A) + k.rank(x.B) + k.rank(x.C) - k.rank(x.A @ x.B @ x.C)
    k.claim("loss", k.le(loss, 6))


@lemma(False, plain("AB", 1, 2), "thin", "tie")
def pseudo_inverses_are_lipschitz(k, x):
    """True for invertible A and B; a rank drop breaks it."""
    bound = k.op(k.pinv(x.A)) * k.op(k.pinv(x.B)) * k.op(x.A - x.B)
    k.claim("Lipschitz", k.le(k.op(k.pinv(x.A) - k.pinv(x.B)), bound))


@lemma(False, Setting([{}], lambda d: {"v": (1, 1)}, as_is), "thin", "tie")
def a_rank_that_drops_at_an_odd_point(k, x):
    M = k.mat([[k.e(x.v, 0, 0), k.num("7/5")], [k.num("3/11"), k.num(1)]])
    k.claim("rank 2", k.eq(k.rank(M), 2))


@lemma(False, Setting([{}], lambda d: {"Z": (4, 4)}, as_is), "thin", "tie")
def a_shifted_skew_matrix_is_invertible(k, x):
    shift = [[0, "3/7", 0, "1/5"], ["-3/7", 0, "2/11", 0], [0, "-2/11", 0, "5/13"], ["-1/5", 0, "-5/13", 0]]
    K = x.Z - x.Z.T + k.mat([[k.num(v) for v in row] for row in shift])
    k.claim("0 < det^2", k.lt(0, k.sq(k.det(K))))


@lemma(False, Setting([{"n": 2}, {"n": 3}], lambda d: {"A": (d["n"], 3), "b": (d["n"], 1)}, as_is))
def greedy_columns_are_the_best_pair(k, x):
    def rest(S: Sequence[int]) -> Any:
        return k.fro2(x.b - k.proj(k.cols(x.A, S)) @ x.b)

    one = [rest([j]) for j in range(3)]
    pairs = {S: rest(list(S)) for S in ((0, 1), (0, 2), (1, 2))}
    k.given("column 0 is the greedy choice", k.le(one[0], k.min_(one[1], one[2])))
    best = k.min_(k.min_(pairs[0, 1], pairs[0, 2]), pairs[1, 2])
    k.claim("greedy is best", k.le(k.min_(pairs[0, 1], pairs[0, 2]), best))


# -- ties -------------------------------------------------------------------------------------------------------
@lemma(False, plain("M", 2, 3), "thin", "tie")
def the_best_rank_one_part_commutes_with_transposition(k, x):
    """Only where the two largest singular values agree may the two choices differ."""
    k.claim("same part", k.eq(k.svd_r(x.M, 1, "of M"), k.svd_r(x.M.T, 1, "of M'").T))


@lemma(False, Setting([{}], lambda d: {"v": (1, 2)}, as_is), "thin", "tie")
def eigenvalues_that_meet_at_an_odd_point(k, x):
    a, b = k.e(x.v, 0, 0) - k.num("3/11"), k.e(x.v, 0, 1) + k.num("5/13")
    S = k.mat([[a, b], [b, -a]])
    k.claim("simple", k.lt(k.eig(S, 2), k.eig(S, 1)))


@lemma(False, Setting([{}], lambda d: {"v": (1, 3)}, as_is), "thin")
def a_sum_of_squares_without_a_root(k, x):
    a, b, c = entries(k, x.v)
    total = k.sq(a - k.num("3/7")) + k.sq(b + a - k.num("5/9")) + k.sq(c - k.num("2/11"))
    k.claim("positive", k.lt(0, total))


@lemma(False, Setting([{"n": 1}, {"n": 2}], lambda d: {"A": (d["n"], 2), "B": (d["n"], 2)}, as_is), "thin")
def the_triangle_inequality_is_strict(k, x):
    k.given("A is not zero", k.lt(0, k.fro2(x.A)))
    k.given("B is not zero", k.lt(0, k.fro2(x.B)))
    k.claim("strict", k.lt(k.fro(x.A + x.B), k.fro(x.A) + k.fro(x.B)))


# -- polynomials, cones -----------------------------------------------------------------------------------------
def motzkin(k: Any, p: Any, q: Any, factor: str) -> tuple[Any, Any]:
    """Both sides of Motzkin's inequality with a factor for 3."""
    return k.num(factor) * p * q, p * p * q + p * q * q + 1


@lemma(False, vector(2), "narrow")
def motzkin_at_an_odd_place(k, x):
    a, b = entries(k, x.v)
    p, q = k.sq(k.num("10/37") * a - k.num("3/11")), k.sq(k.num("7/11") * b + k.num("5/13"))
    k.claim("Motzkin", k.le(*motzkin(k, p, q, "3000001/1000000")))


HORN = [[1, -1, 1, 1, -1], [-1, 1, -1, 1, 1], [1, -1, 1, -1, 1], [1, 1, -1, 1, -1], [-1, 1, 1, -1, 1]]


@lemma(False, Setting(sizes(5), squares("C"), lambda k, t, d: Instance(A=gram(t.C))), "narrow", "large")
def doubly_non_negative_pairs_with_horn(k, x):
    """True for completely positive A; a doubly non-negative 5 x 5 matrix need not be one."""
    assume_psd(k, x, "A")
    n = x.A.shape[0]
    k.given("A >= 0", k.all_(*(k.le(0, k.e(x.A, i, j)) for i in range(n) for j in range(i))))
    k.claim("0 <= <A, Horn>", k.le(0, k.dot(x.A, k.mat(HORN))))


@lemma(False, vector(3), "narrow")
def kantorovich_five_hundred_millionths_too_small(k, x):
    """(v'Av)(v'A^-1 v) <= 25/9 |v|^4 for A = diag(1, 4, 9); here the constant is too small by 5e-8."""
    a, b, c = (k.sq(v) for v in entries(k, x.v))
    left = (a + 4 * b + 9 * c) * (a + k.num("1/4") * b + k.num("1/9") * c)
    k.claim("Kantorovich", k.le(left, k.num("25/9") * k.num("99999995/100000000") * k.sq(a + b + c)))


# -- algorithms -------------------------------------------------------------------------------------------------
def descend(k: Any, Q: Any, w: Any, steps: int, rate: str = "1") -> Any:
    """Gradient descent on w'Qw/2."""
    for _ in range(steps):
        w = w - k.num(rate) * (Q @ w)
    return w


QUADRATIC = Setting(
    [{"n": n, "T": T} for n, T in ((1, 1), (1, 3), (2, 4))],
    lambda d: {"C": (d["n"], d["n"]), "w": (d["n"], 1)},
    lambda k, t, d: Instance(Q=smooth_quadratic(k, t.C), w=t.w, T=d["T"]),
)


def assume_smooth(k: Any, x: Instance) -> None:
    """0 <= Q <= I."""
    k.given("Q psd", k.psd(x.Q))
    k.given("Q <= I", k.psd(k.eye(x.Q.shape[0]) - x.Q))


@lemma(False, QUADRATIC)
def gradient_descent_a_hair_too_fast(k, x):
    """w'Q(I-Q)^(2T)w peaks at the eigenvalue 1/(2T+1); the constant is one per mille too small."""
    assume_smooth(k, x)
    w, T = descend(k, x.Q, x.w, x.T), x.T
    best = k.num(f"{(2 * T) ** (2 * T)}/{(2 * T + 1) ** (2 * T + 1)}")
    k.claim("rate", k.le(k.dot(w, x.Q @ w), k.num("999/1000") * best * k.fro2(x.w)))


@lemma(False, QUADRATIC)
def heavy_ball_decreases_every_step(k, x):
    assume_smooth(k, x)
    before, w = x.w, x.w
    for _ in range(x.T):
        before, w = w, w - x.Q @ w + k.num("1/2") * (w - before)
    after = w - x.Q @ w + k.num("1/2") * (w - before)
    k.claim("monotone", k.le(k.dot(after, x.Q @ after), k.dot(w, x.Q @ w)))


@lemma(
    False,
    Setting(
        [{"n": 2}, {"n": 3}],
        lambda d: {"C": (d["n"], d["n"]), "w": (d["n"], 1)},
        lambda k, t, d: Instance(Q=smooth_quadratic(k, t.C), w=t.w),
    ),
)
def a_coordinate_step_shrinks_the_norm(k, x):
    assume_smooth(k, x)
    n = x.Q.shape[0]
    after = x.w - k.unit(n, n, 0, 0) @ x.Q @ x.w
    k.claim("norm", k.le(k.fro2(after), k.fro2(x.w)))


# -- expectations over finite laws --------------------------------------------------------------------------------
def rademacher(k: Any, v: Any, f: Callable[[Any], Any]) -> Any:
    """The mean of f(sum of +-v_i) over all signs."""
    a = entries(k, v)
    signs = list(product((1, -1), repeat=len(a)))
    return k.num(f"1/{len(signs)}") * k.sum(f(k.sum(s * c for s, c in zip(e, a, strict=True))) for e in signs)


@lemma(False, vector(2, 3, 4), "narrow")
def fourth_moments_of_signs(k, x):
    """The fourth moment is 3 |v|^4 - 2 sum v_i^4: above 2.499 |v|^4 only where four weights nearly agree."""
    fourth = rademacher(k, x.v, lambda s: k.sq(k.sq(s)))
    k.claim("fourth moment", k.le(fourth, k.num("2499/1000") * k.sq(k.fro2(x.v))))


@lemma(False, vector(2, 3), "narrow")
def khintchine_with_51_percent(k, x):
    first = rademacher(k, x.v, k.abs_)
    k.claim("Khintchine", k.le(k.num("501/1000") * k.fro2(x.v), k.sq(first)))


@lemma(False, Setting(sizes(2, 3), lambda d: {"A": (d["n"], d["n"]), "w": (d["n"], 1)}, as_is))
def a_random_coordinate_keeps_a_third(k, x):
    """The mean energy after keeping one random coordinate is 1/n of it only for one matrix in many."""
    n = x.A.shape[0]
    mean = k.num(f"1/{n}") * k.sum(k.fro2(x.A @ k.unit(n, n, i, i) @ x.w) for i in range(n))
    k.claim("mean", k.le(k.fro2(x.A @ x.w), n * mean))


# == true lemmas ================================================================================================
@lemma(
    True, Setting(sizes(1, 2, 3), squares("A", "B"), lambda k, t, d: Instance(P=k.proj(t.A), Q=k.proj(t.B)))
)
def projectors_differ_by_at_most_one(k, x):
    for name in "PQ":
        k.given(f"{name} symmetric", k.sym(x[name]))
        k.given(f"{name} idempotent", k.eq(x[name] @ x[name], x[name]))
    k.claim("|P - Q| <= 1", k.le(k.op(x.P - x.Q), 1))


@lemma(True, psd("AB", 1, 2, 3))
def determinants_are_superadditive(k, x):
    assume_psd(k, x, "A", "B")
    k.claim("det", k.le(k.det(x.A) + k.det(x.B), k.det(x.A + x.B)))


@lemma(
    True,
    Setting(
        [{"m": 2, "n": 2, "r": 1}, {"m": 3, "n": 3, "r": 1}],
        lambda d: {"M": (d["m"], d["n"]), "U": (d["m"], d["r"]), "V": (d["n"], d["r"])},
        lambda k, t, d: Instance(t, r=d["r"]),
    ),
)
def eckart_young(k, x):
    best = k.svd_r(x.M, x.r, "SVD_r(M)")
    k.claim("best", k.le(k.fro2(x.M - best), k.fro2(x.M - x.U @ x.V.T)))


@lemma(
    True,
    Setting(
        [{"m": 1, "n": 1, "r": 1}, {"m": 2, "n": 2, "r": 1}, {"m": 2, "n": 2, "r": 2}],
        lambda d: {"U": (d["m"], d["r"]), "V": (d["n"], d["r"])},
        as_is,
    ),
)
def nuclear_norm_of_a_product(k, x):
    k.claim("nuclear", k.le(2 * k.nuc(x.U @ x.V.T), k.fro2(x.U) + k.fro2(x.V)))


@lemma(True, psd("AB", 1, 2, 3))
def schur_products_are_psd(k, x):
    assume_psd(k, x, "A", "B")
    k.claim("A o B psd", k.psd(k.had(x.A, x.B)))


@lemma(True, plain("AB", 2, 3))
def boettcher_wenzel(k, x):
    C = x.A @ x.B - x.B @ x.A
    k.claim("|[A,B]|^2", k.le(k.fro2(C), 2 * k.fro2(x.A) * k.fro2(x.B)))


@lemma(True, vector(2))
def motzkin_is_non_negative(k, x):
    a, b = entries(k, x.v)
    p, q = k.sq(k.num("10/37") * a - k.num("3/11")), k.sq(k.num("7/11") * b + k.num("5/13"))
    k.claim("Motzkin", k.le(*motzkin(k, p, q, "3")))


@lemma(True, vector(5))
def horn_is_copositive(k, x):
    y = [k.sq(v) for v in entries(k, x.v)]
    form = k.sum(HORN[i][j] * y[i] * y[j] for i in range(5) for j in range(5))
    k.claim("0 <= y'Hy", k.le(0, form))


@lemma(True, psd("AB", 1, 2, 3))
def the_trace_of_a_product_of_psd(k, x):
    assume_psd(k, x, "A", "B")
    k.claim("tr(AB) <= tr A tr B", k.le(k.tr(x.A @ x.B), k.tr(x.A) * k.tr(x.B)))


@lemma(True, psd("AB", 3, 4))
def weyl(k, x):
    assume_psd(k, x, "A", "B")
    k.claim("Weyl", k.le(k.eig(x.A + x.B, 3), k.eig(x.A, 2) + k.eig(x.B, 2)))


@lemma(True, plain("AB", 2, 3))
def ky_fan(k, x):
    def top(M: Any) -> Any:
        return k.sv(M, 1) + k.sv(M, 2)

    k.claim("Ky Fan", k.le(top(x.A + x.B), top(x.A) + top(x.B)))


@lemma(True, plain("A", 2, 3, 4))
def the_nuclear_norm_below_the_rank(k, x):
    k.claim("flat", k.le(k.sq(k.nuc(x.A)), x.A.shape[0] * k.fro2(x.A)))


@lemma(True, plain("AB", 2, 3))
def sylvester(k, x):
    k.claim("Sylvester", k.le(k.rank(x.A) + k.rank(x.B), x.A.shape[0] + k.rank(x.A @ x.B)))


@lemma(True, plain("ABC", 2, 3))
def frobenius_rank(k, x):
    k.claim("Frobenius", k.le(k.rank(x.A @ x.B) + k.rank(x.B @ x.C), k.rank(x.B) + k.rank(x.A @ x.B @ x.C)))


@lemma(True, plain("A", 1, 2, 3))
def the_pseudo_inverse_twice(k, x):
    k.claim("A++ = A", k.eq(k.pinv(k.pinv(x.A)), x.A))


@lemma(True, psd("AB", 1, 2, 3))
def oppenheim(k, x):
    assume_psd(k, x, "A", "B")
    diagonal = k.num(1)
    for i in range(x.B.shape[0]):
        diagonal = diagonal * k.e(x.B, i, i)
    k.claim("Oppenheim", k.le(k.det(x.A) * diagonal, k.det(k.had(x.A, x.B))))


@lemma(True, vector(3))
def kantorovich(k, x):
    a, b, c = (k.sq(v) for v in entries(k, x.v))
    left = (a + 4 * b + 9 * c) * (a + k.num("1/4") * b + k.num("1/9") * c)
    k.claim("Kantorovich", k.le(left, k.num("25/9") * k.sq(a + b + c)))


@lemma(True, psd("AB", 1, 2, 3))
def lieb_thirring(k, x):
    assume_psd(k, x, "A", "B")
    AB = x.A @ x.B
    k.claim("tr (AB)^2 <= tr A^2 B^2", k.le(k.tr(AB @ AB), k.tr(x.A @ x.A @ x.B @ x.B)))


@lemma(True, psd("AB", 1, 2, 3))
def powers_of_a_product_have_non_negative_trace(k, x):
    assume_psd(k, x, "A", "B")
    AB = x.A @ x.B
    k.claim("0 <= tr (AB)^3", k.le(0, k.tr(AB @ AB @ AB)))


@lemma(True, vector(2, 3))
def khintchine(k, x):
    first = rademacher(k, x.v, k.abs_)
    k.claim("Khintchine", k.le(k.fro2(x.v), 2 * k.sq(first)))


@lemma(True, vector(2, 3, 4))
def fourth_moments_below_three(k, x):
    fourth = rademacher(k, x.v, lambda s: k.sq(k.sq(s)))
    k.claim("fourth moment", k.le(fourth, 3 * k.sq(k.fro2(x.v))))


@lemma(True, QUADRATIC)
def gradient_descent_rate(k, x):
    assume_smooth(k, x)
    w, T = descend(k, x.Q, x.w, x.T), x.T
    best = k.num(f"{(2 * T) ** (2 * T)}/{(2 * T + 1) ** (2 * T + 1)}")
    k.claim("rate", k.le(k.dot(w, x.Q @ w), best * k.fro2(x.w)))


@lemma(True, QUADRATIC)
def gradient_descent_decreases(k, x):
    assume_smooth(k, x)
    w = descend(k, x.Q, x.w, x.T)
    k.claim("monotone", k.le(k.dot(w, x.Q @ w), k.dot(x.w, x.Q @ x.w)))


@lemma(True, plain("AB", 1, 2, 3))
def ranks_are_subadditive(k, x):
    k.claim("rank", k.le(k.rank(x.A + x.B), k.rank(x.A) + k.rank(x.B)))


@lemma(True, plain("AB", 2, 3))
def cauchy_schwarz(k, x):
    k.claim("Cauchy-Schwarz", k.le(k.sq(k.dot(x.A, x.B)), k.fro2(x.A) * k.fro2(x.B)))


@lemma(True, plain("A", 1, 2, 3))
def hadamard(k, x):
    product_of_rows = k.num(1)
    for i in range(x.A.shape[0]):
        product_of_rows = product_of_rows * k.fro2(k.rows(x.A, [i]))
    k.claim("Hadamard", k.le(k.sq(k.det(x.A)), product_of_rows))


@lemma(
    True,
    Setting(
        sizes(1, 2),
        squares("A", "B"),
        lambda k, t, d: Instance(A=positive_definite(k, t.A), B=positive_definite(k, t.A) + gram(t.B)),
    ),
)
def inverses_reverse_the_order(k, x):
    k.given("A definite", k.psd(x.A - k.eye(x.A.shape[0])))
    k.given("A <= B", k.psd(x.B - x.A))
    k.claim("B^-1 <= A^-1", k.psd(k.inv(x.A) - k.inv(x.B)))


@lemma(True, Setting(sizes(5), lambda d: {"C": (5, 3)}, lambda k, t, d: Instance(C=k.had(t.C, t.C))))
def completely_positive_pairs_with_horn(k, x):
    k.given("C >= 0", k.all_(*(k.le(0, k.e(x.C, i, j)) for i in range(5) for j in range(3))))
    k.claim("0 <= <CC', Horn>", k.le(0, k.dot(gram(x.C), k.mat(HORN))))
