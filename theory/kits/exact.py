"""The trusted kit: statements decided in exact rational arithmetic, with the standard library alone.

Matrices are lists of rows of `Fraction`; irrational quantities (roots, singular values, SVD_r with irrational
singular spaces) are `Real` enclosures. A defined object that is not rational by construction is taken from a
witness and verified by its defining relations; it is never searched for here beyond the closed cases.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from math import lcm
from typing import Any

from theory.kits import reals
from theory.kits.reals import PRECISIONS, Real
from theory.protocol import BadWitness, Instance, Kit, Mat, NotHere, Outcome, Relation, Statement, Undecided

Rows = list[list[Any]]


class Exact(Kit):
    """Exact evaluation with `fractions.Fraction`; ``witnesses`` maps labels of defined objects to their rows."""

    kind = "exact"

    def __init__(self, witnesses: dict[str, Any] | None = None) -> None:
        super().__init__()
        self.witnesses = dict(witnesses or {})
        self.sides: dict[str, tuple[Any, Any]] = {}

    # -- running a statement ------------------------------------------------------------------------------
    def run(self, statement: Statement, x: Instance, **changes: Any) -> Outcome:
        """Decide every hypothesis and conclusion; ``sides`` then holds both sides of scalar conclusions.

        Raises:
            Undecided: A relation that matters could not be decided.
            BadWitness: A witness does not satisfy its defining relations.
        """
        givens, claims = self.collect(statement, x, **changes)
        broken_hypotheses = tuple(name for name, relation in givens if not self.decide(relation))
        self.sides = {
            n: r.args for n, r in claims if r.op in ("le", "lt", "eq") and not isinstance(r.args[0], Mat)
        }
        broken: list[str] = []
        doubts: list[Undecided] = []
        for name, relation in claims:
            try:
                if not self.decide(relation):
                    broken.append(name)
            except Undecided as doubt:
                doubts.append(doubt)
        if doubts and not broken:
            raise doubts[0]
        return Outcome(broken_hypotheses, tuple(broken))

    def decide(self, relation: Relation) -> bool:
        """Whether a relation holds; `Undecided` if the enclosures do not tell."""
        args = relation.args
        match relation.op:
            case "le":
                return reals.compare(*args) <= 0
            case "lt":
                return reals.compare(*args) < 0
            case "eq":
                return (
                    self.is_zero(args[0] - args[1]) if isinstance(args[0], Mat) else reals.compare(*args) == 0
                )
            case "psd":
                return self.is_psd(args[0])
            case "rank_le":
                return bool(self.rank(args[0]) <= args[1])
            case "all":
                return self._connect(args, False)
            case "any":
                return self._connect(args, True)
        msg = f"relation {relation.op!r}"
        raise NotHere(msg)

    def _connect(self, parts: tuple[Relation, ...], deciding: bool) -> bool:
        doubt: Undecided | None = None
        for part in parts:
            try:
                if self.decide(part) is deciding:
                    return deciding
            except Undecided as error:
                doubt = error
        if doubt:
            raise doubt
        return not deciding

    # -- making matrices ----------------------------------------------------------------------------------
    def num(self, value: Any) -> Any:
        return value if isinstance(value, Real) else Fraction(value)

    def make(self, rows: Rows, shape: tuple[int, int]) -> Mat:
        """A matrix of this kit from rows of exact scalars."""
        return Mat(self, rows, shape)

    def data(self, A: Mat) -> Rows:
        """The rows of a matrix as exact scalars."""
        return A.data  # type: ignore[no-any-return]

    def mat(self, rows: Sequence[Sequence[Any]], shape: tuple[int, int] | None = None) -> Mat:
        return self.make(
            [[self.num(v) for v in r] for r in rows], shape or (len(rows), len(rows[0]) if rows else 0)
        )

    def eye(self, n: int) -> Mat:
        return self.make([[Fraction(i == j) for j in range(n)] for i in range(n)], (n, n))

    def zeros(self, m: int, n: int) -> Mat:
        return self.make([[Fraction(0)] * n for _ in range(m)], (m, n))

    def cols(self, A: Mat, S: Sequence[int]) -> Mat:
        return self.make([[r[j] for j in S] for r in self.data(A)], (A.shape[0], len(S)))

    def hcat(self, *parts: Mat) -> Mat:
        rows: Rows = [sum((self.data(P)[i] for P in parts), []) for i in range(parts[0].shape[0])]
        return self.make(rows, (parts[0].shape[0], sum(P.shape[1] for P in parts)))

    def kron(self, A: Mat, B: Mat) -> Mat:
        rows = [[a * b for a in p for b in q] for p in self.data(A) for q in self.data(B)]
        return self.make(rows, (A.shape[0] * B.shape[0], A.shape[1] * B.shape[1]))

    def had(self, A: Mat, B: Mat) -> Mat:
        rows = [
            [a * b for a, b in zip(p, q, strict=True)]
            for p, q in zip(self.data(A), self.data(B), strict=True)
        ]
        return self.make(rows, A.shape)

    def diag(self, A: Mat) -> Mat:
        rows = [[v if i == j else Fraction(0) for j, v in enumerate(r)] for i, r in enumerate(self.data(A))]
        return self.make(rows, A.shape)

    def matmul(self, A: Mat, B: Mat) -> Mat:
        columns = list(zip(*B.data, strict=True)) if B.data else [()] * B.shape[1]
        rows = [
            [sum((a * b for a, b in zip(r, c, strict=True)), Fraction(0)) for c in columns] for r in A.data
        ]
        return Mat(self, rows, (A.shape[0], B.shape[1]))

    def add(self, A: Mat, B: Mat) -> Mat:
        rows = [[a + b for a, b in zip(p, q, strict=True)] for p, q in zip(A.data, B.data, strict=True)]
        return Mat(self, rows, A.shape)

    def scale(self, c: Any, A: Mat) -> Mat:
        return Mat(self, [[c * v for v in r] for r in A.data], A.shape)

    def transpose(self, A: Mat) -> Mat:
        rows = [[r[j] for r in A.data] for j in range(A.shape[1])]
        return Mat(self, rows, (A.shape[1], A.shape[0]))

    # -- scalars ------------------------------------------------------------------------------------------
    def e(self, A: Mat, i: int, j: int) -> Any:
        return A.data[i][j]

    def tr(self, A: Mat) -> Any:
        return sum((A.data[i][i] for i in range(A.shape[0])), Fraction(0))

    def fro2(self, A: Mat) -> Any:
        return sum((self.sq(v) for r in self.data(A) for v in r), Fraction(0))

    def sq(self, a: Any) -> Any:
        return a.square if isinstance(a, Real) and a.square is not None else a * a

    def sqrt(self, a: Any) -> Any:
        return reals.sqrt(a)

    def min_(self, a: Any, b: Any) -> Any:
        return a if reals.compare(a, b) <= 0 else b

    def max_(self, a: Any, b: Any) -> Any:
        return b if reals.compare(a, b) <= 0 else a

    def is_zero(self, A: Mat) -> bool:
        """Whether every entry is zero; one certainly non-zero entry decides, a doubtful one does not."""
        doubt: Undecided | None = None
        for row in self.data(A):
            for v in row:
                try:
                    if reals.sign(v) != 0:
                        return False
                except Undecided as error:
                    doubt = error
        if doubt:
            raise doubt
        return True

    def _rational(self, A: Mat, what: str) -> Rows:
        rows = self.data(A)
        if any(isinstance(v, Real) for r in rows for v in r):
            msg = f"{what} of a matrix with irrational entries"
            raise Undecided(msg)
        return [list(r) for r in rows]

    def echelon(self, A: Mat) -> tuple[Rows, list[int]]:
        """The non-zero rows of the reduced row echelon form, and the pivot columns."""
        M, pivots, r = self._rational(A, "elimination"), [], 0
        for c in range(A.shape[1]):
            p = next((i for i in range(r, len(M)) if M[i][c]), None)
            if p is None:
                continue
            M[r], M[p] = M[p], M[r]
            lead = M[r][c]
            M[r] = [v / lead for v in M[r]]
            for i in range(len(M)):
                if i != r and M[i][c]:
                    f = M[i][c]
                    M[i] = [v - f * w for v, w in zip(M[i], M[r], strict=True)]
            pivots.append(c)
            r += 1
        return M[:r], pivots

    def rank(self, A: Mat) -> int:
        return len(self.echelon(A)[1])

    def det(self, A: Mat) -> Any:
        M, n, d = self._rational(A, "determinant"), A.shape[0], Fraction(1)
        for c in range(n):
            p = next((i for i in range(c, n) if M[i][c]), None)
            if p is None:
                return Fraction(0)
            if p != c:
                M[c], M[p], d = M[p], M[c], -d
            d *= M[c][c]
            for i in range(c + 1, n):
                f = M[i][c] / M[c][c]
                if f:
                    M[i] = [v - f * w for v, w in zip(M[i], M[c], strict=True)]
        return d

    def inertia(self, S: Mat) -> tuple[int, int, int]:
        """(positive, negative, zero) eigenvalue counts of a symmetric matrix, by symmetric elimination."""
        M = self._rational(S, "inertia")
        positive = negative = 0
        live = list(range(len(M)))
        while live:
            pivot = next((i for i in live if M[i][i]), None)
            if pivot is None:
                pair = next(((i, j) for i in live for j in live if M[i][j]), None)
                if pair is None:
                    break
                i, j = pair  # the congruence row_i += row_j makes a diagonal entry non-zero
                for t in live:
                    M[i][t] += M[j][t]
                for t in live:
                    M[t][i] += M[t][j]
                pivot = i
            v = M[pivot][pivot]
            positive += v > 0
            negative += v < 0
            live.remove(pivot)
            for i in live:
                if M[i][pivot]:
                    f = M[i][pivot] / v
                    for j in live:
                        M[i][j] -= f * M[pivot][j]
        return positive, negative, S.shape[0] - positive - negative

    def is_psd(self, S: Mat) -> bool:
        """Whether S is symmetric positive semidefinite."""
        return self.is_zero(S - S.T) and self.inertia(S)[1] == 0

    # -- spectra: enclosures refined by inertia counts, exact against rationals ------------------------------
    def _counter(self, S: Mat) -> Callable[[Fraction], tuple[int, int]]:
        """Map c to how many eigenvalues of S lie above c, and how many are equal to it."""

        def count(c: Fraction) -> tuple[int, int]:
            positive, _, zero = self.inertia(S - c * self.eye(S.shape[0]))
            return positive, zero

        return count

    def _rational_eigenvalues(self, S: Mat) -> list[Fraction] | None:
        """All rational eigenvalues, where a kit knows them at once; here they are found by enclosing."""
        return None

    def eig(self, S: Mat, i: int) -> Any:
        n, rows = S.shape[0], self._rational(S, "eigenvalues")
        if not 1 <= i <= n:
            msg = f"eigenvalue index must satisfy 1 <= i <= {n}; got {i}"
            raise ValueError(msg)
        if any(rows[a][b] != rows[b][a] for a in range(n) for b in range(a)):
            msg = "eigenvalues are asked of a matrix that is not symmetric"
            raise ValueError(msg)

        count = self._counter(S)

        def compare(c: Fraction) -> int:
            positive, zero = count(c)
            return 1 if positive >= i else (0 if positive + zero >= i else -1)

        reach = Fraction(int(max(sum(abs(v) for v in r) for r in rows)) + 2)
        span = [-reach, reach]

        def enclose(bits: int) -> tuple[Fraction, Fraction]:
            while span[1] - span[0] > Fraction(1, 1 << bits):
                middle = (span[0] + span[1]) / 2
                span[0 if compare(middle) >= 0 else 1] = middle
            return span[0], span[1]

        candidates = self._rational_eigenvalues(S)
        if candidates is None:
            # den * S is integral, so a rational eigenvalue is an integer over den: rational or not is decided
            den = lcm(*(int(v.denominator) for r in rows for v in r))
            low, high = enclose(den.bit_length() + 2)
            candidates = [low, high, Fraction(round((low + high) / 2 * den), den)]
        for candidate in candidates:
            if compare(candidate) == 0:
                return candidate
        return Real(enclose, compare)

    def sv(self, A: Mat, i: int) -> Any:
        if i > min(A.shape):
            return Fraction(0)
        G = A.T @ A if A.shape[1] <= A.shape[0] else A @ A.T
        return reals.sqrt(self.eig(G, i))

    # -- defined objects ----------------------------------------------------------------------------------
    def inv(self, A: Mat) -> Mat:
        n = A.shape[0]
        M, pivots = self.echelon(self.hcat(A, self.eye(n)))
        if pivots[:n] != list(range(n)):
            msg = "the inverse of a singular matrix"
            raise ZeroDivisionError(msg)
        return self.make([r[n:] for r in M], (n, n))

    def pinv(self, A: Mat) -> Mat:
        M, pivots = self.echelon(A)
        if not pivots:
            return self.zeros(A.shape[1], A.shape[0])
        F, G = self.cols(A, pivots), self.make(M, (len(pivots), A.shape[1]))  # A = F G, both of full rank
        return G.T @ self.inv(G @ G.T) @ self.inv(F.T @ F) @ F.T

    def hint(self, label: str, value: Mat) -> None:
        self.witnesses.setdefault(label, self.data(value))

    def _witness(self, label: str, shape: tuple[int, int]) -> Mat | None:
        rows = self.witnesses.get(label)
        if rows is None:
            return None
        W = self.mat(rows, shape)
        if len(rows) != shape[0] or any(len(r) != shape[1] for r in rows):
            msg = f"the witness for {label} has another shape than {shape}"
            raise BadWitness(msg)
        return W

    def sqrtm(self, S: Mat, label: str) -> Mat:
        self.fresh_label(label)
        R = self._witness(label, S.shape)
        if R is None:
            R = self._diagonal_root(S, label) or self._spectral_root(S, label)
        elif not (self.is_zero(R @ R - S) and self.is_psd(R)):
            msg = f"the witness for the root {label} is not the psd root"
            raise BadWitness(msg)
        self.witnesses[label] = self.data(R)
        return R

    def _diagonal_root(self, S: Mat, label: str) -> Mat | None:
        rows = self.data(S)
        if any(v != 0 for i, r in enumerate(rows) for j, v in enumerate(r) if i != j):
            return None
        roots = [reals.sqrt(rows[i][i]) for i in range(len(rows))]
        if any(isinstance(v, Real) for v in roots):
            msg = f"the root {label} is irrational"
            raise Undecided(msg)
        return self.make(
            [[v if i == j else Fraction(0) for j in range(len(rows))] for i, v in enumerate(roots)], S.shape
        )

    def _spectral_root(self, S: Mat, label: str) -> Mat:
        """The root as a polynomial in S: Lagrange interpolation at eigenvalues that are rational squares."""
        values: list[Fraction] = []
        for i in range(1, S.shape[0] + 1):
            w = self.eig(S, i)
            if isinstance(w, Real) or w < 0 or isinstance(reals.sqrt(w), Real):
                msg = f"the root {label} needs a witness"
                raise Undecided(msg)
            if w not in values:
                values.append(w)
        R = self.zeros(*S.shape)
        for w in values:
            term = reals.sqrt(w) * self.eye(S.shape[0])
            for v in values:
                if v != w:
                    term = (1 / (w - v)) * (term @ (S - v * self.eye(S.shape[0])))
            R = R + term
        return R

    def svd_r(self, A: Mat, r: int, label: str) -> Mat:
        self.fresh_label(label)
        X = self._witness(label, A.shape)
        if X is None:
            try:
                X = self._rational_part(A, r, label)
            except _Irrational:
                return self._enclosed_part(A, r)
        self._verify_part(A, X, r, label)
        self.witnesses[label] = self.data(X)
        return X

    def _verify_part(self, A: Mat, X: Mat, r: int, label: str) -> None:
        """X and N = A - X have orthogonal row and column spaces, rank X <= r, and sigma_r(X) >= sigma_1(N)."""
        N = A - X
        rank = self.rank(X)
        ok = self.is_zero(X.T @ N) and self.is_zero(X @ N.T) and rank <= r
        if ok and not self.is_zero(N):
            ok = rank == r and (r == 0 or reals.compare(self.eig(X.T @ X, r), self.eig(N.T @ N, 1)) >= 0)
        if not ok:
            msg = f"the witness for {label} is not a best rank-{r} part"
            raise BadWitness(msg)

    def _rational_part(self, A: Mat, r: int, label: str) -> Mat:
        if r <= 0:
            return self.zeros(*A.shape)
        if self.rank(A) <= r:
            return A
        G, n = A.T @ A, A.shape[1]
        top: list[Fraction] = []
        for i in range(1, r + 1):
            w = self.eig(G, i)
            if isinstance(w, Real):
                raise _Irrational
            if w not in top:
                top.append(w)
        tied = top[-1] if self.eig(G, r + 1) == top[-1] else None
        above = [w for w in top if w != tied]
        rest = self.eye(n)  # the product of the (G - w I) kills the top space; its row space is the rest
        for w in above:
            rest = rest @ (G - w * self.eye(n))
        keep = self.eye(n) - self.pinv(rest) @ rest
        if tied is not None:  # either choice is legal: take the first columns of the tied eigenspace
            missing = r - self.rank(keep)
            null = G - tied * self.eye(n)
            space = self.eye(n) - self.pinv(null) @ null
            chosen = self.cols(space, self.echelon(space)[1][:missing])
            keep = keep + chosen @ self.pinv(chosen)
        return A @ keep

    def arithmetic(self) -> Exact:
        """The kit for rational matrices inside an enclosure; a search may take a faster one."""
        return Exact()

    def _enclosed_part(self, A: Mat, r: int) -> Mat:
        """SVD_r with irrational singular spaces, as entrywise enclosures.

        The projector on the top r right singular vectors is (I + sign(T)) / 2 with T = A'A - c I and c between
        the r-th and (r+1)-th eigenvalue. For a symmetric X near sign(T), with E = X^2 - I, K = [A'A, X] and
        XT + TX positive definite, in the eigenbasis split at c: Lyapunov gives X_11 > 0 > X_22, hence
        |X_11 - I| <= |E| + |X_12|^2 and likewise X_22, while |X_12| <= |K| / (sqrt2 gap). Altogether
        |X - sign(T)|_F <= 2 |E|_F + (|K|_F / gap)^2 + |K|_F / gap.
        """
        plain = self.arithmetic()
        M = plain.mat([[Fraction(str(v)) for v in row] for row in self.data(A)], A.shape)
        G, n = M.T @ M, M.shape[1]
        upper, lower = Real.of(plain.eig(G, r)), Real.of(plain.eig(G, r + 1))
        bits = next((b for b in PRECISIONS if upper.enclose(b)[0] > lower.enclose(b)[1]), None)
        if bits is None:
            msg = f"no gap at r = {r} to {PRECISIONS[-1]} bits"
            raise Undecided(msg)
        low, high = lower.enclose(bits)[1], upper.enclose(bits)[0]
        gap = high - low
        c = reals.simplest_between(low + gap / 3, high - gap / 3)
        identity = plain.eye(n)
        T = G - c * identity
        size: Fraction = reals.sqrt_interval(plain.fro2(M), 10)[1]
        known: dict[int, tuple[Mat, Fraction]] = {}

        def part(bits: int) -> tuple[Mat, Fraction]:
            if bits not in known:
                X = _sign_iterate(plain, T, bits)
                E, K = X @ X - identity, G @ X - X @ G
                if plain.inertia(X @ T + T @ X)[0] != n:
                    msg = "the iteration for the singular space did not converge"
                    raise Undecided(msg)
                error = reals.sqrt_interval(plain.fro2(E), bits + 40)[1]
                ratio = reals.sqrt_interval(plain.fro2(K), bits + 40)[1] / gap
                radius = (2 * error + ratio * ratio + ratio) / 2 * size
                known[bits] = (M @ (Fraction(1, 2) * (X + identity)), radius)
            return known[bits]

        def entry(i: int, j: int) -> Real:
            def enclose(bits: int) -> tuple[Fraction, Fraction]:
                Y, radius = part(bits)
                value = plain.e(Y, i, j)
                return value - radius, value + radius

            return Real(enclose)

        return self.make([[entry(i, j) for j in range(n)] for i in range(M.shape[0])], A.shape)


class _Irrational(Exception):
    """The singular space asked for has no rational basis that the closed cases find."""


def _sign_iterate(kit: Exact, T: Mat, bits: int) -> Mat:
    """Newton-Schulz iteration for sign(T) on dyadic rationals, to about `bits` bits."""
    grid = 1 << (bits + 20)
    bound = max(sum(abs(v) for v in row) for row in kit.data(T))
    X: Mat = (1 / bound) * T
    identity = kit.eye(T.shape[0])
    for _ in range(400):
        E = X @ X - identity
        if kit.fro2(E) < Fraction(1, 1 << (2 * bits + 20)):
            return X
        Y = Fraction(1, 2) * (X @ (3 * identity - X @ X))
        Y = Fraction(1, 2) * (Y + Y.T)
        X = kit.make([[Fraction(round(v * grid), grid) for v in row] for row in kit.data(Y)], Y.shape)
    msg = "the iteration for the singular space did not converge"
    raise Undecided(msg)


def evaluate(
    make_kit: Callable[[], Exact], statement: Statement, x: Instance, **changes: Any
) -> tuple[Outcome, Exact]:
    """Run a statement in a new exact kit; returns the outcome and the kit (with witnesses and sides)."""
    kit = make_kit()
    return kit.run(statement, x, **changes), kit
