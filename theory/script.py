"""A refutation as a stand-alone program: standard library only, at most 40 lines, ready to paste.

The statement runs once on a kit that carries, beside each exact value, the Python text that computes it.
Defined objects are written as literals with assertions of their defining relations, so the program needs no
algorithm that a referee would have to trust.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

from theory import instances
from theory.claim import Json, Reading
from theory.evidence import Counterexample
from theory.kits import reals
from theory.kits.exact import Exact
from theory.protocol import BadWitness, Kit, Mat, NotHere, Relation, Undecided
from theory.registry import Registered

LINES = 40
LONG = 160  # characters of an expression before it gets a name
MINUS = "(-1 * ("
TAKEN = frozenset("Q Mat mat tr fro2 eye cols psd is_pinv left right".split())

LIBRARY = {
    "Mat": """class Mat(list):  # a matrix: rows of fractions
    def __matmul__(a, b): return Mat([sum(x * y for x, y in zip(r, c)) for c in zip(*b)] for r in a)
    def __add__(a, b): return Mat([x + y for x, y in zip(r, s)] for r, s in zip(a, b))
    def __sub__(a, b): return a + -1 * b
    def __rmul__(a, c): return Mat([c * x for x in r] for r in a)
    T = property(lambda a: Mat(list(c) for c in zip(*a)))
def mat(text): return Mat([Q(v) for v in row.split()] for row in text.split(";"))
def tr(a): return sum(a[i][i] for i in range(len(a)))
def fro2(a): return tr(a.T @ a)""",
    "eye": "def eye(n): return Mat([Q(i == j) for j in range(n)] for i in range(n))",
    "cols": "def cols(a, S): return Mat([r[j] for j in S] for r in a)",
    "psd": """def psd(s):  # symmetric elimination
    s = [list(r) for r in s]
    for i in range(len(s)):
        if s[i][i] < 0 or s[i][i] == 0 and any(s[i][i:]): return False
        for j in range(i + 1, len(s)):
            if s[i][i]: s[j] = [x - s[j][i] / s[i][i] * y for x, y in zip(s[j], s[i])]
    return True""",
    "pinv": "def is_pinv(y, a): return a @ y @ a == a and y @ a @ y == y and (a @ y).T == a @ y and (y @ a).T == y @ a",
}


class NoScript(Exception):
    """Why there is no stand-alone program."""


class Expr:
    """An exact scalar with the text that computes it."""

    def __init__(self, text: str, value: Any, atomic: bool = False) -> None:
        if isinstance(value, reals.Real):
            msg = "the statement meets irrational numbers; `recheck` encloses them"
            raise NoScript(msg)
        if len(text) > 40 * LONG:
            msg = "a scalar of the statement is too long an expression; run `recheck` instead"
            raise NoScript(msg)
        self.text, self.value, self.atomic = text, value, atomic

    @staticmethod
    def of(value: Any) -> Expr:
        """A constant as an expression."""
        if isinstance(value, Expr):
            return value
        q = Fraction(value)
        return Expr(str(q) if q.denominator == 1 and q >= 0 else f'Q("{q}")', q, True)

    def _join(self, other: Any, sign: str, value: Any) -> Expr:
        return Expr(f"({self.text} {sign} {Expr.of(other).text})", value, True)

    def __add__(self, other: Any) -> Expr:
        return self._join(other, "+", self.value + Expr.of(other).value)

    def __radd__(self, other: Any) -> Expr:
        return Expr.of(other) + self

    def __sub__(self, other: Any) -> Expr:
        return self._join(other, "-", self.value - Expr.of(other).value)

    def __rsub__(self, other: Any) -> Expr:
        return Expr.of(other) - self

    def __neg__(self) -> Expr:
        return Expr(f"(-{self.text})", -self.value, True)

    def __mul__(self, other: Any) -> Any:
        if isinstance(other, Mat):
            return other.kit.scale(self, other)
        return self._join(other, "*", self.value * Expr.of(other).value)

    def __rmul__(self, other: Any) -> Any:
        return Expr.of(other) * self

    def __truediv__(self, other: Any) -> Expr:
        o = Expr.of(other)  # two ints would divide into a float
        return Expr(f"({self.text} / Q({o.text}))", self.value / o.value, True)

    def __rtruediv__(self, other: Any) -> Expr:
        return Expr.of(other) / self


class Program(Kit):
    """Writes the program: ``data`` of a matrix is (text, exact matrix)."""

    kind = "script"

    def __init__(self, witnesses: Json) -> None:
        super().__init__()
        self.exact = Exact(witnesses)
        self.lines: list[str] = []
        self.needs = {"Mat"}
        self._defined: dict[str, Mat] = {}

    def _mat(self, text: str, value: Mat) -> Mat:
        if len(text) > LONG:  # a step of an algorithm: a name of its own, or texts would grow without bound
            name = f"T{len(self.lines)}"
            self.lines.append(f"{name} = {text}")
            text = name
        if len(self.lines) > 4 * LINES:
            msg = f"it would need far more than {LINES} lines; run `recheck` instead"
            raise NoScript(msg)
        return Mat(self, (text, value), value.shape)

    def literal(self, value: Mat) -> str:
        """A matrix as ``mat("1 0; 0 1")``."""
        rows = self.exact.data(value)
        if any(isinstance(v, reals.Real) for r in rows for v in r):
            msg = "a singular space is irrational; `recheck` encloses it"
            raise NoScript(msg)
        if not rows or not rows[0]:
            msg = "the instance has an empty matrix"
            raise NoScript(msg)
        return 'mat("' + "; ".join(" ".join(str(v) for v in r) for r in rows) + '")'

    def load(self, data: Json) -> Any:
        """The instance, its matrices as named literals."""
        x = instances.load(self.exact, data)
        for field, value in x.items():
            name = f"{field}_" if field in TAKEN else field
            if isinstance(value, Mat):
                self.lines.append(f"{name} = {self.literal(value)}")
                x[field] = self._mat(name, value)
            elif isinstance(value, Fraction):
                self.lines.append(f'{name} = Q("{value}")')
                x[field] = Expr(name, value, True)
        return x

    def _define(self, prefix: str, key: str, value: Mat, check: str) -> Mat:
        if key not in self._defined:
            name = f"{prefix}{len(self._defined)}"
            self.lines.append(f"{name} = {self.literal(value)}; assert {check.replace('@@', name)}")
            self._defined[key] = self._mat(name, value)
        return self._defined[key]

    def name(self, label: str, value: Any) -> Any:
        plain = "".join(c for c in label.replace("\\", "") if c.isalnum() or c == "_")
        if isinstance(value, Mat) and "@" in value.data[0] and plain.isidentifier():
            if plain in TAKEN or plain in {line.split(" = ")[0] for line in self.lines}:
                plain += "_"
            self.lines.append(f"{plain} = {value.data[0]}")
            return self._mat(plain, value.data[1])
        return value

    # -- the protocol ---------------------------------------------------------------------------------------
    def num(self, value: Any) -> Any:
        return Expr.of(value)

    def mat(self, rows: Sequence[Sequence[Any]]) -> Mat:
        value = self.exact.mat([[Expr.of(v).value for v in r] for r in rows])
        return self._mat(self.literal(value), value)

    def eye(self, n: int) -> Mat:
        self.needs.add("eye")
        return self._mat(f"eye({n})", self.exact.eye(n))

    def cols(self, A: Mat, S: Sequence[int]) -> Mat:
        self.needs.add("cols")
        return self._mat(f"cols({A.data[0]}, {list(S)})", self.exact.cols(A.data[1], S))

    def matmul(self, A: Mat, B: Mat) -> Mat:
        return self._mat(f"{A.data[0]} @ {B.data[0]}", A.data[1] @ B.data[1])

    def add(self, A: Mat, B: Mat) -> Mat:
        left, right = A.data[0], B.data[0]
        if right.startswith(MINUS):  # Mat writes A - B as A + (-1) B
            return self._mat(f"({left} - {right[len(MINUS) : -2]})", A.data[1] + B.data[1])
        return self._mat(f"({left} + {right})", A.data[1] + B.data[1])

    def scale(self, c: Any, A: Mat) -> Mat:
        e = Expr.of(c)
        if e.value == -1:
            return self._mat(f"{MINUS}{A.data[0]}))", -A.data[1])
        return self._mat(f"({e.text} * ({A.data[0]}))", e.value * A.data[1])

    def transpose(self, A: Mat) -> Mat:
        text = A.data[0]
        return self._mat(f"{text}.T" if text.isidentifier() else f"({text}).T", A.data[1].T)

    def tr(self, A: Mat) -> Any:
        return Expr(f"tr({A.data[0]})", self.exact.tr(A.data[1]), True)

    def fro2(self, A: Mat) -> Any:
        text = A.data[0]
        inner = text[1:-1] if text.startswith("(") and text.endswith(")") and ")" not in text[1:-1] else text
        return Expr(f"fro2({inner})", self.exact.fro2(A.data[1]), True)

    def e(self, A: Mat, i: int, j: int) -> Any:
        return Expr(f"({A.data[0]})[{i}][{j}]", self.exact.e(A.data[1], i, j), True)

    def _value_only(self, what: str, value: Any) -> Expr:
        if isinstance(value, reals.Real):
            msg = f"{what} is irrational; `recheck` encloses it"
            raise NoScript(msg)
        msg = f"the statement uses {what}, which a 40-line program cannot certify; run `recheck`"
        raise NoScript(msg)

    def rank(self, A: Mat) -> Any:
        Y = self.pinv(A)  # the rank is the trace of the projector
        return Expr(f"tr(({A.data[0]}) @ {Y.data[0]})", Fraction(self.exact.rank(A.data[1])), True)

    def tail2(self, A: Mat, r: int) -> Any:
        rest = A - self.svd_r(A, r, f"tail {len(self._defined)}")
        return self.fro2(rest)

    def pinv(self, A: Mat) -> Mat:
        self.needs.add("pinv")
        return self._define("Y", f"pinv {A.data[0]}", self.exact.pinv(A.data[1]), f"is_pinv(@@, {A.data[0]})")

    def inv(self, A: Mat) -> Mat:
        self.needs.add("eye")
        return self._define(
            "V", f"inv {A.data[0]}", self.exact.inv(A.data[1]), f"{A.data[0]} @ @@ == eye({A.shape[0]})"
        )

    def sqrtm(self, S: Mat, label: str) -> Mat:
        self.needs.add("psd")
        return self._define(
            "R",
            f"root {S.data[0]}",
            self.exact.sqrtm(S.data[1], label),
            f"@@ @ @@ == {S.data[0]} and @@ == @@.T and psd(@@)",
        )

    def svd_r(self, A: Mat, r: int, label: str) -> Mat:
        X = self.exact.svd_r(A.data[1], r, label)
        N = A.data[1] - X
        if self.exact.is_zero(N):
            return A
        self.needs |= {"psd", "eye", "pinv"}
        top = self.exact.eig(N.T @ N, 1)
        if isinstance(top, reals.Real):
            top = (
                reals.simplest_between(top.enclose(20)[1], self.exact.eig(X.T @ X, r).enclose(20)[0])
                if r
                else top
            )
        text, n = A.data[0], A.shape[1]
        check = (
            f"@@.T @ ({text} - @@) == 0 * @@.T @ @@ and psd(Q('{top}') * eye({n}) - ({text} - @@).T @ ({text} - @@))"
            f" and psd(@@.T @ @@ @ (@@.T @ @@ - Q('{top}') * eye({n})))  # best rank-{r} part"
        )
        defined = self._define("X", f"svd {r} {text}", X, check)
        if r:
            self.pinv(defined)
            name = defined.data[0]
            Y = self._defined[f"pinv {name}"].data[0]
            self.lines.append(f"assert tr({name} @ {Y}) <= {r} and {text} @ {name}.T == {name} @ {name}.T")
        return defined

    def max_(self, a: Any, b: Any) -> Any:
        x, y = Expr.of(a), Expr.of(b)
        return Expr(f"max({x.text}, {y.text})", max(x.value, y.value), True)

    def min_(self, a: Any, b: Any) -> Any:
        x, y = Expr.of(a), Expr.of(b)
        return Expr(f"min({x.text}, {y.text})", min(x.value, y.value), True)

    def sv(self, A: Mat, i: int) -> Any:
        return self._value_only("a singular value", Fraction(0))

    def eig(self, S: Mat, i: int) -> Any:
        return self._value_only("an eigenvalue", Fraction(0))

    def det(self, A: Mat) -> Any:
        return self._value_only("a determinant", Fraction(0))

    def sqrt(self, a: Any) -> Any:
        value = reals.sqrt(Expr.of(a).value)
        if isinstance(value, reals.Real):
            self._value_only("a root", value)
        return Expr(f'Q("{value}")', value, True)

    # -- relations as text -----------------------------------------------------------------------------------
    def relation(self, relation: Relation) -> str:
        """A relation as a Python condition."""
        signs = {"le": "<=", "lt": "<", "eq": "=="}
        if relation.op in signs:
            texts = [a.data[0] if isinstance(a, Mat) else Expr.of(a).text for a in relation.args]
            return f"{texts[0]} {signs[relation.op]} {texts[1]}"
        if relation.op == "psd":
            self.needs.add("psd")
            text = relation.args[0].data[0]
            return f"{text} == ({text}).T and psd({text})"
        if relation.op == "rank_le":
            return f"{self.rank(relation.args[0]).text} <= {relation.args[1]}"
        if relation.op in ("all", "any"):
            word = " and " if relation.op == "all" else " or "
            return word.join(f"({self.relation(part)})" for part in relation.args)
        msg = f"a relation {relation.op!r} has no short text"
        raise NoScript(msg)


def program(entry: Registered, reading: Reading) -> str:
    """The program for one refuted reading.

    Raises:
        NoScript: There is none; the message says why.
    """
    evidence = reading.evidence
    if not isinstance(evidence, Counterexample) or reading.statement is None:
        msg = "it is not refuted by an instance of the protocol"
        raise NoScript(msg)
    kit = Program(evidence.witnesses)
    try:
        givens, claims = kit.collect(reading.statement, kit.load(evidence.instance))
        conditions = [kit.relation(r) for _, r in givens]
        breaks = _broken(evidence, reading)
        name, relation = next((n, r) for n, r in claims if n == breaks)
        conclusion = kit.relation(relation)
    except NotHere as error:
        msg = f"the statement uses {error}, which has no short text"
        raise NoScript(msg) from error
    except (Undecided, BadWitness) as error:
        raise NoScript(str(error)) from error
    used = _used(kit.lines, [*conditions, conclusion])
    library = [LIBRARY[n] for n in LIBRARY if n in kit.needs]
    body = [
        f"# {entry.claim.id}, {entry.claim.source.place}: {name} is false",
        "from fractions import Fraction as Q",
        *library,
        *used,
    ]
    body += [f"assert {c}  # hypothesis: {n}" for (n, _), c in zip(givens, conditions, strict=True)]
    if relation.op in ("le", "lt"):
        left, right = (Expr.of(a).text for a in relation.args)
        sign = "<=" if relation.op == "le" else "<"
        body += [f"left = {left}", f"right = {right}"]
        body += [f"assert not left {sign} right; print('left', left, ' right', right)"]
    else:
        body += [f"assert not ({conclusion})"]
    text = "\n".join(body)
    if text.count("\n") + 1 > LINES:
        msg = f"it would need {text.count(chr(10)) + 1} lines, more than {LINES}; run `recheck` instead"
        raise NoScript(msg)
    return text


def _used(lines: list[str], conditions: list[str]) -> list[str]:
    """The lines that something refers to; short literals share a line."""
    text = "\n".join([*lines, *conditions])
    kept: list[str] = []
    for line in lines:
        name = line.split(" = ")[0]
        if "assert" not in line and len(re.findall(rf"\b{name}\b", text)) == 1:
            continue
        plain = "assert" not in line and " = mat(" in line
        if (
            kept
            and plain
            and " = mat(" in kept[-1]
            and "assert" not in kept[-1]
            and len(kept[-1]) + len(line) < 110
        ):
            kept[-1] += f"; {line}"
        else:
            kept.append(line)
    return kept


def _broken(evidence: Counterexample, reading: Reading) -> str:
    from theory.evidence import Context

    _, certificate = evidence.establish(Context(reading.name, reading.statement, None))
    first: str = certificate["breaks"][0]
    return first


def stand_alone(entry: Registered) -> str:
    """The program for the first refuted reading that has one, otherwise one line that says why there is none."""
    reasons = []
    for reading in entry.claim.readings:
        try:
            return program(entry, reading)
        except NoScript as error:
            reasons.append(f"{reading.name}: {error}")
    return "# no stand-alone program: " + "; ".join(reasons)
