"""The exact kit on python-flint matrices: the same text, several times faster; used by searches and checks.

Only rational matrices live here. What needs irrational entries raises `NotHere`, and the caller falls back to
the trusted kit on `Fraction`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from itertools import pairwise
from typing import Any

from flint import fmpq, fmpq_mat, fmpq_poly

from theory.kits.exact import Exact, Rows
from theory.kits.reals import Real
from theory.protocol import Mat, NotHere


def to_fmpq(value: Any) -> Any:
    """A rational as `fmpq`."""
    if isinstance(value, fmpq):
        return value
    if isinstance(value, int):
        return fmpq(value)
    if isinstance(value, Real):
        msg = "an irrational entry in a rational matrix"
        raise NotHere(msg)
    q = Fraction(value)
    return fmpq(q.numerator, q.denominator)


def to_fraction(value: Any) -> Fraction:
    """An `fmpq` as `Fraction`."""
    return Fraction(int(value.p), int(value.q))


def _signs(coefficients: Sequence[Any]) -> tuple[int, int]:
    """How many roots are zero and how many positive, for a polynomial with real roots only (low degree first)."""
    zero = next(i for i, c in enumerate(coefficients) if c != 0)
    signs = [c > 0 for c in coefficients[zero:] if c != 0]
    return zero, sum(a != b for a, b in pairwise(signs))


class Flint(Exact):
    """Exact evaluation with `fmpq_mat`; scalars are `Fraction` or `Real`, as in the trusted kit."""

    kind = "flint"

    def make(self, rows: Rows, shape: tuple[int, int]) -> Mat:
        return Mat(self, fmpq_mat(shape[0], shape[1], [to_fmpq(v) for r in rows for v in r]), shape)

    def mat(self, rows: Sequence[Sequence[Any]], shape: tuple[int, int] | None = None) -> Mat:
        return self.make([list(r) for r in rows], shape or (len(rows), len(rows[0]) if rows else 0))

    def data(self, A: Mat) -> Rows:
        n = A.shape[1]
        flat = [to_fraction(v) for v in A.data.entries()]
        return [flat[i * n : (i + 1) * n] for i in range(A.shape[0])]

    def eye(self, n: int) -> Mat:
        return self.make([[int(i == j) for j in range(n)] for i in range(n)], (n, n))

    def zeros(self, m: int, n: int) -> Mat:
        return Mat(self, fmpq_mat(m, n), (m, n))

    def matmul(self, A: Mat, B: Mat) -> Mat:
        return Mat(self, A.data * B.data, (A.shape[0], B.shape[1]))

    def add(self, A: Mat, B: Mat) -> Mat:
        return Mat(self, A.data + B.data, A.shape)

    def scale(self, c: Any, A: Mat) -> Mat:
        return Mat(self, A.data * to_fmpq(c), A.shape)

    def transpose(self, A: Mat) -> Mat:
        return Mat(self, A.data.transpose(), (A.shape[1], A.shape[0]))

    def e(self, A: Mat, i: int, j: int) -> Any:
        return to_fraction(A.data[i, j])

    def tr(self, A: Mat) -> Any:
        return to_fraction(sum((A.data[i, i] for i in range(A.shape[0])), fmpq(0)))

    def fro2(self, A: Mat) -> Any:
        return to_fraction(sum((v * v for v in A.data.entries()), fmpq(0)))

    def is_zero(self, A: Mat) -> bool:
        return bool(A.data == fmpq_mat(*A.shape))

    def rank(self, A: Mat) -> int:
        return int(A.data.rank())

    def det(self, A: Mat) -> Any:
        return to_fraction(A.data.det())

    def echelon(self, A: Mat) -> tuple[Rows, list[int]]:
        reduced, rank = A.data.rref()
        rows = self.data(Mat(self, reduced, A.shape))[:rank]
        return rows, [next(j for j, v in enumerate(row) if v) for row in rows]

    def inertia(self, S: Mat) -> tuple[int, int, int]:
        """(positive, negative, zero) eigenvalue counts of a symmetric matrix, from its characteristic polynomial.

        All its roots are real, so Descartes' rule of signs counts the positive ones exactly.
        """
        zero, positive = _signs(S.data.charpoly().coeffs())
        return positive, S.shape[0] - zero - positive, zero

    def _counter(self, S: Mat) -> Callable[[Fraction], tuple[int, int]]:
        p = S.data.charpoly()

        def count(c: Fraction) -> tuple[int, int]:
            zero, positive = _signs(p(fmpq_poly([to_fmpq(c), 1])).coeffs())
            return positive, zero

        return count

    def _rational_eigenvalues(self, S: Mat) -> list[Fraction] | None:
        _, factors = S.data.charpoly().numer().factor()
        return [to_fraction(fmpq(-q[0], q[1])) for q, _ in factors if q.degree() == 1]

    def inv(self, A: Mat) -> Mat:
        return Mat(self, A.data.inv(), A.shape)

    def pinv(self, A: Mat) -> Mat:
        m, n = A.shape
        rank = self.rank(A)
        if rank == m == n:
            return self.inv(A)
        if rank == n:
            return self.inv(A.T @ A) @ A.T
        if rank == m:
            return A.T @ self.inv(A @ A.T)
        return super().pinv(A)
