"""The vocabulary in which a claim is written down, once, for every way of evaluating it.

A claim's text is a function ``statement(k, x)``. It reads an instance ``x`` and speaks to a kit ``k`` only
through the operations below. The same text then runs on batched floats (search), on exact rationals (flint
for speed, the standard library for trust), on terms of a solver, on degrees (error bound of polynomial
identity testing), on words of a free algebra (proofs for every dimension) and on LaTeX (pages).

Defined objects (pseudo-inverse, roots, SVD_r) are *relations*: floats compute them, the exact kit verifies
them, the solver introduces fresh variables, the word kit introduces letters with rewriting rules.

Standard library only: the trusted kit imports this file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any


class Undecided(Exception):
    """An exact question that the available enclosures or witnesses cannot answer."""


class NotHere(Exception):
    """This kit cannot express the operation; the stage that uses it does not apply."""


class BadWitness(Exception):
    """A stored witness does not satisfy the defining relations of the object it stands for."""


class Instance(dict[str, Any]):
    """The concrete objects that a claim quantifies over, as attributes: matrices, numbers, static data."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            msg = f"the instance has no {name!r}; it has {', '.join(self)}"
            raise AttributeError(msg) from None


class Mat:
    """A matrix of some kit: ``data`` is the kit's own representation, ``shape`` is (rows, columns)."""

    __array_ufunc__ = None  # numpy must leave `scalar * Mat` to __rmul__
    __slots__ = ("data", "kit", "shape")

    def __init__(self, kit: Kit, data: Any, shape: tuple[Any, Any]) -> None:
        self.kit, self.data, self.shape = kit, data, shape

    def __matmul__(self, other: Mat) -> Mat:
        if self.shape[1] != other.shape[0]:
            msg = f"shapes do not multiply: {self.shape} @ {other.shape}"
            raise ValueError(msg)
        return self.kit.matmul(self, other)

    def __add__(self, other: Mat) -> Mat:
        return self.kit.add(self, self.kit.same_shape(self, other))

    def __sub__(self, other: Mat) -> Mat:
        return self.kit.add(self, self.kit.scale(-1, self.kit.same_shape(self, other)))

    def __neg__(self) -> Mat:
        return self.kit.scale(-1, self)

    def __rmul__(self, scalar: Any) -> Mat:
        return self.kit.scale(scalar, self)

    def __mul__(self, scalar: Any) -> Mat:
        return self.kit.scale(scalar, self)

    @property
    def T(self) -> Mat:
        """The transpose."""
        return self.kit.transpose(self)


@dataclass(frozen=True)
class Relation:
    """A hypothesis or conclusion before it is decided: ``op`` of le, lt, eq, psd, rank_le, all, any."""

    op: str
    args: tuple[Any, ...]

    def tightened(self, kit: Kit, by: Any) -> Relation:
        """The relation made harder by the relative amount ``by``; how a false control changes a conclusion.

        ``a <= b`` becomes ``a <= (1 - by) b``, ``a = b`` becomes ``a = (1 + by) b``, and ``S psd`` becomes
        ``S - by (tr S / n) I psd``.
        """
        if self.op in ("le", "lt"):
            left, right = self.args
            return Relation(self.op, (left, (1 - by) * right))
        if self.op == "eq":
            left, right = self.args
            return Relation("eq", (left, (1 + by) * right))
        if self.op == "psd":
            (S,) = self.args
            n = S.shape[0]
            return Relation("psd", (S - (by * kit.tr(S) / n) * kit.eye(n),))
        if self.op in ("all", "any"):
            return Relation(self.op, tuple(part.tightened(kit, by) for part in self.args))
        msg = f"a relation {self.op!r} has no right side to tighten; give the control by a statement"
        raise NotHere(msg)


@dataclass(frozen=True)
class Outcome:
    """What a statement said on one instance: which hypotheses and which conclusions fail."""

    broken_hypotheses: tuple[str, ...]
    broken_conclusions: tuple[str, ...]

    @property
    def is_counterexample(self) -> bool:
        """Every hypothesis holds and some conclusion fails."""
        return not self.broken_hypotheses and bool(self.broken_conclusions)

    @property
    def supports(self) -> bool:
        """Every hypothesis and every conclusion holds."""
        return not self.broken_hypotheses and not self.broken_conclusions


Statement = Callable[["Kit", Instance], None]


class Kit:
    """The protocol of operations; a backend fills in what it can and raises `NotHere` for the rest.

    A statement calls ``given`` and ``claim``; the kit collects the relations and decides them afterwards, so
    that controls (a dropped hypothesis, a tightened conclusion) need no hook inside the text.
    """

    kind = "abstract"

    def __init__(self) -> None:
        self.givens: list[tuple[str, Relation]] = []
        self.claims: list[tuple[str, Relation]] = []
        self.witnesses: dict[str, Any] = {}
        self.labels: set[str] = set()

    # -- collecting ---------------------------------------------------------------------------------------
    def given(self, name: str, relation: Relation) -> None:
        """State a hypothesis."""
        self.givens.append((name, relation))

    def claim(self, name: str, relation: Relation) -> None:
        """State a conclusion."""
        self.claims.append((name, relation))

    def name(self, label: str, value: Any) -> Any:
        """Give a value the symbol that the paper uses (for LaTeX and words; the identity elsewhere)."""
        return value

    def hint(self, label: str, value: Mat) -> None:
        """Offer a witness for the defined object ``label`` (used by `build`, which knows roots and parts)."""

    def collect(
        self,
        statement: Statement,
        x: Instance,
        *,
        tighten: Any = 0,
        drop: Sequence[str] = (),
        only: str | None = None,
    ) -> tuple[list[tuple[str, Relation]], list[tuple[str, Relation]]]:
        """Run the text; return its hypotheses and conclusions after the changes of a control.

        Args:
            statement: The claim's text.
            x: The instance.
            tighten: Relative amount by which conclusions are made harder (see `Relation.tightened`).
            drop: Names of hypotheses left out.
            only: Name of the single conclusion that `tighten` applies to; all of them if None.
        """
        self.givens, self.claims, self.labels = [], [], set()
        statement(self, x)
        if not self.claims:
            msg = f"the statement {getattr(statement, '__name__', statement)!r} makes no claim"
            raise ValueError(msg)
        unknown = set(drop) - {n for n, _ in self.givens}
        if unknown:
            msg = f"no hypothesis named {sorted(unknown)}; there are {[n for n, _ in self.givens]}"
            raise ValueError(msg)
        if tighten:
            by = self.num(tighten)
            self.claims = [(n, r.tightened(self, by) if only in (None, n) else r) for n, r in self.claims]
        self.givens = [(n, r) for n, r in self.givens if n not in drop]
        return self.givens, self.claims

    def fresh_label(self, label: str) -> str:
        """Reserve a label: two defined objects of one statement may not share one."""
        if label in self.labels:
            msg = f"the label {label!r} is used twice in one statement"
            raise ValueError(msg)
        self.labels.add(label)
        return label

    def same_shape(self, A: Mat, B: Mat) -> Mat:
        """Return B after checking that it has the shape of A."""
        if A.shape != B.shape:
            msg = f"shapes do not add: {A.shape} and {B.shape}"
            raise ValueError(msg)
        return B

    # -- relations ----------------------------------------------------------------------------------------
    def le(self, a: Any, b: Any) -> Relation:
        """``a <= b`` for scalars."""
        return Relation("le", (a, b))

    def lt(self, a: Any, b: Any) -> Relation:
        """``a < b`` for scalars."""
        return Relation("lt", (a, b))

    def eq(self, a: Any, b: Any) -> Relation:
        """``a = b`` for two scalars or two matrices."""
        return Relation("eq", (a, b))

    def psd(self, S: Mat) -> Relation:
        """``S`` is symmetric positive semidefinite."""
        return Relation("psd", (S,))

    def sym(self, S: Mat) -> Relation:
        """``S`` is symmetric."""
        return Relation("eq", (S, S.T))

    def rank_le(self, A: Mat, r: int) -> Relation:
        """``rank A <= r``."""
        return Relation("rank_le", (A, r))

    def all_(self, *relations: Relation) -> Relation:
        """Conjunction."""
        return Relation("all", relations)

    def any_(self, *relations: Relation) -> Relation:
        """Disjunction."""
        return Relation("any", relations)

    # -- matrices -----------------------------------------------------------------------------------------
    def num(self, value: Any) -> Any:
        """A constant, written as an int or a string "p/q"."""
        msg = "num"
        raise NotHere(msg)

    def mat(self, rows: Sequence[Sequence[Any]]) -> Mat:
        """A constant matrix from its rows (ints, strings "p/q", scalars of the kit)."""
        msg = "mat"
        raise NotHere(msg)

    def eye(self, n: int) -> Mat:
        """The n x n identity."""
        msg = "eye"
        raise NotHere(msg)

    def zeros(self, m: int, n: int) -> Mat:
        """The m x n zero matrix."""
        return self.mat([[0] * n for _ in range(m)])

    def unit(self, m: int, n: int, i: int, j: int) -> Mat:
        """The m x n matrix with a single one at (i, j)."""
        return self.mat([[int((a, b) == (i, j)) for b in range(n)] for a in range(m)])

    def cols(self, A: Mat, S: Sequence[int]) -> Mat:
        """The columns of A with indices S."""
        msg = "cols"
        raise NotHere(msg)

    def rows(self, A: Mat, S: Sequence[int]) -> Mat:
        """The rows of A with indices S."""
        return self.cols(A.T, S).T

    def hcat(self, *parts: Mat) -> Mat:
        """Matrices side by side."""
        msg = "hcat"
        raise NotHere(msg)

    def vcat(self, *parts: Mat) -> Mat:
        """Matrices on top of each other."""
        return self.hcat(*(P.T for P in parts)).T

    def kron(self, A: Mat, B: Mat) -> Mat:
        """The Kronecker product."""
        msg = "kron"
        raise NotHere(msg)

    def had(self, A: Mat, B: Mat) -> Mat:
        """The entrywise product."""
        msg = "had"
        raise NotHere(msg)

    def diag(self, A: Mat) -> Mat:
        """A with its off-diagonal entries set to zero."""
        msg = "diag"
        raise NotHere(msg)

    def diagm(self, v: Mat, m: int, n: int) -> Mat:
        """The m x n matrix with the entries of the row v on its diagonal."""
        total = self.zeros(m, n)
        for i in range(min(m, n, v.shape[1])):
            total = total + self.e(v, 0, i) * self.unit(m, n, i, i)
        return total

    def matmul(self, A: Mat, B: Mat) -> Mat:
        """The matrix product; write ``A @ B``."""
        msg = "matmul"
        raise NotHere(msg)

    def add(self, A: Mat, B: Mat) -> Mat:
        """The sum; write ``A + B``."""
        msg = "add"
        raise NotHere(msg)

    def scale(self, c: Any, A: Mat) -> Mat:
        """Scalar times matrix; write ``c * A``."""
        msg = "scale"
        raise NotHere(msg)

    def transpose(self, A: Mat) -> Mat:
        """The transpose; write ``A.T``."""
        msg = "transpose"
        raise NotHere(msg)

    # -- scalars ------------------------------------------------------------------------------------------
    def e(self, A: Mat, i: int, j: int) -> Any:
        """The entry (i, j), counted from zero."""
        msg = "e"
        raise NotHere(msg)

    def tr(self, A: Mat) -> Any:
        """The trace."""
        msg = "tr"
        raise NotHere(msg)

    def dot(self, A: Mat, B: Mat) -> Any:
        """The Frobenius inner product."""
        return self.tr(A.T @ B)

    def fro2(self, A: Mat) -> Any:
        """The squared Frobenius norm."""
        return self.tr(A.T @ A)

    def fro(self, A: Mat) -> Any:
        """The Frobenius norm."""
        return self.sqrt(self.fro2(A))

    def sq(self, a: Any) -> Any:
        """The square of a scalar."""
        return a * a

    def det(self, A: Mat) -> Any:
        """The determinant."""
        msg = "det"
        raise NotHere(msg)

    def rank(self, A: Mat) -> Any:
        """The rank."""
        msg = "rank"
        raise NotHere(msg)

    def sqrt(self, a: Any) -> Any:
        """The non-negative root of a scalar."""
        msg = "sqrt"
        raise NotHere(msg)

    def eig(self, S: Mat, i: int) -> Any:
        """The i-th largest eigenvalue of a symmetric matrix, i = 1, 2, ..."""
        msg = "eig"
        raise NotHere(msg)

    def sv(self, A: Mat, i: int) -> Any:
        """The i-th largest singular value, i = 1, 2, ...; zero beyond min(shape)."""
        msg = "sv"
        raise NotHere(msg)

    def op(self, A: Mat) -> Any:
        """The spectral norm."""
        return self.sv(A, 1)

    def nuc(self, A: Mat) -> Any:
        """The nuclear norm."""
        return self.sum(self.sv(A, i) for i in range(1, min(A.shape) + 1))

    def kap(self, A: Mat) -> Any:
        """The ratio of the largest to the smallest positive singular value (0 for the zero matrix)."""
        return self.op(A) * self.op(self.pinv(A))

    def tail2(self, A: Mat, r: int) -> Any:
        """The sum of the squared singular values beyond the r-th."""
        return self.sum(self.sq(self.sv(A, i)) for i in range(r + 1, min(A.shape) + 1))

    def sum(self, values: Iterable[Any]) -> Any:
        """The sum of scalars; the constant zero if there are none."""
        total = self.num(0)
        for value in values:
            total = total + value
        return total

    def min_(self, a: Any, b: Any) -> Any:
        """The smaller of two scalars."""
        msg = "min_"
        raise NotHere(msg)

    def max_(self, a: Any, b: Any) -> Any:
        """The larger of two scalars."""
        msg = "max_"
        raise NotHere(msg)

    def pos_part(self, a: Any) -> Any:
        """max(a, 0)."""
        return self.max_(a, self.num(0))

    def abs_(self, a: Any) -> Any:
        """The absolute value of a scalar."""
        return self.max_(a, -a)

    # -- defined objects ----------------------------------------------------------------------------------
    def inv(self, A: Mat) -> Mat:
        """The inverse of an invertible matrix."""
        msg = "inv"
        raise NotHere(msg)

    def pinv(self, A: Mat) -> Mat:
        """The Moore-Penrose pseudo-inverse."""
        msg = "pinv"
        raise NotHere(msg)

    def proj(self, A: Mat) -> Mat:
        """The orthogonal projector onto the column space of A."""
        return A @ self.pinv(A)

    def sqrtm(self, S: Mat, label: str) -> Mat:
        """The psd root of a psd matrix; `label` names it in witnesses."""
        msg = "sqrtm"
        raise NotHere(msg)

    def svd_r(self, A: Mat, r: int, label: str) -> Mat:
        """The best rank-r part of A (either choice at a tie); `label` names it in witnesses."""
        msg = "svd_r"
        raise NotHere(msg)

    def skew_orth(self, Z: Mat) -> Mat:
        """A rational orthogonal matrix from any square Z: Cayley's transform of Z - Z'."""
        K, identity = Z - Z.T, self.eye(Z.shape[0])
        return (identity - K) @ self.inv(identity + K)
