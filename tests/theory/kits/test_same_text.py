"""One text on several kits: flint agrees with Fraction exactly, floats agree to rounding."""

from __future__ import annotations

import random
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from theory.kits import reals
from theory.kits.exact import Exact
from theory.kits.flint import Flint
from theory.kits.floats import Floats
from theory.protocol import Instance, Mat, Undecided
from theory.search.scoring import Scored, Sized

SCALARS = {
    "trace": lambda k, A, B, S: k.tr(A @ B.T),
    "Frobenius": lambda k, A, B, S: k.fro2(A - B),
    "inner product": lambda k, A, B, S: k.dot(A, B),
    "determinant": lambda k, A, B, S: k.det(S),
    "rank": lambda k, A, B, S: k.rank(A),
    "entry": lambda k, A, B, S: k.e(A, 1, 2) * 3 - 1,
    "largest singular value": lambda k, A, B, S: k.sv(A, 1),
    "second singular value": lambda k, A, B, S: k.sv(A, 2),
    "nuclear norm": lambda k, A, B, S: k.nuc(A),
    "tail": lambda k, A, B, S: k.tail2(A, 1),
    "largest eigenvalue": lambda k, A, B, S: k.eig(S, 1),
    "smallest eigenvalue": lambda k, A, B, S: k.eig(S, 3),
    "root": lambda k, A, B, S: k.sqrt(k.fro2(A)),
    "condition": lambda k, A, B, S: k.kap(A),
    "smaller": lambda k, A, B, S: k.min_(k.tr(S), k.num(3)),
    "larger": lambda k, A, B, S: k.max_(k.tr(S), k.num(3)),
    "absolute value": lambda k, A, B, S: k.abs_(k.e(A, 0, 0) - 5),
    "positive part": lambda k, A, B, S: k.pos_part(k.e(A, 0, 0)),
    "quotient": lambda k, A, B, S: (1 - k.tr(S)) / (1 + k.fro2(A)),
}
MATRICES = {
    "product": lambda k, A, B, S: A @ B.T @ S,
    "pseudo-inverse": lambda k, A, B, S: k.pinv(A),
    "projector": lambda k, A, B, S: k.proj(A),
    "inverse": lambda k, A, B, S: k.inv(k.eye(3) + S),
    "Kronecker": lambda k, A, B, S: k.kron(A, B),
    "Hadamard": lambda k, A, B, S: k.had(A, B),
    "blocks": lambda k, A, B, S: k.vcat(k.hcat(A, B), k.hcat(B, k.zeros(3, 4))),
    "columns and rows": lambda k, A, B, S: k.rows(k.cols(A, [2, 0]), [1, 2]),
    "diagonal": lambda k, A, B, S: k.diag(S) + k.diagm(k.mat([[1, "1/2", 3]]), 3, 3),
    "Cayley": lambda k, A, B, S: k.skew_orth(S @ k.mat([[0, 1, 2], [0, 0, 1], [0, 0, 0]])),
    "rational rank-one part": lambda k, A, B, S: k.svd_r(k.mat([[3, 0], [0, 1]]), 1, "part"),
    "root of a diagonal": lambda k, A, B, S: k.sqrtm(k.mat([[4, 0], [0, "1/9"]]), "root"),
    "unit": lambda k, A, B, S: 2 * k.unit(3, 4, 1, 2) - A,
}


def instance(seed: int) -> list[list[list[Fraction]]]:
    rng = random.Random(seed)
    rank = 1 + seed % 3
    F = [[rng.randint(-3, 3) for _ in range(rank)] for _ in range(3)]
    G = [[Fraction(rng.randint(-3, 3), rng.randint(1, 3)) for _ in range(4)] for _ in range(rank)]
    A = [
        [sum((f * g for f, g in zip(r, c, strict=True)), Fraction(0)) for c in zip(*G, strict=True)]
        for r in F
    ]
    A[0][0] += seed % 2
    B = [[Fraction(rng.randint(-4, 4), rng.randint(1, 4)) for _ in range(4)] for _ in range(3)]
    S = [[sum((a * b for a, b in zip(p, q, strict=True)), Fraction(0)) for q in A] for p in A]
    return [A, B, S]


def on(kit: Any, function: Any, seed: int) -> Any:
    value = function(kit, *(kit.mat(M) for M in instance(seed)))
    return kit.data(value) if isinstance(value, Mat) and isinstance(kit, Exact) else value


@pytest.mark.parametrize("name", MATRICES)
def test_matrices_agree(name):
    for seed in range(6):
        exact, flint = (on(kit(), MATRICES[name], seed) for kit in (Exact, Flint))
        assert exact == flint
        for kit in (Floats(), Scored()):
            value = on(kit, MATRICES[name], seed)
            wanted = np.array([[float(v) for v in r] for r in exact])
            assert value.shape == wanted.shape
            assert np.allclose(value.data[0], wanted, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("name", SCALARS)
def test_scalars_agree(name):
    for seed in range(6):
        exact, flint = (on(kit(), SCALARS[name], seed) for kit in (Exact, Flint))
        low, high = reals.Real.of(exact).enclose(60)
        low_f, high_f = reals.Real.of(flint).enclose(60)
        assert low <= high_f
        assert low_f <= high
        for kit in (Floats(), Scored()):
            value = on(kit, SCALARS[name], seed)
            value = value.value if isinstance(value, Sized) else value
            assert float(np.ravel(value)[0]) == pytest.approx(reals.midpoint(exact), rel=1e-7, abs=1e-7)


def test_inertia_by_signs_of_the_characteristic_polynomial_is_that_of_elimination():
    for seed in range(30):
        rng = random.Random(seed)
        n = 1 + seed % 5
        C = [[rng.randint(-2, 2) for _ in range(n)] for _ in range(n)]
        S = [[C[i][j] + C[j][i] if seed % 3 else C[min(i, j)][min(i, j)] for j in range(n)] for i in range(n)]
        assert Exact().inertia(Exact().mat(S)) == Flint().inertia(Flint().mat(S))


def test_rational_eigenvalues_are_recognised_by_both_kits():
    rows = [[2, 1, 0], [1, 2, 0], [0, 0, "1/3"]]
    for kit in (Exact(), Flint()):
        S = kit.mat(rows)
        assert [kit.eig(S, i) for i in (1, 2, 3)] == [3, 1, Fraction(1, 3)]
        golden = kit.eig(kit.mat([[1, 1], [1, 0]]), 1)
        assert isinstance(golden, reals.Real)
        assert reals.compare(golden, Fraction(1618033988749894, 10**15)) > 0


def test_an_equality_of_irrational_parts_is_undecided_never_broken():
    def equivariant(k, x):
        k.claim("same", k.eq(k.svd_r(x.M @ x.Q, 1, "left"), k.svd_r(x.M, 1, "right") @ x.Q))

    kit = Exact()
    with pytest.raises(Undecided):
        kit.run(equivariant, Instance(M=kit.mat([[2, 1], [0, 1]]), Q=kit.eye(2)))


def test_a_matrix_without_entries_is_no_special_case():
    for kit in (Exact(), Flint(), Floats()):
        E = kit.zeros(3, 0)
        assert (E @ E.T).shape == (3, 3)
        assert kit.hcat(E, kit.eye(3)).shape == (3, 3)
        assert kit.pinv(kit.zeros(2, 3)).shape == (3, 2)


@pytest.mark.parametrize("kit", [Exact, Flint])
def test_relations_are_decided(kit):
    k = kit()
    S = k.mat([[1, 2], [2, 4]])
    yes = [k.psd(S), k.le(1, 1), k.lt(k.sqrt(k.num(2)), k.num("3/2")), k.rank_le(S, 1), k.sym(S)]
    no = [
        k.psd(S - k.eye(2)),
        k.lt(1, 1),
        k.eq(k.sqrt(k.num(2)), k.num("7/5")),
        k.rank_le(S, 0),
        k.psd(k.mat([[1, 1], [0, 1]])),
    ]
    assert all(k.decide(r) for r in yes)
    assert not any(k.decide(r) for r in no)
    assert k.decide(k.all_(*yes)) is True
    assert k.decide(k.all_(*yes, no[0])) is False
    assert k.decide(k.any_(*no, yes[0])) is True
    assert k.decide(k.any_(*no)) is False
