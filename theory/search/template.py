"""The files that `python -m theory new` writes: a lemma to search, or a paper with a claim that has its verdict."""

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
# GROW = ["n"]                       sizes that may exceed DIMS: alone, or together as in ["chains+steps"]
'''


def text(name: str) -> str:
    """The template for a file of that name."""
    return TEMPLATE.format(name=name)


PAPER = '''"""Claims of <the paper, its authors, the version that was read>."""
'''

CLAIM = '''"""Merging adapters trained apart can add more than the energies of their changes.

Source: <paper, number of the theorem, the statement as printed>. D1, D2 (n x m) are the changes of one weight by two
adapters; their merge changes it by D1 + D2.

Why one believes it: energies of unrelated changes add up. Where it breaks: two adapters that change the same output
channel in the same direction. What is true: energies add exactly when the columns of the changes are orthogonal,
as they are for adapters that write to different output channels.

    python -m theory falsify {paper}/merging         look for a counterexample
    python -m theory check {paper}/merging --write   derive the verdict and write its record
    python -m pytest theory/{paper}                  all proof-checks, the controls among them
"""

from theory.claim import Claim, Control, Reading, Repair, Setting, Source
from theory.evidence import Counterexample, WordProof
from theory.protocol import Instance

DIMS = [{{"n": 1, "m": 1}}, {{"n": 2, "m": 1}}, {{"n": 2, "m": 2}}, {{"n": 3, "m": 2}}]


# The statement as printed, before any repair. Hypotheses by k.given, conclusions by k.claim; one text for batched
# floats, exact rationals, solvers and LaTeX (theory/protocol.py explains the operations).
def statement(k, x):
    """As printed."""
    k.claim("energies", k.le(k.fro2(x.D1 + x.D2), k.fro2(x.D1) + k.fro2(x.D2)))


def repaired(k, x):
    """With the hypothesis that was missing; then there is equality."""
    k.given("orthogonal columns", k.eq(x.D1.T @ x.D2, k.zeros(x.D1.shape[1], x.D2.shape[1])))
    k.claim("energies", k.eq(k.fro2(x.D1 + x.D2), k.fro2(x.D1) + k.fro2(x.D2)))


# Instances: free rational parameters, and what is built from them so that every hypothesis holds.
def free(d):
    """Two changes, and for the repair a matrix whose columns span the outputs of the first."""
    return {{"D1": (d["n"], d["m"]), "D2": (d["n"], d["m"])}}


def build(k, t, d):
    """Any two changes."""
    return Instance(D1=t.D1, D2=t.D2)


def free_apart(d):
    """The same, and a matrix whose columns span the outputs of the first adapter."""
    return {{**free(d), "Z": (d["n"], d["n"])}}


def build_apart(k, t, d):
    """Two changes with orthogonal columns: one inside the span of Z, one outside."""
    P = k.proj(t.Z)
    return Instance(D1=P @ t.D1, D2=t.D2 - P @ t.D2)


def letters(k):
    """Matrices of any size, for proofs in every dimension."""
    return Instance(D1=k.letter("D1", "n", "m"), D2=k.letter("D2", "n", "m"))


def proof(k, x):
    """The hypothesis, used as a rule, removes the mixed term."""
    k.use("orthogonal columns")
    return {{}}


SAME = {{"D1": [["1"]], "D2": [["1"]]}}  # the smallest counterexample
APART = {{"D1": [["1"], ["0"]], "D2": [["0"], ["1"]]}}

CLAIM = Claim(
    id="{paper}/merging",
    source=Source("<paper>", "<Theorem 1>", "<version>"),
    sentence="Merging two adapters adds at most the energies of their changes.",
    headline="False for two equal changes; true, with equality, when the changes have orthogonal columns.",
    defect="missing hypothesis",
    setting=Setting(dims=DIMS, free=free, build=build, letters=letters, boundary=[SAME, APART]),
    readings=(
        Reading(
            name="as printed",
            statement=statement,
            evidence=Counterexample(SAME),
            scope="one weight",
            repair=Repair(
                sentence="If D1' D2 = 0, then |D1 + D2|^2 = |D1|^2 + |D2|^2.",
                statement=repaired,
                setting=Setting(
                    dims=DIMS, free=free_apart, build=build_apart, letters=letters, boundary=[APART]
                ),
                evidence=WordProof(proof),
                necessary={{"orthogonal columns": SAME}},
                sharp=APART,
            ),
            # Controls test the check itself: a false one must be refuted on its instance, a true one never.
            controls=(
                Control(
                    "the repair's right side larger by 1/1000",
                    statement=repaired,
                    tighten="1/1000",
                    instance=APART,
                ),
                Control("the repair", kind="true", statement=repaired),
            ),
        ),
    ),
)
'''


def paper_files(name: str) -> dict[str, str]:
    """The files of a folder of claims by their names: what it holds in words, and a claim with its verdict."""
    return {"__init__.py": PAPER, "merging.py": CLAIM.format(paper=name)}
