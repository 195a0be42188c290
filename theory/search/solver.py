"""Complete decisions at small sizes: the statement as a formula of nonlinear real arithmetic, given to z3.

Defined objects (pseudo-inverses, roots, SVD_r, norms) become fresh variables with their defining polynomial
relations, which fix them uniquely or, at ties, range over the legal choices. The variables are the raw ones
of the statement where the setting declares them, otherwise the free parameters of `build`. Effort is a count
of the solver's own steps, so that an answer does not depend on the machine; the solver works in a process of
its own, which a guard ends when a single step of its preprocessing does not come back ("unknown" then).
"""

from __future__ import annotations

import multiprocessing
import resource
from collections.abc import Mapping, Sequence
from fractions import Fraction
from itertools import combinations
from typing import Any

import z3

from theory.claim import Setting
from theory.protocol import Instance, Kit, Mat, NotHere, Relation, Statement
from theory.search.certify import Candidate, roundings

EFFORT = 3_000_000  # z3's resource count for one decision
VARIABLES = 24  # with those of the defined objects; more is hopeless for a complete procedure
UNKNOWNS = 14  # of the instance itself
GUARD = 20.0  # seconds after which a solver that does not come back is ended


class Term:
    """A scalar of the solver; `constant` is its value where it is a known rational."""

    __slots__ = ("constant", "term")

    def __init__(self, term: Any, constant: Fraction | None = None) -> None:
        self.term, self.constant = term, constant

    @staticmethod
    def of(value: Any) -> Term:
        """A number as a term."""
        if isinstance(value, Term):
            return value
        q = Fraction(value)
        return Term(z3.Q(q.numerator, q.denominator), q)

    def __add__(self, other: Any) -> Term:
        o = Term.of(other)
        if self.constant == 0:
            return o
        if o.constant == 0:
            return self
        if self.constant is not None and o.constant is not None:
            return Term.of(self.constant + o.constant)
        return Term(self.term + o.term)

    __radd__ = __add__

    def __neg__(self) -> Term:
        return Term.of(-self.constant) if self.constant is not None else Term(-self.term)

    def __sub__(self, other: Any) -> Term:
        return self + (-Term.of(other))

    def __rsub__(self, other: Any) -> Term:
        return Term.of(other) + (-self)

    def __mul__(self, other: Any) -> Any:
        if isinstance(other, Mat):
            return other.kit.scale(self, other)
        o = Term.of(other)
        if self.constant is not None and o.constant is not None:
            return Term.of(self.constant * o.constant)
        for a, b in ((self, o), (o, self)):
            if a.constant == 0:
                return a
            if a.constant == 1:
                return b
        return Term(self.term * o.term)

    __rmul__ = __mul__

    def __truediv__(self, other: Any) -> Any:
        o = Term.of(other)
        if o.constant is not None and o.constant != 0:
            return self * (1 / o.constant)
        return Term(self.term / o.term)

    def __rtruediv__(self, other: Any) -> Any:
        return Term.of(other) / self


class Solver(Kit):
    """Statements as formulas; `definitions` holds the relations of the fresh variables."""

    kind = "z3"

    def __init__(self) -> None:
        super().__init__()
        self.definitions: list[Any] = []
        self.variables: list[Any] = []

    def fresh(self, name: str | None = None) -> Term:
        """A variable."""
        v = z3.Real(name or f"v{len(self.variables)}")
        self.variables.append(v)
        return Term(v)

    def fresh_matrix(self, m: int, n: int, symmetric: bool = False, name: str = "v") -> Mat:
        """A matrix of variables."""
        tag = f"{name}{len(self.variables)}"
        rows = [
            [self.fresh(f"{tag}_{i}_{j}") if not symmetric or j >= i else None for j in range(n)]
            for i in range(m)
        ]
        return self.make(
            [[v if v is not None else rows[j][i] for j, v in enumerate(r)] for i, r in enumerate(rows)],
            (m, n),
        )

    def make(self, rows: Any, shape: tuple[int, int] | None = None) -> Mat:
        """A matrix from rows of terms."""
        return Mat(self, rows, shape or (len(rows), len(rows[0]) if rows else 0))

    # -- matrices -----------------------------------------------------------------------------------------
    def num(self, value: Any) -> Any:
        return Term.of(value)

    def mat(self, rows: Sequence[Sequence[Any]], shape: tuple[int, int] | None = None) -> Mat:
        return self.make([[Term.of(v) for v in r] for r in rows], shape)

    def eye(self, n: int) -> Mat:
        return self.mat([[int(i == j) for j in range(n)] for i in range(n)], (n, n))

    def zeros(self, m: int, n: int) -> Mat:
        return self.mat([[0] * n for _ in range(m)], (m, n))

    def cols(self, A: Mat, S: Sequence[int]) -> Mat:
        return self.make([[r[j] for j in S] for r in A.data], (A.shape[0], len(S)))

    def hcat(self, *parts: Mat) -> Mat:
        rows: list[list[Term]] = [sum((P.data[i] for P in parts), []) for i in range(parts[0].shape[0])]
        return self.make(rows, (parts[0].shape[0], sum(P.shape[1] for P in parts)))

    def kron(self, A: Mat, B: Mat) -> Mat:
        rows = [[a * b for a in p for b in q] for p in A.data for q in B.data]
        return self.make(rows, (A.shape[0] * B.shape[0], A.shape[1] * B.shape[1]))

    def had(self, A: Mat, B: Mat) -> Mat:
        return self.make(
            [[a * b for a, b in zip(p, q, strict=True)] for p, q in zip(A.data, B.data, strict=True)], A.shape
        )

    def diag(self, A: Mat) -> Mat:
        rows = [[v if i == j else Term.of(0) for j, v in enumerate(r)] for i, r in enumerate(A.data)]
        return self.make(rows, A.shape)

    def matmul(self, A: Mat, B: Mat) -> Mat:
        columns = list(zip(*B.data, strict=True)) if B.data else [()] * B.shape[1]
        rows = [[self.sum(a * b for a, b in zip(r, c, strict=True)) for c in columns] for r in A.data]
        return self.make(rows, (A.shape[0], B.shape[1]))

    def add(self, A: Mat, B: Mat) -> Mat:
        return self.make(
            [[a + b for a, b in zip(p, q, strict=True)] for p, q in zip(A.data, B.data, strict=True)], A.shape
        )

    def scale(self, c: Any, A: Mat) -> Mat:
        return self.make([[Term.of(c) * v for v in r] for r in A.data], A.shape)

    def transpose(self, A: Mat) -> Mat:
        return self.make([[r[j] for r in A.data] for j in range(A.shape[1])], (A.shape[1], A.shape[0]))

    # -- scalars ------------------------------------------------------------------------------------------
    def e(self, A: Mat, i: int, j: int) -> Any:
        return A.data[i][j]

    def tr(self, A: Mat) -> Any:
        return self.sum(A.data[i][i] for i in range(A.shape[0]))

    def det(self, A: Mat) -> Any:
        if A.shape[0] > 4:
            msg = f"a determinant of size {A.shape[0]}"
            raise NotHere(msg)
        return self._minor(A.data)

    def _minor(self, rows: Any) -> Term:
        if not rows:
            return Term.of(1)
        if len(rows) == 1:
            return rows[0][0]  # type: ignore[no-any-return]
        total = Term.of(0)
        for j in range(len(rows)):
            total = total + (-1) ** j * rows[0][j] * self._minor([r[:j] + r[j + 1 :] for r in rows[1:]])
        return total

    def rank(self, A: Mat) -> Any:
        msg = "a rank as a number"
        raise NotHere(msg)

    def sqrt(self, a: Any) -> Any:
        root = self.fresh()
        self.definitions += [root.term >= 0, root.term * root.term == Term.of(a).term]
        return root

    def eig(self, S: Mat, i: int) -> Any:
        n = S.shape[0]
        if n == 1:
            return S.data[0][0]
        if i not in (1, n):
            msg = "an inner eigenvalue"
            raise NotHere(msg)
        t = self.fresh()
        D = t * self.eye(n) - S if i == 1 else S - t * self.eye(n)
        self.definitions += [self.formula(self.psd(D)), self.det(D).term == 0]
        return t

    def sv(self, A: Mat, i: int) -> Any:
        if i > min(A.shape):
            return Term.of(0)
        return self.sqrt(self.eig(A.T @ A if A.shape[1] <= A.shape[0] else A @ A.T, i))

    def tail2(self, A: Mat, r: int) -> Any:
        if r >= min(A.shape):
            return Term.of(0)
        if r == 0:
            return self.fro2(A)
        G = A.T @ A if A.shape[1] <= A.shape[0] else A @ A.T
        return self.sum(self.eig(G, i) for i in range(r + 1, min(A.shape) + 1))

    def min_(self, a: Any, b: Any) -> Any:
        a, b = Term.of(a).term, Term.of(b).term
        return Term(z3.If(a <= b, a, b))

    def max_(self, a: Any, b: Any) -> Any:
        a, b = Term.of(a).term, Term.of(b).term
        return Term(z3.If(a >= b, a, b))

    # -- defined objects ----------------------------------------------------------------------------------
    def _equal(self, A: Mat, B: Mat) -> Any:
        return z3.And(
            [a.term == b.term for p, q in zip(A.data, B.data, strict=True) for a, b in zip(p, q, strict=True)]
        )

    def inv(self, A: Mat) -> Mat:
        Y = self.fresh_matrix(*A.shape)
        self.definitions.append(self._equal(A @ Y, self.eye(A.shape[0])))
        return Y

    def pinv(self, A: Mat) -> Mat:
        Y = self.fresh_matrix(A.shape[1], A.shape[0])
        AY, YA = A @ Y, Y @ A
        self.definitions += [
            self._equal(AY @ A, A),
            self._equal(YA @ Y, Y),
            self._equal(AY, AY.T),
            self._equal(YA, YA.T),
        ]
        return Y

    def sqrtm(self, S: Mat, label: str) -> Mat:
        self.fresh_label(label)
        R = self.fresh_matrix(*S.shape, symmetric=True)
        self.definitions += [self.formula(self.psd(R)), self._equal(R @ R, S)]
        return R

    def svd_r(self, A: Mat, r: int, label: str) -> Mat:
        self.fresh_label(label)
        if r >= min(A.shape):
            return A
        if r == 0:
            return self.zeros(*A.shape)
        if r != 1 or min(A.shape) != 2:
            msg = f"SVD_{r} of a {A.shape[0]} x {A.shape[1]} matrix"
            raise NotHere(msg)
        X = self.fresh_matrix(*A.shape)
        N = A - X
        zero = self.zeros
        self.definitions += [
            self._equal(X.T @ N, zero(A.shape[1], A.shape[1])),
            self._equal(X @ N.T, zero(A.shape[0], A.shape[0])),
            self.formula(self.rank_le(X, 1)),
            self.formula(self.rank_le(N, 1)),
            self.fro2(X).term >= self.fro2(N).term,  # rank one each: the norms are the singular values
        ]
        return X

    # -- deciding -----------------------------------------------------------------------------------------
    def formula(self, relation: Relation) -> Any:
        """A relation as a formula."""
        args = relation.args
        match relation.op:
            case "le":
                return Term.of(args[0]).term <= Term.of(args[1]).term
            case "lt":
                return Term.of(args[0]).term < Term.of(args[1]).term
            case "eq":
                if isinstance(args[0], Mat):
                    return self._equal(*args)
                return Term.of(args[0]).term == Term.of(args[1]).term
            case "psd":
                S = args[0]
                if S.shape[0] > 3:
                    msg = f"psd at size {S.shape[0]}"
                    raise NotHere(msg)
                minors = [
                    self._minor([[S.data[i][j] for j in I] for i in I]).term >= 0
                    for size in range(1, S.shape[0] + 1)
                    for I in combinations(range(S.shape[0]), size)  # noqa: E741
                ]
                return z3.And([self._equal(S, S.T), *minors])
            case "rank_le":
                A, r = args
                if r >= min(A.shape):
                    return z3.BoolVal(True)
                if r > 2:
                    msg = f"rank <= {r}"
                    raise NotHere(msg)
                minors = [
                    self._minor([[A.data[i][j] for j in J] for i in I]).term == 0
                    for I in combinations(range(A.shape[0]), r + 1)  # noqa: E741
                    for J in combinations(range(A.shape[1]), r + 1)
                ]
                return z3.And(minors)
            case "all":
                return z3.And([self.formula(part) for part in args])
            case "any":
                return z3.Or([self.formula(part) for part in args])
        msg = f"relation {relation.op!r}"
        raise NotHere(msg)

    def ask(self, statement: Statement, x: Instance, effort: int, **changes: Any) -> tuple[str, Any]:
        """Ask whether hypotheses and definitions allow a broken conclusion: (answer, model or None)."""
        givens, claims = self.collect(statement, x, **changes)
        hypotheses = [self.formula(relation) for _, relation in givens]
        conclusions = [self.formula(relation) for _, relation in claims]
        if len(self.variables) > VARIABLES:
            msg = f"{len(self.variables)} variables, more than {VARIABLES}"
            raise NotHere(msg)
        solver = z3.Tactic("qfnra-nlsat").solver()
        solver.set("rlimit", effort)
        solver.add(*self.definitions, *hypotheses, z3.Not(z3.And(conclusions)))
        answer = solver.check()
        return str(answer), solver.model() if answer == z3.sat else None


def _value(model: Any, term: Any) -> Fraction:
    """The value of a variable; an algebraic one to 15 digits."""
    v = model.eval(term, model_completion=True)
    v = v.approx(15) if z3.is_algebraic_value(v) else v
    return Fraction(v.numerator_as_long(), v.denominator_as_long())


def is_variable(value: Any) -> bool:
    """Whether an entry of `Setting.raw` declares a variable: (rows, columns, symmetric) or "scalar"."""
    return value == "scalar" or (isinstance(value, tuple) and len(value) == 3 and isinstance(value[2], bool))


def _instance(kit: Solver, setting: Setting, d: dict[str, Any]) -> tuple[Instance, dict[str, Any], bool]:
    """The instance in terms, its variables by name, and whether they are raw."""
    out: dict[str, Any] = {}
    if setting.raw is not None:
        x = Instance()
        for name, value in setting.raw(d).items():
            if value == "scalar":
                x[name] = out[name] = kit.fresh(name)
            elif is_variable(value):
                m, n, even = value
                x[name] = out[name] = kit.fresh_matrix(m, n, even, name)
            else:
                x[name] = value
        return x, out, True
    for name, (m, n) in setting.free(d).items():
        out[name] = kit.fresh_matrix(m, n, name=name)
    return setting.build(kit, Instance(out), d), out, False


def _attempt(
    statement: Statement, setting: Setting, d: dict[str, Any], effort: int, changes: Mapping[str, Any]
) -> tuple[str, Any]:
    """One decision in this process: (answer, JSON instance or list of parameters of the model, or None)."""
    kit = Solver()
    try:
        x, variables, raw = _instance(kit, setting, d)
        if len(kit.variables) > UNKNOWNS:
            msg = f"{len(kit.variables)} unknowns, more than {UNKNOWNS}"
            raise NotHere(msg)
        answer, model = kit.ask(statement, x, effort, **changes)
    except (AttributeError, TypeError, z3.Z3Exception) as error:
        msg = f"not expressible for the solver: {error}"
        raise NotHere(msg) from error
    if model is None:
        return answer, None
    if not raw:
        return answer, [str(_value(model, v.term)) for M in variables.values() for r in M.data for v in r]
    data: dict[str, Any] = {}
    for name, value in x.items():
        if name not in variables:
            data[name] = list(value) if isinstance(value, tuple) else value
        elif isinstance(value, Mat):
            rows = [[str(_value(model, v.term)) for v in r] for r in value.data]
            data[name] = rows if all(value.shape) else {"shape": list(value.shape)}
        else:
            data[name] = str(_value(model, value.term))
    return answer, data


def _in_child(pipe: Any, guard: float, *arguments: Any) -> None:
    seconds = int(guard) + 1  # of processor time; holds even if the parent is gone
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    try:
        pipe.send(_attempt(*arguments))
    except NotHere as reason:
        pipe.send(("does not apply", str(reason)))
    except Exception as error:  # handed to the parent, which raises it
        pipe.send(("failed", f"{type(error).__name__}: {error}"))
    finally:
        pipe.close()


def _guarded(guard: float, *arguments: Any) -> tuple[str, Any]:
    """`_attempt` in a process of its own, ended after `guard` seconds."""
    if "fork" not in multiprocessing.get_all_start_methods():
        return _attempt(*arguments)
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe(duplex=False)
    child = context.Process(target=_in_child, args=(there, guard, *arguments))
    child.start()
    there.close()
    try:
        answer, found = here.recv() if here.poll(guard) else ("unknown", None)
    except EOFError:  # the child died (memory); that decides nothing
        answer, found = "unknown", None
    finally:
        child.kill()
        child.join()
        here.close()
    if answer == "does not apply":
        raise NotHere(found)
    if answer == "failed":
        raise RuntimeError(found)
    return answer, found


def search(
    statement: Statement,
    setting: Setting,
    d: Mapping[str, Any],
    *,
    effort: int = EFFORT,
    guard: float = GUARD,
    **changes: Any,
) -> tuple[str, list[Candidate]]:
    """Ask the solver for a counterexample: (sat, unsat or unknown; candidates made from its model).

    Raises:
        NotHere: The statement is not polynomial, or too large; the message says which.
    """
    sizes = dict(d)
    answer, found = _guarded(guard, statement, setting, sizes, effort, changes)
    if found is None:
        return answer, []
    if isinstance(found, dict):
        first = Candidate(sizes, instance=found)
    else:
        first = Candidate(sizes, tuple(Fraction(v) for v in found))
    nearby = roundings([float(v) for v in first.numbers()], thin=True)  # for algebraic models
    return answer, [first, *(first.with_numbers(q) for q in nearby)]


def decide(
    statement: Statement,
    setting: Setting,
    sizes: Mapping[str, Any],
    *,
    effort: int = 40 * EFFORT,
    guard: float = 15 * GUARD,
    **changes: Any,
) -> str:
    """Decide completely at given sizes: "sat" (a counterexample exists), "unsat" (none does) or "unknown".

    Raises:
        NotHere: The statement is not polynomial, or too large; the message says which.
    """
    return _guarded(guard, statement, setting, dict(sizes), effort, changes)[0]
