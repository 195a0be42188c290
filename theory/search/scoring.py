"""Batched scores: how near an instance is to a counterexample, with the part that rounding explains.

`Scored` is the kit of floats in which every scalar and every matrix also carries the *size* of the terms it was
made from. A difference far below that size is rounding, a difference above it is a finding, and ``0 <= v``
gets a slope (v over the size of its terms) where the plain ratio only knows -1 and +1.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from theory.kits.floats import Floats
from theory.protocol import Instance, Mat, NotHere, Relation, Statement

Array = Any
ROUNDING = 1e-13  # rounding of one operation, as a share of the size of its terms (generous)
CLEAR = 1e-9  # a relative violation below this is never called clear
MOVE = 1e-15  # by how much an instance is moved to see what rounding does
MOVED = 30 / ROUNDING  # size of terms whose rounding is 30 times the movement of both sides


class _Length:
    """How many numbers and matrices one evaluation has made, and how many it may make: a count, not a clock."""

    made = 0
    most: int | None = None


@contextmanager
def _at_most(most: int | None) -> Iterator[None]:
    """Limit what is evaluated inside to so many numbers and matrices."""
    _Length.made, _Length.most = 0, most
    try:
        yield
    finally:
        _Length.most = None


class Sized:
    """A scalar of a batch: ``value`` (batch,) and ``size`` (batch,), the sum of the sizes of its terms."""

    __array_ufunc__ = None
    __slots__ = ("size", "value")

    def __init__(self, value: Array, size: Array | None = None) -> None:
        self.value = value
        self.size = np.abs(value) if size is None else size
        _Length.made += 1
        if _Length.most is not None and _Length.made > _Length.most:
            msg = f"one evaluation takes more than {_Length.most} operations"
            raise NotHere(msg)

    @property
    def ndim(self) -> int:
        """Of the values: entrywise functions broadcast scalars of a batch against matrices."""
        return int(np.ndim(self.value))

    def __getitem__(self, place: Any) -> Array:
        return self.value[place]

    @staticmethod
    def of(value: Any) -> Sized:
        """A plain number or array as a sized scalar."""
        return value if isinstance(value, Sized) else Sized(np.asarray(value, dtype=float))

    def __add__(self, other: Any) -> Sized:
        o = Sized.of(other)
        return Sized(self.value + o.value, self.size + o.size)

    __radd__ = __add__

    def __neg__(self) -> Sized:
        return Sized(-self.value, self.size)

    def __sub__(self, other: Any) -> Sized:
        o = Sized.of(other)
        return Sized(self.value - o.value, self.size + o.size)

    def __rsub__(self, other: Any) -> Sized:
        return Sized.of(other) - self

    def __mul__(self, other: Any) -> Any:
        if isinstance(other, Mat):
            return other.kit.scale(self, other)
        o = Sized.of(other)
        return Sized(self.value * o.value, self.size * o.size)

    __rmul__ = __mul__

    def __truediv__(self, other: Any) -> Sized:
        o = Sized.of(other)
        value = self.value / o.value
        return Sized(value, self.size / np.abs(o.value) + np.abs(value) * o.size / np.abs(o.value))

    def __rtruediv__(self, other: Any) -> Sized:
        return Sized.of(other) / self


class SizedMat(Mat):
    """A matrix of a batch with a bound on the size of the terms its entries were made from."""

    __slots__ = ("_size",)

    def __init__(self, kit: Any, data: Array, shape: tuple[int, int], size: Array | None = None) -> None:
        super().__init__(kit, data, shape)
        self._size = size

    @property
    def size(self) -> Array:
        """The size of the terms, (batch,); the Frobenius norm where nothing else is known."""
        if self._size is None:
            self._size = np.sqrt(np.einsum("bij,bij->b", self.data, self.data))
        return self._size


@dataclass
class Slack:
    """Relative slack of a relation (negative: it fails) and the slack that rounding alone may explain."""

    value: Array
    noise: Array


class Scored(Floats):
    """Floats with sizes. ``mode`` "ratio" scores ``a <= b`` by the ratio of its sides, "terms" by their sizes."""

    kind = "floats"

    def __init__(self, mode: str = "ratio", most: int | None = None) -> None:
        super().__init__()
        self.mode = mode
        self.most = most  # operations that one evaluation may take
        self.critical: list[
            Array
        ] = []  # how near each rank, inverse or gap of the text is to changing, 0 to 1

    # -- carrying sizes -----------------------------------------------------------------------------------
    def num(self, value: Any) -> Any:
        return value if isinstance(value, Sized) else super().num(value)

    def wrap(self, a: Array) -> Mat:
        return SizedMat(self, a, (a.shape[1], a.shape[2]))

    def sized(self, a: Array, size: Array) -> Mat:
        """A matrix whose terms are of the given size."""
        return SizedMat(self, a, (a.shape[1], a.shape[2]), size)

    def mat(self, rows: Any, shape: tuple[int, int] | None = None) -> Mat:
        if not isinstance(rows, np.ndarray):
            sizes = [v.size for r in rows for v in r if isinstance(v, Sized)]
            plain = [[v.value if isinstance(v, Sized) else v for v in r] for r in rows]
            out = super().mat(plain, shape)
            return self.sized(out.data, sum(sizes, out.size)) if sizes else out  # type: ignore[attr-defined]
        return super().mat(rows, shape)

    def adopt(self, x: Instance) -> Instance:
        """An instance of the plain kit of floats as one of this kit."""
        out = Instance()
        for name, value in x.items():
            if isinstance(value, Mat):
                out[name] = self.wrap(value.data)
            elif isinstance(value, (float, np.ndarray)):
                out[name] = Sized.of(value)
            else:
                out[name] = value
        return out

    def matmul(self, A: Any, B: Any) -> Mat:
        return self.sized(A.data @ B.data, A.size * B.size)

    def add(self, A: Any, B: Any) -> Mat:
        return self.sized(A.data + B.data, A.size + B.size)

    def scale(self, c: Any, A: Any) -> Mat:
        if isinstance(c, Sized):
            value = np.atleast_1d(c.value)
            return self.sized(value[:, None, None] * A.data, c.size * A.size)
        c = np.asarray(c, dtype=float)
        return self.sized((c[:, None, None] if c.ndim else c) * A.data, np.abs(c) * A.size)

    def transpose(self, A: Any) -> Mat:
        return self.sized(np.swapaxes(A.data, -1, -2), A.size)

    def cols(self, A: Any, S: Sequence[int]) -> Mat:
        return self.sized(A.data[..., list(S)], A.size)

    def hcat(self, *parts: Any) -> Mat:
        return self.sized(super().hcat(*parts).data, sum((P.size for P in parts[1:]), parts[0].size))

    def diagm(self, v: Any, m: int, n: int) -> Mat:
        return self.sized(super().diagm(v, m, n).data, v.size)

    def diag(self, A: Any) -> Mat:
        return self.sized(super().diag(A).data, A.size)

    # -- scalars ------------------------------------------------------------------------------------------
    def e(self, A: Any, i: int, j: int) -> Any:
        return Sized(A.data[:, i, j], A.size)

    def tr(self, A: Any) -> Any:
        return Sized(np.einsum("bii->b", A.data), A.size)

    def fro2(self, A: Any) -> Any:
        return Sized(super().fro2(A), A.size**2)

    def dot(self, A: Any, B: Any) -> Any:
        return Sized(super().dot(A, B), A.size * B.size)

    def det(self, A: Any) -> Any:
        n = max(A.shape[0], 1)
        value = super().det(A)
        self.critical.append(np.abs(value) ** (1 / n) / (A.size / np.sqrt(n) + 1e-300))
        return Sized(value, (A.size / np.sqrt(n)) ** n)

    def rank(self, A: Any) -> Any:
        if min(A.shape) == 0:
            return Sized(np.zeros(A.data.shape[0]))
        values = self._spectrum(A)
        self.critical.append(values[:, 0] / (A.size + 1e-300))
        self.critical += [values[:, i] / (values[:, 0] + 1e-300) for i in range(1, min(A.shape))]
        floor = np.maximum(1e-9 * values[:, :1], 1e-13 * np.atleast_1d(A.size)[:, None])
        return Sized((values > floor).sum(axis=1).astype(float))

    def eig(self, S: Any, i: int) -> Any:
        values = np.linalg.eigvalsh(S.data)
        if i < S.shape[0]:
            self.critical.append((values[:, -i] - values[:, -i - 1]) / (np.abs(values).max(axis=1) + 1e-300))
        return Sized(values[:, -i], S.size)

    def sv(self, A: Any, i: int) -> Any:
        if i > min(A.shape):
            return Sized(np.zeros(A.data.shape[0]))
        return Sized(self._spectrum(A)[:, i - 1], A.size)

    def nuc(self, A: Any) -> Any:
        return Sized(super().nuc(A), A.size * np.sqrt(min(A.shape)))

    def tail2(self, A: Any, r: int) -> Any:
        return Sized(super().tail2(A, r), A.size**2)

    def sqrt(self, a: Any) -> Any:
        a = Sized.of(a)
        root = np.sqrt(np.maximum(a.value, 0))
        return Sized(root, np.minimum(a.size / (root + 1e-300), 1e6 * np.sqrt(a.size)) + root)

    def min_(self, a: Any, b: Any) -> Any:
        a, b = Sized.of(a), Sized.of(b)
        return Sized(np.minimum(a.value, b.value), np.maximum(a.size, b.size))

    def max_(self, a: Any, b: Any) -> Any:
        a, b = Sized.of(a), Sized.of(b)
        return Sized(np.maximum(a.value, b.value), np.maximum(a.size, b.size))

    # -- defined objects ----------------------------------------------------------------------------------
    def _conditioned(self, A: Any, Y: Mat) -> Mat:
        """An inverse amplifies rounding by the condition number: its size says so."""
        norm = np.sqrt(np.einsum("bij,bij->b", Y.data, Y.data))
        self.critical.append(1 / (norm * A.size + 1e-300))
        return self.sized(Y.data, norm * np.maximum(1.0, np.minimum(norm * A.size, 1e8)))

    def inv(self, A: Any) -> Mat:
        return self._conditioned(A, super().inv(A))

    def pinv(self, A: Any) -> Mat:
        return self._conditioned(A, super().pinv(A))

    def svd_r(self, A: Any, r: int, label: str) -> Mat:
        """The best rank-r part; at a tie one of the legal choices is drawn, not always LAPACK's."""
        U, values, Vt = np.linalg.svd(A.data, full_matrices=False)
        out = (U[..., :r] * values[:, None, :r]) @ Vt[:, :r]
        if 0 < r < min(A.shape):
            gap = (values[:, r - 1] - values[:, r]) / (values[:, 0] + 1e-300)
            self.critical.append(gap)
            tied = np.flatnonzero((gap < 1e-10) & (values[:, r - 1] > 1e-9 * values[:, 0]))
            if tied.size:
                out[tied] = _drawn_part(A.data[tied], values[tied], Vt[tied], r)
        return self.sized(out, A.size)

    # -- relations ----------------------------------------------------------------------------------------
    def judge(self, relation: Relation, again: Relation | None = None) -> Slack:
        """Slack and noise of a relation, each an array (batch,) or (1,).

        Args:
            relation: The relation.
            again: The same relation of slightly moved instances; what moves least is the measure of rounding.
        """
        args = relation.args
        match relation.op:
            case "le" | "lt":
                a, b = Sized.of(args[0]), Sized.of(args[1])
                moved = None
                if again is not None:
                    moved = sum(
                        np.abs(v.value - Sized.of(w).value) for v, w in zip((a, b), again.args, strict=True)
                    )
                return self._judge_order(a, b, relation.op == "lt", moved)
            case "eq":
                return self._judge_equal(*args)
            case "psd":
                S = args[0]
                values = np.linalg.eigvalsh((S.data + np.swapaxes(S.data, 1, 2)) / 2)
                size = np.maximum(np.abs(values).max(axis=1), 1e-300)
                noise = ROUNDING * S.size / size
                skew = self._judge_equal(S, S.T)
                broken = skew.value < -np.maximum(CLEAR, 8 * skew.noise)
                return Slack(np.where(broken, skew.value, values[:, 0] / size), noise)
            case "rank_le":
                A, r = args
                if r >= min(A.shape):
                    return Slack(np.ones(A.data.shape[0]), np.zeros(1))
                values = self._spectrum(A)
                self.critical.append(values[:, r] / (values[:, 0] + 1e-300))
                return Slack(
                    -values[:, r] / (values[:, 0] + 1e-300), ROUNDING * A.size / (values[:, 0] + 1e-300)
                )
            case "all" | "any":
                others = again.args if again is not None else [None] * len(args)
                parts = [self.judge(part, other) for part, other in zip(args, others, strict=True)]
                out = parts[0]
                for part in parts[1:]:
                    first = out.value <= part.value if relation.op == "all" else out.value >= part.value
                    out = Slack(
                        np.where(first, out.value, part.value), np.where(first, out.noise, part.noise)
                    )
                return out
        msg = f"relation {relation.op!r}"
        raise NotHere(msg)

    def _judge_order(self, a: Sized, b: Sized, strict: bool, moved: Array | None = None) -> Slack:
        size = a.size + b.size + 1e-300
        if moved is not None:
            size = np.minimum(size, np.where(np.isfinite(moved), MOVED * moved, size) + 1e-300)
            size = np.maximum(size, np.abs(a.value) + np.abs(b.value))
        one_sided = bool(np.all(a.size == 0) or np.all(b.size == 0))
        sides = size if one_sided or self.mode == "terms" else np.abs(a.value) + np.abs(b.value) + 1e-300
        noise = ROUNDING * size / sides
        gap = (b.value - a.value) / sides
        if strict:  # 0 < 0 is a finding; so is any difference that rounding explains
            return Slack(np.where(np.abs(gap) <= 100 * noise, -1e-6, gap), np.minimum(noise, 1e-9))
        trivial = np.abs(a.value) + np.abs(b.value) <= 1e-12 * size  # 0 <= 0 has no slack worth climbing to
        return Slack(np.where(trivial, 1.0, gap), noise)

    def _judge_equal(self, a: Any, b: Any) -> Slack:
        if isinstance(a, Mat):
            size = a.size + b.size  # type: ignore[attr-defined]
            gap = np.sqrt(super().fro2(a - b))
            sides = np.sqrt(super().fro2(a)) + np.sqrt(super().fro2(b)) + 1e-300
        else:
            a, b = Sized.of(a), Sized.of(b)
            size, gap = a.size + b.size, np.abs(a.value - b.value)
            sides = np.abs(a.value) + np.abs(b.value) + 1e-300
        noise = 10 * ROUNDING * size / sides
        return Slack(np.where(gap <= 10 * ROUNDING * size, 0.0, -np.minimum(gap / sides, 1.0)), noise)

    def _moved(self, statement: Statement, x: Instance, **changes: Any) -> list[Relation]:
        """The conclusions on instances moved by a few units in the last place.

        Sizes bound rounding by norms, which for an algorithm of many steps is far too much: a step that shrinks
        counts like one that expands. How the sides really move tells better.
        """
        kit, rng, out = Scored(self.mode, self.most), np.random.default_rng(3), Instance()
        for name, value in x.items():
            if isinstance(value, Mat):
                out[name] = kit.wrap(value.data * (1 + MOVE * rng.standard_normal(value.data.shape)))
            elif isinstance(value, Sized):
                out[name] = Sized(value.value * (1 + MOVE * rng.standard_normal(np.shape(value.value))))
            else:
                out[name] = value
        return [relation for _, relation in kit.collect(statement, out, **changes)[1]]

    def scores(self, statement: Statement, x: Instance, batch: int, **changes: Any) -> Scores:
        """Score a batch of instances (of this kit) against the text."""
        self.critical = []
        with np.errstate(all="ignore"):
            with _at_most(self.most):
                givens, claims = self.collect(statement, x, **changes)
            violation = np.zeros(batch)
            for _, relation in givens:
                s = self.judge(relation)
                allowed = np.maximum(1e-6 if relation.op == "eq" else 1e-12, 8 * s.noise)
                value = np.where(np.isfinite(s.value), s.value, -1.0)
                violation = np.maximum(violation, np.where(value < -allowed, np.minimum(-value, 1.0), 0.0))
            slack, clear, near = np.ones(batch), np.zeros(batch, bool), np.zeros(batch, bool)
            judged = [self.judge(relation) for _, relation in claims]
            if any(np.median(s.noise) > CLEAR for s in judged):
                moved, known = self._moved(statement, x, **changes), len(self.critical)
                judged = [self.judge(r, other) for (_, r), other in zip(claims, moved, strict=True)]
                del self.critical[known:]  # noted once already
            for (_, relation), s in zip(claims, judged, strict=True):
                value = np.broadcast_to(np.where(np.isfinite(s.value), s.value, 1.0), (batch,))
                threshold = np.maximum(CLEAR, 8 * np.where(np.isfinite(s.noise), s.noise, 1.0))
                slack = np.minimum(slack, value)
                clear |= value < -threshold
                near |= (value < threshold) if relation.op in ("le", "lt", "psd") else (value < -CLEAR)
        meets = violation == 0
        objective = np.where(meets, slack, 1.0 + violation)
        critical = [np.broadcast_to(np.where(np.isfinite(c), c, 1.0), (batch,)) for c in self.critical]
        return Scores(objective, meets, meets & clear, meets & near & ~clear, critical)


@dataclass
class Scores:
    """What a batch looks like, one entry an instance.

    Attributes:
        objective: Smallest relative slack of a conclusion; above 1 where a hypothesis fails, by how much.
        meets: Every hypothesis holds up to rounding.
        clear: A conclusion fails by more than rounding explains.
        near: A conclusion holds or fails by no more than rounding: only exact arithmetic can tell.
        critical: For each rank, inverse, gap or determinant of the text, how near it is to changing (0: at it).
    """

    objective: Array
    meets: Array
    clear: Array
    near: Array
    critical: list[Array]


def _drawn_part(A: Array, values: Array, Vt: Array, r: int) -> Array:
    """Best rank-r parts of matrices with a tie at r, the tied singular vectors drawn at random."""
    batch, n = A.shape[0], A.shape[2]
    V = np.swapaxes(Vt, 1, 2)
    cut = values[:, r - 1 : r]
    above = V * (values > cut * (1 + 1e-9))[:, None]
    tie = V * (np.abs(values - cut) <= 1e-9 * cut)[:, None]
    rng = np.random.default_rng(20)
    draws = rng.integers(-2, 3, (batch, n, r)) + 1e-3 * rng.standard_normal((batch, n, r))
    inside = tie @ (np.swapaxes(tie, 1, 2) @ draws)
    out = A @ above @ np.swapaxes(above, 1, 2)
    need = r - (values > cut * (1 + 1e-9)).sum(axis=1)
    for count in np.unique(need):
        rows = np.flatnonzero(need == count)
        Q = np.linalg.qr(inside[rows][:, :, :count])[0]
        out[rows] += A[rows] @ Q @ np.swapaxes(Q, 1, 2)
    return out
