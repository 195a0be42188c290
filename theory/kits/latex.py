"""The kit of LaTeX: a statement as formulas for pages, by running the same text.

It shows how the statement was coded: definitions in the order in which the text names them, hypotheses,
conclusions. It proves nothing, and the wording of a claim stands in its docstring.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

from theory import instances
from theory.claim import Setting
from theory.kits.exact import Exact
from theory.protocol import BadWitness, Instance, Kit, Mat, NotHere, Relation, Statement, Undecided

SUM, PRODUCT, POWER, ATOM = 1, 2, 5, 9  # how tightly a term binds
GREEK = {
    "gamma": r"\gamma",
    "eta": r"\eta",
    "delta": r"\delta",
    "eps": r"\varepsilon",
    "epsilon": r"\varepsilon",
    "alpha": r"\alpha",
    "Sig": r"\Sigma",
    "sigma": r"\sigma",
    "lam": r"\lambda",
    "kap": r"\kappa",
    "Delta": r"\Delta",
    "Si": r"\Sigma_i^{1/2}",
    "So": r"\Sigma_o^{1/2}",
}


class Named(int):
    """A static size that shows its symbol."""

    symbol: str

    @staticmethod
    def of(value: int, symbol: str) -> Named:
        """The size `value`, shown as `symbol`."""
        named = Named(value)
        named.symbol = symbol
        return named

    def __str__(self) -> str:
        return self.symbol


class Chosen(tuple):  # type: ignore[type-arg]
    """A static index set that shows its symbol."""

    symbol = "S"


class Term:
    """A piece of LaTeX and how tightly it binds; stands for a scalar."""

    def __init__(self, text: str, binds: int = ATOM) -> None:
        self.text, self.binds = text, binds

    @staticmethod
    def of(value: Any) -> Term:
        """Constants and symbols as terms."""
        if isinstance(value, Term):
            return value
        if isinstance(value, (Named, str)):
            return Term(str(value))
        q = Fraction(value)
        if q.denominator == 1:
            return Term(str(q), ATOM if q >= 0 else SUM)
        return Term(
            rf"{'-' if q < 0 else ''}\tfrac{{{abs(q.numerator)}}}{{{q.denominator}}}", ATOM if q >= 0 else SUM
        )

    def within(self, binds: int) -> str:
        """The text, in parentheses where it binds less."""
        return self.text if self.binds >= binds else rf"\left({self.text}\right)"

    def __add__(self, other: Any) -> Term:
        o = Term.of(other)
        if o.text == "0":
            return self
        if self.text == "0":
            return o
        if o.text.startswith("-"):
            return Term(f"{self.text} - {o.text[1:]}", SUM)
        return Term(f"{self.text} + {o.text}", SUM)

    def __radd__(self, other: Any) -> Term:
        return Term.of(other) + self

    def __sub__(self, other: Any) -> Term:
        return Term(f"{self.text} - {Term.of(other).within(PRODUCT)}", SUM)

    def __rsub__(self, other: Any) -> Term:
        return Term.of(other) - self

    def __neg__(self) -> Term:
        return Term(f"-{self.within(PRODUCT)}", SUM)

    def __mul__(self, other: Any) -> Any:
        if isinstance(other, Mat):
            return other.kit.scale(self, other)
        o = Term.of(other)
        if o.text == self.text:
            return Term(f"{self.within(ATOM)}^2", POWER)
        if o.text == "1":
            return self
        return Term(rf"{self.within(PRODUCT)}\,{o.within(PRODUCT)}", PRODUCT)

    def __rmul__(self, other: Any) -> Any:
        return self if not isinstance(other, Mat) and other == 1 else Term.of(other) * self

    def __truediv__(self, other: Any) -> Term:
        return Term(rf"\frac{{{self.text}}}{{{Term.of(other).text}}}", PRODUCT)

    def __rtruediv__(self, other: Any) -> Term:
        return Term.of(other) / self


class Latex(Kit):
    """Rendering; ``data`` of a matrix is a `Term`."""

    kind = "latex"

    def __init__(self) -> None:
        super().__init__()
        self.definitions: list[str] = []

    def _mat(self, text: str, binds: int, shape: tuple[Any, Any]) -> Mat:
        return Mat(self, Term(text, binds), shape)

    def name(self, label: str, value: Any) -> Any:
        text = value.data.text if isinstance(value, Mat) else Term.of(value).text
        if text != label:
            self.definitions.append(f"{label} = {text}")
        return self._mat(label, ATOM, value.shape) if isinstance(value, Mat) else Term(label)

    def num(self, value: Any) -> Any:
        return Term.of(value)

    def mat(self, rows: Sequence[Sequence[Any]], shape: Any = None) -> Mat:
        body = r" \\ ".join(" & ".join(Term.of(v).text for v in r) for r in rows)
        return self._mat(rf"\begin{{bmatrix}}{body}\end{{bmatrix}}", ATOM, shape or (len(rows), len(rows[0])))

    def eye(self, n: int) -> Mat:
        return self._mat("I", ATOM, (n, n))

    def zeros(self, m: int, n: int) -> Mat:
        return self._mat("0", ATOM, (m, n))

    def unit(self, m: int, n: int, i: int, j: int) -> Mat:
        return self._mat(rf"e_{{{i + 1}}} e_{{{j + 1}}}^{{\top}}", PRODUCT, (m, n))

    def cols(self, A: Mat, S: Sequence[int]) -> Mat:
        shown = S.symbol if isinstance(S, Chosen) else ",".join(str(i + 1) for i in S)
        return self._mat(rf"{A.data.within(POWER)}_{{:,{shown}}}", POWER, (A.shape[0], len(S)))

    def hcat(self, *parts: Mat) -> Mat:
        shape = (parts[0].shape[0], sum(P.shape[1] for P in parts))
        return self._mat(r"\left[" + r"\;".join(P.data.text for P in parts) + r"\right]", ATOM, shape)

    def kron(self, A: Mat, B: Mat) -> Mat:
        shape = (A.shape[0] * B.shape[0], A.shape[1] * B.shape[1])
        return self._mat(rf"{A.data.within(PRODUCT)} \otimes {B.data.within(PRODUCT)}", SUM, shape)

    def had(self, A: Mat, B: Mat) -> Mat:
        return self._mat(rf"{A.data.within(PRODUCT)} \circ {B.data.within(PRODUCT)}", SUM, A.shape)

    def diag(self, A: Mat) -> Mat:
        return self._mat(rf"\operatorname{{diag}}\left({A.data.text}\right)", POWER, A.shape)

    def diagm(self, v: Mat, m: int, n: int) -> Mat:
        return self._mat(rf"\operatorname{{diag}}\left({v.data.text}\right)", POWER, (m, n))

    def matmul(self, A: Mat, B: Mat) -> Mat:
        if A.data.text == "I":
            return B
        if B.data.text == "I":
            return A
        return self._mat(
            f"{A.data.within(PRODUCT)} {B.data.within(PRODUCT)}", PRODUCT, (A.shape[0], B.shape[1])
        )

    def add(self, A: Mat, B: Mat) -> Mat:
        total = A.data + B.data
        return Mat(self, total, A.shape)

    def scale(self, c: Any, A: Mat) -> Mat:
        if not isinstance(c, Term) and c == -1:
            return Mat(self, -A.data, A.shape)
        return Mat(self, Term.of(c) * A.data, A.shape)

    def transpose(self, A: Mat) -> Mat:
        if A.data.text == "I":
            return A
        return self._mat(rf"{A.data.within(ATOM)}^{{\top}}", POWER, (A.shape[1], A.shape[0]))

    def inv(self, A: Mat) -> Mat:
        return self._mat(f"{A.data.within(ATOM)}^{{-1}}", POWER, A.shape)

    def pinv(self, A: Mat) -> Mat:
        return self._mat(f"{A.data.within(ATOM)}^{{+}}", POWER, (A.shape[1], A.shape[0]))

    def proj(self, A: Mat) -> Mat:
        return self._mat(rf"\Pi_{{{A.data.text}}}", POWER, (A.shape[0], A.shape[0]))

    def sqrtm(self, S: Mat, label: str) -> Mat:
        return self._mat(f"{S.data.within(ATOM)}^{{1/2}}", POWER, S.shape)

    def svd_r(self, A: Mat, r: Any, label: str) -> Mat:
        return self._mat(rf"\mathrm{{SVD}}_{{{r}}}\left({A.data.text}\right)", POWER, A.shape)

    # -- scalars ------------------------------------------------------------------------------------------
    def e(self, A: Mat, i: int, j: int) -> Any:
        return Term(f"{A.data.within(ATOM)}_{{{i + 1},{j + 1}}}")

    def _function(self, name: str, A: Mat) -> Term:
        return Term(rf"\operatorname{{{name}}}\left({A.data.text}\right)", POWER)

    def tr(self, A: Mat) -> Any:
        return self._function("tr", A)

    def det(self, A: Mat) -> Any:
        return self._function("det", A)

    def rank(self, A: Mat) -> Any:
        return self._function("rank", A)

    def kap(self, A: Mat) -> Any:
        return Term(rf"\kappa\left({A.data.text}\right)", ATOM)

    def dot(self, A: Mat, B: Mat) -> Any:
        return Term(rf"\left\langle {A.data.text},\, {B.data.text} \right\rangle")

    def fro2(self, A: Mat) -> Any:
        return Term(rf"\left\|{A.data.text}\right\|_F^2", POWER)

    def fro(self, A: Mat) -> Any:
        return Term(rf"\left\|{A.data.text}\right\|_F")

    def op(self, A: Mat) -> Any:
        return Term(rf"\left\|{A.data.text}\right\|")

    def nuc(self, A: Mat) -> Any:
        return Term(rf"\left\|{A.data.text}\right\|_*")

    def sv(self, A: Mat, i: Any) -> Any:
        return Term(rf"\sigma_{{{i}}}\left({A.data.text}\right)")

    def eig(self, S: Mat, i: Any) -> Any:
        return Term(rf"\lambda_{{{i}}}\left({S.data.text}\right)")

    def tail2(self, A: Mat, r: Any) -> Any:
        return Term(rf"\textstyle\sum_{{j>{r}}} \sigma_j^2\left({A.data.text}\right)", PRODUCT)

    def sq(self, a: Any) -> Any:
        return Term(f"{Term.of(a).within(ATOM)}^2", POWER)

    def sqrt(self, a: Any) -> Any:
        return Term(rf"\sqrt{{{Term.of(a).text}}}")

    def min_(self, a: Any, b: Any) -> Any:
        return Term(rf"\min\left({Term.of(a).text},\, {Term.of(b).text}\right)")

    def max_(self, a: Any, b: Any) -> Any:
        return Term(rf"\max\left({Term.of(a).text},\, {Term.of(b).text}\right)")

    def pos_part(self, a: Any) -> Any:
        return Term(rf"\left({Term.of(a).text}\right)_+")

    def abs_(self, a: Any) -> Any:
        return Term(rf"\left|{Term.of(a).text}\right|")

    # -- relations ------------------------------------------------------------------------------------------
    def relation(self, relation: Relation) -> str:
        """A relation as a formula."""
        signs = {"le": r"\le", "lt": "<", "eq": "="}
        texts = [a.data.text if isinstance(a, Mat) else a for a in relation.args]
        if relation.op in signs:
            left, right = (Term.of(t).text for t in texts)
            return f"{left} {signs[relation.op]} {right}"
        if relation.op == "psd":
            return rf"{texts[0]} \succeq 0"
        if relation.op == "rank_le":
            return rf"\operatorname{{rank}}\left({texts[0]}\right) \le {texts[1]}"
        joined = r" \;\wedge\; " if relation.op == "all" else r" \;\vee\; "
        return joined.join(rf"\left({self.relation(part)}\right)" for part in relation.args)


def symbol(name: str) -> str:
    """The LaTeX symbol of a field of an instance."""
    if name in GREEK:
        return GREEK[name]
    head = name.rstrip("0123456789")
    tail = name[len(head) :]
    shown = GREEK.get(head, head if len(head) == 1 else (rf"{head[0]}_{{{head[1:]}}}" if head else name))
    return f"{shown}_{{{tail}}}" if tail and "_" not in shown else shown + tail


def symbols(k: Latex, setting: Setting) -> Instance:
    """An instance of symbols, with the fields of the instances that the setting makes."""
    for d in reversed(list(setting.dims)):
        sizes = dict(d)
        shapes = setting.free(sizes)
        exact = Exact()
        values = [((5 * i + 3) % 7) - 3 for i in range(instances.count(shapes))]
        try:
            x = setting.build(exact, instances.parameters(exact, shapes, values), sizes)
        except (Undecided, BadWitness, ZeroDivisionError):
            continue
        return Instance({name: _symbol(k, name, value) for name, value in x.items()})
    msg = "symbols: no instance could be built"
    raise NotHere(msg)


def _symbol(k: Latex, name: str, value: Any) -> Any:
    if isinstance(value, Mat):
        return Mat(k, Term(symbol(name)), value.shape)
    if isinstance(value, bool) or not isinstance(value, (int, tuple, Fraction)):
        return value
    if isinstance(value, int):
        return Named.of(value, symbol(name))
    if isinstance(value, tuple):
        chosen = Chosen(value)
        chosen.symbol = name
        return chosen
    return Term(symbol(name))


def to_latex(statement: Statement, setting: Setting) -> dict[str, list[str]]:
    """A statement as LaTeX: ``definitions``, ``hypotheses``, ``conclusions``; ``note`` where it has none."""
    k = Latex()
    try:
        givens, claims = k.collect(statement, symbols(k, setting))
        hypotheses = [k.relation(r) for _, r in givens]
        conclusions = [k.relation(r) for _, r in claims]
    except (NotHere, TypeError, AttributeError, ValueError, KeyError) as error:
        return {
            "definitions": [],
            "hypotheses": [],
            "conclusions": [],
            "note": [f"not shown as a formula: {error}"],
        }
    return {"definitions": k.definitions, "hypotheses": hypotheses, "conclusions": conclusions, "note": []}
