"""The claim file that `python -m theory new FILE` writes: a true lemma, ready to be replaced by one's own."""

TEMPLATE = '''"""The statement in one sentence: the trace of a product of psd matrices is at most the product of traces.

Run `python -m theory falsify {name}`. Exit status 1: a counterexample was found (it is printed, shrunk and
certified exactly); 0: none was found, and the report says how hard it was looked. With --beyond the search
leaves `build` aside: every entry of the instance is free, and only the hypotheses stated below bind.
"""

from theory import instances
from theory.protocol import Instance

# Sizes to try, smallest first. Every entry is handed to `free`, `build` and, through `build`, to the statement.
DIMS = [{{"n": 1}}, {{"n": 2}}, {{"n": 3}}, {{"n": 4}}]


def free(d):
    """Free rational parameters and their shapes. Whatever they are, `build` must meet the hypotheses."""
    n = d["n"]
    return {{"C": (n, n), "E": (n, n)}}


def build(k, t, d):
    """An instance from free parameters `t` at sizes `d`. Ready constructors in theory/instances.py:

    gram(C)                          psd
    positive_definite(k, C)          positive definite
    of_rank(F, G)                    rank at most the inner size
    projector(k, A)                  orthogonal projector
    orthonormal_columns(k, Z, r)     r orthonormal columns (rational), Z square
    smooth_quadratic(k, C)           symmetric, 0 <= S <= I (a quadratic with smoothness 1)
    realisable(A, Z)                 Y = A Z, so that A X = Y has a solution
    aligned(A, Z)                    A Z A': a matrix whose row and column spaces lie in that of A
    unit_interval(k, g)              a number in [0, 1)
    """
    return Instance(A=instances.gram(t.C), B=instances.gram(t.E))


def statement(k, x):
    """Hypotheses by k.given(name, relation), conclusions by k.claim(name, relation).

    Relations: k.le, k.lt, k.eq, k.psd, k.sym, k.rank_le, k.all_, k.any_. Matrices: A @ B, A + B, A.T,
    k.eye(n), k.cols(A, S), k.had, k.kron, k.diag; scalars: k.tr, k.fro2, k.det, k.rank, k.op, k.nuc, k.sv(A, i),
    k.eig(S, i), k.sqrt, k.sq, k.min_, k.max_, k.num("2/3") for every constant; defined objects: k.inv, k.pinv,
    k.proj, k.sqrtm(S, "name"), k.svd_r(A, r, "name"). theory/protocol.py explains each.
    """
    k.given("A psd", k.psd(x.A))
    k.given("B psd", k.psd(x.B))
    k.claim("tr(AB) <= tr(A) tr(B)", k.le(k.tr(x.A @ x.B), k.tr(x.A) * k.tr(x.B)))


# Optional:
# BOUNDARY = [{{"A": [["1", "0"], ["0", "0"]], "B": [["2/3", "0"], ["0", "0"]]}}]   instances looked at first
# def VARS(d): return {{"A": (d["n"], d["n"], True), "B": (d["n"], d["n"], True)}}   raw variables for the solver:
#                                                       (rows, columns, symmetric), "scalar", or static data
# def FAMILIES(rng, d, count): ...   arrays (count, number of free parameters) that are hard for this claim
# def INNER(k, x): ...               the instance with an inner maximisation solved in closed form
# GROW = ["n"]                       sizes along which a growing ratio is looked for
'''


def text(name: str) -> str:
    """The template for a file of that name."""
    return TEMPLATE.format(name=name)
