"""The kit of degrees: the error bound of polynomial identity testing, by running the same text.

Every object is a rational function of the free parameters; a value carries bounds (numerator degree,
denominator degree), a matrix one common denominator. If an identity is false, its numerator is a non-zero
polynomial of degree at most d, which vanishes at a point with coordinates uniform in a set of N numbers with
probability at most d / N (Schwartz, Zippel). The generic rank at each pseudo-inverse is observed in an exact
run and handed over in the order of the calls. Standard library only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from theory.kits.exact import Exact
from theory.protocol import Instance, Kit, Mat, NotHere, Relation, Statement


@dataclass(frozen=True)
class Degree:
    """Bounds on the degrees of a numerator and a denominator."""

    top: int
    bottom: int = 0

    def __add__(self, other: Any) -> Degree:
        o = of(other)
        if self.bottom == o.bottom == 0:
            return Degree(max(self.top, o.top))
        return Degree(max(self.top + o.bottom, o.top + self.bottom), self.bottom + o.bottom)

    __radd__ = __sub__ = __rsub__ = __add__

    def __neg__(self) -> Degree:
        return self

    def __mul__(self, other: Any) -> Any:
        if isinstance(other, Mat):
            return other.kit.scale(self, other)
        o = of(other)
        return Degree(self.top + o.top, self.bottom + o.bottom)

    __rmul__ = __mul__

    def __truediv__(self, other: Any) -> Degree:
        o = of(other)
        return Degree(self.top + o.bottom, self.bottom + o.top)

    def __rtruediv__(self, other: Any) -> Degree:
        return of(other) / self


def of(value: Any) -> Degree:
    """Constants have degree zero."""
    return value if isinstance(value, Degree) else Degree(0)


class Degrees(Kit):
    """Degree counting; ``ranks`` are the generic ranks of the pseudo-inverses, in the order of the calls."""

    kind = "degrees"

    def __init__(self, ranks: Sequence[int]) -> None:
        super().__init__()
        self.ranks = list(ranks)
        self._hints: dict[str, Mat] = {}

    def num(self, value: Any) -> Any:
        return of(value)

    def hint(self, label: str, value: Mat) -> None:
        self._hints[label] = value

    def sqrtm(self, S: Mat, label: str) -> Mat:
        return self._hinted(label)

    def svd_r(self, A: Mat, r: int, label: str) -> Mat:
        return self._hinted(label)

    def _hinted(self, label: str) -> Mat:
        if label not in self._hints:
            msg = f"`build` gives no rational expression for {label} (use k.hint)"
            raise NotHere(msg)
        return self._hints[label]

    def mat(self, rows: Any, shape: Any = None) -> Mat:
        entries = [of(v) for r in rows for v in r]
        if any(d.bottom for d in entries):
            msg = "a matrix written entry by entry from fractions"
            raise NotHere(msg)
        return Mat(self, Degree(max((d.top for d in entries), default=0)), shape or (len(rows), len(rows[0])))

    def eye(self, n: int) -> Mat:
        return Mat(self, Degree(0), (n, n))

    def zeros(self, m: int, n: int) -> Mat:
        return Mat(self, Degree(0), (m, n))

    def cols(self, A: Mat, S: Sequence[int]) -> Mat:
        return Mat(self, A.data, (A.shape[0], len(S)))

    def hcat(self, *parts: Mat) -> Mat:
        total = Degree(0)
        for P in parts:
            total = total + P.data
        return Mat(self, total, (parts[0].shape[0], sum(P.shape[1] for P in parts)))

    def kron(self, A: Mat, B: Mat) -> Mat:
        return Mat(self, A.data * B.data, (A.shape[0] * B.shape[0], A.shape[1] * B.shape[1]))

    def had(self, A: Mat, B: Mat) -> Mat:
        return Mat(self, A.data * B.data, A.shape)

    def diag(self, A: Mat) -> Mat:
        return A

    def diagm(self, v: Mat, m: int, n: int) -> Mat:
        return Mat(self, v.data, (m, n))

    def matmul(self, A: Mat, B: Mat) -> Mat:
        return Mat(self, A.data * B.data, (A.shape[0], B.shape[1]))

    def add(self, A: Mat, B: Mat) -> Mat:
        return Mat(self, A.data + B.data, A.shape)

    def scale(self, c: Any, A: Mat) -> Mat:
        return Mat(self, of(c) * A.data, A.shape)

    def transpose(self, A: Mat) -> Mat:
        return Mat(self, A.data, (A.shape[1], A.shape[0]))

    def e(self, A: Mat, i: int, j: int) -> Any:
        return A.data

    def tr(self, A: Mat) -> Any:
        return A.data

    def rank(self, A: Mat) -> Any:
        return Degree(0)  # a number: generically constant

    def det(self, A: Mat) -> Any:
        n = A.shape[0]
        return Degree(n * A.data.top, n * A.data.bottom)

    def inv(self, A: Mat) -> Mat:
        n, d = A.shape[0], A.data  # adjugate over determinant
        return Mat(self, Degree((n - 1) * d.top + d.bottom, n * d.top), A.shape)

    def pinv(self, A: Mat) -> Mat:
        # A+ is a quotient of forms in A of degrees 2 rank - 1 and 2 rank (sums over rank x rank minors)
        rank, d = self.ranks.pop(0), A.data
        top = (2 * rank - 1) * d.top + d.bottom if rank else 0
        return Mat(self, Degree(top, 2 * rank * d.top), (A.shape[1], A.shape[0]))

    def bound(self, statement: Statement, x: Instance) -> int:
        """An upper bound on the degree of any numerator whose vanishing the statement claims."""
        _, claims = self.collect(statement, x)
        return max(self._numerator(relation) for _, relation in claims)

    def _numerator(self, relation: Relation) -> int:
        if relation.op != "eq":
            msg = "identity testing decides equalities only"
            raise NotHere(msg)
        a, b = (v.data if isinstance(v, Mat) else of(v) for v in relation.args)
        return int((a + b).top)


class RankLog(Exact):
    """The trusted kit, noting the rank at each pseudo-inverse in the order of the calls."""

    def __init__(self) -> None:
        super().__init__()
        self.ranks: list[int] = []

    def pinv(self, A: Mat) -> Mat:
        self.ranks.append(self.rank(A))
        return super().pinv(A)
