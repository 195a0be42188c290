"""The kit of batched floats: a matrix is an array (batch, rows, columns), a scalar an array (batch,).

Untrusted: it searches, and it serves simulators with the closed forms of the theory. A relation becomes its
relative slack, which is negative where the relation fails.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from theory.protocol import Instance, Kit, Mat, NotHere, Relation, Statement

Array = Any
RCOND = 1e-9  # singular values below this share of the largest count as zero
TRIVIAL = (
    1e-9  # 0 <= 0 says nothing; both sides below this score as satisfied, or they would swallow a search
)


class Floats(Kit):
    """Batched evaluation in float64; static data (sizes, selections, ranks) are shared by the batch."""

    kind = "floats"

    def num(self, value: Any) -> Any:
        return value if isinstance(value, (float, np.ndarray)) else float(Fraction(value))

    def mat(self, rows: Any, shape: tuple[int, int] | None = None) -> Mat:
        """A matrix from an array (rows, columns) or (batch, rows, columns), or from rows of constants."""
        if not isinstance(rows, np.ndarray):
            columns = [[self.num(v) for v in r] for r in rows]
            if any(isinstance(v, np.ndarray) for r in columns for v in r):
                batch = max(np.size(v) for r in columns for v in r)
                stacked = [[np.broadcast_to(v, (batch,)) for v in r] for r in columns]
                return self.wrap(np.moveaxis(np.array(stacked), -1, 0))
            rows = np.array(columns, dtype=float).reshape(
                shape or (len(columns), len(columns[0]) if columns else 0)
            )
        return self.wrap(rows[None] if rows.ndim == 2 else rows)

    def wrap(self, a: Array) -> Mat:
        """An array (batch, rows, columns) as a matrix."""
        return Mat(self, a, (a.shape[1], a.shape[2]))

    def eye(self, n: int) -> Mat:
        return self.wrap(np.eye(n)[None])

    def zeros(self, m: int, n: int) -> Mat:
        return self.wrap(np.zeros((1, m, n)))

    def cols(self, A: Mat, S: Sequence[int]) -> Mat:
        return self.wrap(A.data[..., list(S)])

    def hcat(self, *parts: Mat) -> Mat:
        batch = max(P.data.shape[0] for P in parts)
        return self.wrap(np.concatenate([np.broadcast_to(P.data, (batch, *P.shape)) for P in parts], axis=-1))

    def kron(self, A: Mat, B: Mat) -> Mat:
        product = A.data[:, :, None, :, None] * B.data[:, None, :, None, :]
        return self.wrap(product.reshape(product.shape[0], A.shape[0] * B.shape[0], A.shape[1] * B.shape[1]))

    def had(self, A: Mat, B: Mat) -> Mat:
        return self.wrap(A.data * B.data)

    def diag(self, A: Mat) -> Mat:
        return self.wrap(A.data * np.eye(*A.shape))

    def diagm(self, v: Mat, m: int, n: int) -> Mat:
        k = min(m, n, v.shape[1])
        out = np.zeros((v.data.shape[0], m, n))
        out[:, range(k), range(k)] = v.data[:, 0, :k]
        return self.wrap(out)

    def matmul(self, A: Mat, B: Mat) -> Mat:
        return self.wrap(A.data @ B.data)

    def add(self, A: Mat, B: Mat) -> Mat:
        return self.wrap(A.data + B.data)

    def scale(self, c: Any, A: Mat) -> Mat:
        return self.wrap((c[:, None, None] if isinstance(c, np.ndarray) and c.ndim else float(c)) * A.data)

    def transpose(self, A: Mat) -> Mat:
        return self.wrap(np.swapaxes(A.data, -1, -2))

    def e(self, A: Mat, i: int, j: int) -> Any:
        return A.data[:, i, j]

    def tr(self, A: Mat) -> Any:
        return np.einsum("bii->b", A.data)

    def fro2(self, A: Mat) -> Any:
        return np.einsum("bij,bij->b", A.data, A.data)

    def dot(self, A: Mat, B: Mat) -> Any:
        return (A.data * B.data).sum(axis=(1, 2))

    def det(self, A: Mat) -> Any:
        return np.linalg.det(A.data)

    def _spectrum(self, A: Mat) -> Array:
        return np.linalg.svd(A.data, compute_uv=False)

    def rank(self, A: Mat) -> Any:
        if min(A.shape) == 0:
            return np.zeros(A.data.shape[0])
        values = self._spectrum(A)
        return (values > RCOND * (values[:, :1] + 1e-300)).sum(axis=1).astype(float)

    def eig(self, S: Mat, i: int) -> Any:
        return np.linalg.eigvalsh(S.data)[:, -i]

    def sv(self, A: Mat, i: int) -> Any:
        if i > min(A.shape):
            return np.zeros(A.data.shape[0])
        return self._spectrum(A)[:, i - 1]

    def nuc(self, A: Mat) -> Any:
        return self._spectrum(A).sum(axis=1)

    def tail2(self, A: Mat, r: int) -> Any:
        return (self._spectrum(A)[:, r:] ** 2).sum(axis=1)

    def sqrt(self, a: Any) -> Any:
        return np.sqrt(np.maximum(a, 0))

    def min_(self, a: Any, b: Any) -> Any:
        return np.minimum(a, b)

    def max_(self, a: Any, b: Any) -> Any:
        return np.maximum(a, b)

    def inv(self, A: Mat) -> Mat:
        return self.wrap(np.linalg.pinv(A.data, rcond=1e-13))  # a singular member must not stop the batch

    def pinv(self, A: Mat) -> Mat:
        return self.wrap(np.linalg.pinv(A.data, rcond=RCOND))

    def sqrtm(self, S: Mat, label: str) -> Mat:
        values, V = np.linalg.eigh((S.data + np.swapaxes(S.data, 1, 2)) / 2)
        # the root of rounding noise would survive RCOND in a later pseudo-inverse
        values = np.where(values < 1e-13 * np.abs(values).max(axis=1, keepdims=True, initial=0), 0, values)
        return self.wrap((V * np.sqrt(np.maximum(values, 0))[:, None]) @ np.swapaxes(V, 1, 2))

    def svd_r(self, A: Mat, r: int, label: str) -> Mat:
        U, values, Vt = np.linalg.svd(A.data, full_matrices=False)
        return self.wrap((U[..., :r] * values[:, None, :r]) @ Vt[:, :r])

    # -- relations become slacks ----------------------------------------------------------------------------
    def slack(self, relation: Relation) -> Array:
        """The relative slack of a relation: an array (batch,), negative where it fails."""
        args = relation.args
        match relation.op:
            case "le":
                return self._order(*args)
            case "lt":
                size = np.abs(args[0]) + np.abs(args[1])
                return np.where(size < TRIVIAL, -1e-6, self._order(*args))
            case "eq":
                return self._equal(*args)
            case "psd":
                S = args[0].data
                values = np.linalg.eigvalsh((S + np.swapaxes(S, 1, 2)) / 2)
                slack = values[:, 0] / (np.abs(values).max(axis=1) + 1e-12)
                return np.minimum(slack, np.where(self._equal(args[0], args[0].T) < -1e-9, -1.0, 1.0))
            case "rank_le":
                A, r = args
                if r >= min(A.shape):
                    return np.ones(A.data.shape[0])
                values = self._spectrum(A)
                return np.where(
                    values[:, r] <= RCOND * values[:, 0], 1.0, -values[:, r] / (values[:, 0] + 1e-300)
                )
            case "all":
                return np.minimum.reduce(np.broadcast_arrays(*(self.slack(part) for part in args)))
            case "any":
                return np.maximum.reduce(np.broadcast_arrays(*(self.slack(part) for part in args)))
        msg = f"relation {relation.op!r}"
        raise NotHere(msg)

    def _order(self, a: Any, b: Any) -> Array:
        size = np.abs(a) + np.abs(b)
        return np.where(size < TRIVIAL, 1.0, (b - a) / (size + 1e-300))

    def _equal(self, a: Any, b: Any) -> Array:
        if isinstance(a, Mat):
            gap, size = np.sqrt(self.fro2(a - b)), np.sqrt(self.fro2(a)) + np.sqrt(self.fro2(b))
        else:
            gap, size = np.abs(a - b), np.abs(a) + np.abs(b)
        return -gap / (size + 1e-12) + 0.0

    def run(self, statement: Statement, x: Instance, **changes: Any) -> tuple[Array, Array]:
        """The smallest slack over the hypotheses and over the conclusions: two arrays (batch,).

        A conclusion that is not a number (overflow, division by zero) scores as satisfied: nothing was found.
        """
        with np.errstate(all="ignore"):
            givens, claims = self.collect(statement, x, **changes)
            slacks = [[np.asarray(self.slack(r), dtype=float) for _, r in part] for part in (givens, claims)]
        batch = max((s.size for part in slacks for s in part), default=1)

        def worst(part: list[Array], missing: float) -> Array:
            if not part:
                return np.full(batch, 1.0)
            rows = [np.broadcast_to(np.where(np.isfinite(s), s, missing), (batch,)) for s in part]
            return np.minimum.reduce(rows)

        return worst(slacks[0], -1.0), worst(slacks[1], 1.0)
