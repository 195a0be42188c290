r"""The kit of LaTeX: the same text as formulas, for pages and papers.

A value is a piece of LaTeX with the strength of its outermost operation, so that brackets appear only where
they must. `Kit.name` gives a value the symbol of the paper: the symbol is used from then on and its
definition is listed. An operation without a usual symbol is written as a named function of its arguments, so
every statement can be shown. Standard library only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from typing import Any

from theory import instances
from theory.claim import Setting
from theory.kits.exact import Exact
from theory.protocol import Instance, Kit, Mat, NotHere, Relation, Statement, Undecided

SIGNS = {"le": r"\le", "lt": "<", "eq": "="}
SUM, PRODUCT, POWER, ATOM = 1, 2, 3, 4  # strengths: a sum binds weakest


class Text:
    """A scalar as LaTeX; `constant` is its value where it is a known number."""

    __slots__ = ("constant", "latex", "strength")

    def __init__(self, latex: str, strength: int = ATOM, constant: Fraction | None = None) -> None:
        self.latex, self.strength, self.constant = latex, strength, constant

    @staticmethod
    def of(value: Any) -> Text:
        """A number, or the name of an open size, as a text."""
        if isinstance(value, Text):
            return value
        if isinstance(value, str):
            try:
                return Text.of(Fraction(value))
            except ValueError:
                return Text(_symbol(value))
        q = Fraction(value)
        if q.denominator == 1:
            return Text(str(q), ATOM if q >= 0 else SUM, q)
        sign = "-" if q < 0 else ""
        return Text(rf"{sign}\tfrac{{{abs(q.numerator)}}}{{{q.denominator}}}", ATOM if q > 0 else SUM, q)

    def at(self, strength: int) -> str:
        """The LaTeX, in brackets if it binds weaker than `strength`."""
        return self.latex if self.strength >= strength else rf"\left({self.latex}\right)"

    def __add__(self, other: Any) -> Text:
        o = Text.of(other)
        if self.constant is not None and o.constant is not None:
            return Text.of(self.constant + o.constant)
        if o.constant == 0:
            return self
        if self.constant == 0:
            return o
        return Text(_plus(self.latex, o.latex), SUM)

    def __radd__(self, other: Any) -> Text:
        return Text.of(other) + self

    def __neg__(self) -> Text:
        if self.constant is not None:
            return Text.of(-self.constant)
        return Text(f"-{self.at(PRODUCT)}", SUM)

    def __sub__(self, other: Any) -> Text:
        o = Text.of(other)
        if o.constant == 0:
            return self
        if self.constant is not None and o.constant is not None:
            return Text.of(self.constant - o.constant)
        if self.constant == 0:
            return -o
        return Text(f"{self.latex} - {o.at(PRODUCT)}", SUM)

    def __rsub__(self, other: Any) -> Text:
        return Text.of(other) - self

    def __mul__(self, other: Any) -> Any:
        if isinstance(other, Mat):
            return other.kit.scale(self, other)
        o = Text.of(other)
        if self.constant is not None and o.constant is not None:
            return Text.of(self.constant * o.constant)
        for a, b in ((self, o), (o, self)):
            if a.constant == 0:
                return a
            if a.constant == 1:
                return b
            if a.constant == -1:
                return -b
        if o.constant is not None:
            self, o = o, self
        if self.latex == o.latex:
            return Text(f"{self.at(ATOM)}^2", POWER)
        return Text(rf"{self.at(PRODUCT)}\,{o.at(PRODUCT)}", PRODUCT)

    def __rmul__(self, other: Any) -> Any:
        return Text.of(other) * self

    def __truediv__(self, other: Any) -> Text:
        o = Text.of(other)
        if self.constant is not None and o.constant:
            return Text.of(self.constant / o.constant)
        if o.constant == 1:
            return self
        return Text(rf"\frac{{{self.latex}}}{{{o.latex}}}", PRODUCT)

    def __rtruediv__(self, other: Any) -> Text:
        return Text.of(other) / self

    def __pow__(self, n: int) -> Text:
        return Text(f"{self.at(ATOM)}^{{{n}}}", POWER)


def _plus(left: str, right: str) -> str:
    return f"{left} - {right[1:].lstrip()}" if right.startswith("-") else f"{left} + {right}"


def _function(name: str, *arguments: str) -> str:
    return rf"\operatorname{{{name}}}\left({', '.join(arguments)}\right)"


class Formula(Mat):
    """A matrix as LaTeX. Sizes may be open, so products are not checked here; the exact kits check them."""

    __slots__ = ()

    def __matmul__(self, other: Mat) -> Mat:
        return self.kit.matmul(self, other)


GREEK = ("alpha", "beta", "gamma", "delta", "epsilon", "eta", "kappa", "lambda", "mu", "rho", "sigma", "tau")
CAPITALS = {"lam": r"\lambda", "Sig": r"\Sigma", "Lam": r"\Lambda", "Del": r"\Delta"}


def _symbol(name: str) -> str:
    r"""A name of the instance as a symbol: W0 -> W_{0}, gamma -> \gamma, Si -> \mathrm{Si}."""
    if not name.isidentifier():
        return name if "\\" in name or not name.isalpha() else rf"\mathrm{{{name}}}"
    stem, _, index = name.partition("_")
    digits = stem[len(stem.rstrip("0123456789")) :]
    stem = stem[: len(stem) - len(digits)]
    if stem in GREEK:
        shown = f"\\{stem}"
    elif stem in CAPITALS:
        shown = CAPITALS[stem]
    else:
        shown = stem if len(stem) == 1 else rf"\mathrm{{{stem}}}"
    below = ",".join(part for part in (digits, index.replace("_", ",")) if part)
    return f"{shown}_{{{below}}}" if below else shown


class Latex(Kit):
    """Statements as LaTeX; sizes may be numbers or the names of open sizes."""

    kind = "latex"

    def __init__(self) -> None:
        super().__init__()
        self.definitions: list[str] = []

    # -- atoms --------------------------------------------------------------------------------------------
    def letter(self, name: str, m: Any, n: Any, symmetric: bool = False, **more: Any) -> Mat:
        """A matrix variable; the signature of the kit of words, so that its letters serve here too."""
        return self._mat(_symbol(name), ATOM, (m, n))

    def number(self, name: str, *more: Any, **options: Any) -> Any:
        """A scalar variable."""
        return Text(_symbol(name))

    def name(self, label: str, value: Any) -> Any:
        shown = label if "\\" in label or "{" in label else _symbol(label)
        latex = value.data.latex if isinstance(value, Mat) else Text.of(value).latex
        line = f"{shown} = {latex}"
        if shown != latex and line not in self.definitions:
            self.definitions.append(line)
        return self._mat(shown, ATOM, value.shape) if isinstance(value, Mat) else Text(shown)

    def num(self, value: Any) -> Any:
        return Text.of(value)

    def _mat(self, latex: str, strength: int, shape: Any) -> Mat:
        return Formula(self, Text(latex, strength), tuple(shape))

    def mat(self, rows: Sequence[Sequence[Any]], shape: Any = None) -> Mat:
        shape = shape or (len(rows), len(rows[0]) if rows else 0)
        entries = [[Text.of(v) for v in r] for r in rows]
        if all(v.constant == 0 for r in entries for v in r):
            return self._mat("0", ATOM, shape)
        body = r" \\ ".join(" & ".join(v.latex for v in r) for r in entries)
        return self._mat(rf"\begin{{pmatrix}} {body} \end{{pmatrix}}", ATOM, shape)

    def eye(self, n: Any) -> Mat:
        return self._mat("I", ATOM, (n, n))

    def zeros(self, m: Any, n: Any) -> Mat:
        return self._mat("0", ATOM, (m, n))

    def unit(self, m: Any, n: Any, i: Any, j: Any) -> Mat:
        return self._mat(rf"e_{{{self._index(i)}}} e_{{{self._index(j)}}}^{{\top}}", PRODUCT, (m, n))

    @staticmethod
    def _index(i: Any) -> str:
        return str(i + 1) if isinstance(i, int) else str(Text.of(i).latex)

    def _selection(self, S: Any) -> str:
        if isinstance(S, str):
            return S
        if isinstance(S, range):
            S = tuple(S)
        if isinstance(S, (tuple, list)):
            numbers = [self._index(i) for i in S]
            run = (
                len(S) > 2
                and all(isinstance(i, int) for i in S)
                and list(S) == list(range(S[0], S[0] + len(S)))
            )
            return f"{numbers[0]}:{numbers[-1]}" if run else r"\{" + ",".join(numbers) + r"\}"
        return Text.of(S).latex

    # -- matrices -----------------------------------------------------------------------------------------
    def same_shape(self, A: Mat, B: Mat) -> Mat:
        return B  # sizes may be open; the exact kits check them

    def cols(self, A: Mat, S: Any) -> Mat:
        count = len(S) if isinstance(S, (tuple, list, range)) else f"|{S}|"
        return self._mat(f"{A.data.at(ATOM)}_{{:,{self._selection(S)}}}", POWER, (A.shape[0], count))

    def rows(self, A: Mat, S: Any) -> Mat:
        count = len(S) if isinstance(S, (tuple, list, range)) else f"|{S}|"
        return self._mat(f"{A.data.at(ATOM)}_{{{self._selection(S)},:}}", POWER, (count, A.shape[1]))

    def hcat(self, *parts: Mat) -> Mat:
        body = r" & ".join(P.data.latex for P in parts)
        width = parts[0].shape[1] if len(parts) == 1 else "+".join(str(P.shape[1]) for P in parts)
        if all(isinstance(P.shape[1], int) for P in parts):
            width = sum(P.shape[1] for P in parts)
        return self._mat(rf"\begin{{pmatrix}} {body} \end{{pmatrix}}", ATOM, (parts[0].shape[0], width))

    def vcat(self, *parts: Mat) -> Mat:
        body = r" \\ ".join(P.data.latex for P in parts)
        height = "+".join(str(P.shape[0]) for P in parts)
        exact = sum(P.shape[0] for P in parts) if all(isinstance(P.shape[0], int) for P in parts) else height
        return self._mat(rf"\begin{{pmatrix}} {body} \end{{pmatrix}}", ATOM, (exact, parts[0].shape[1]))

    def kron(self, A: Mat, B: Mat) -> Mat:
        shape = tuple(
            a * b if isinstance(a, int) and isinstance(b, int) else f"{a} {b}"
            for a, b in zip(A.shape, B.shape, strict=True)
        )
        return self._mat(rf"{A.data.at(POWER)} \otimes {B.data.at(POWER)}", PRODUCT, shape)

    def had(self, A: Mat, B: Mat) -> Mat:
        return self._mat(rf"{A.data.at(POWER)} \circ {B.data.at(POWER)}", PRODUCT, A.shape)

    def diag(self, A: Mat) -> Mat:
        return self._mat(_function("diag", A.data.latex), ATOM, A.shape)

    def diagm(self, v: Mat, m: Any, n: Any) -> Mat:
        return self._mat(_function("diag", v.data.latex), ATOM, (m, n))

    def matmul(self, A: Mat, B: Mat) -> Mat:
        shape = (A.shape[0], B.shape[1])
        if "0" in (A.data.latex, B.data.latex):
            return self._mat("0", ATOM, shape)
        for one, other in ((A, B), (B, A)):
            if one.data.latex == "I":
                return Formula(self, other.data, shape)
        if A.data.latex == B.data.latex and A.data.strength == ATOM:
            return self._mat(f"{A.data.latex}^2", POWER, shape)
        return self._mat(f"{A.data.at(PRODUCT)} {B.data.at(PRODUCT)}", PRODUCT, shape)

    def add(self, A: Mat, B: Mat) -> Mat:
        if A.data.latex == "0":
            return B
        if B.data.latex == "0":
            return A
        return self._mat(_plus(A.data.latex, B.data.latex), SUM, A.shape)

    def scale(self, c: Any, A: Mat) -> Mat:
        factor = Text.of(c)
        if factor.constant == 1 or A.data.latex == "0":
            return A
        if factor.constant == 0:
            return self._mat("0", ATOM, A.shape)
        if factor.constant == -1:
            return self._mat(f"-{A.data.at(PRODUCT)}", SUM, A.shape)
        return self._mat(
            rf"{factor.at(PRODUCT)}\,{A.data.at(PRODUCT)}",
            SUM if (factor.constant or 1) < 0 else PRODUCT,
            A.shape,
        )

    def transpose(self, A: Mat) -> Mat:
        shape = (A.shape[1], A.shape[0])
        if A.data.latex.endswith(r"^{\top}") and A.data.strength == POWER:
            return self._mat(A.data.latex.removesuffix(r"^{\top}"), ATOM, shape)
        if A.data.latex in ("0", "I"):
            return Formula(self, A.data, shape)
        return self._mat(f"{A.data.at(ATOM)}" + r"^{\top}", POWER, shape)

    # -- scalars ------------------------------------------------------------------------------------------
    def e(self, A: Mat, i: Any, j: Any) -> Any:
        at = f"_{{{self._index(i)}{self._index(j)}}}"
        return Text(
            f"{A.data.at(ATOM)}{at}" if "_" not in A.data.latex else rf"\left({A.data.latex}\right){at}"
        )

    def tr(self, A: Mat) -> Any:
        return Text(_function("tr", A.data.latex))

    def dot(self, A: Mat, B: Mat) -> Any:
        return Text(rf"\left\langle {A.data.latex},\, {B.data.latex} \right\rangle")

    def fro2(self, A: Mat) -> Any:
        return Text(rf"\left\| {A.data.latex} \right\|_F^2", POWER)

    def fro(self, A: Mat) -> Any:
        return Text(rf"\left\| {A.data.latex} \right\|_F")

    def sq(self, a: Any) -> Any:
        t = Text.of(a)
        return Text.of(t.constant**2) if t.constant is not None else Text(f"{t.at(ATOM)}^2", POWER)

    def det(self, A: Mat) -> Any:
        return Text(rf"\det\left({A.data.latex}\right)")

    def rank(self, A: Mat) -> Any:
        return Text(_function("rank", A.data.latex))

    def sqrt(self, a: Any) -> Any:
        return Text(rf"\sqrt{{{Text.of(a).latex}}}")

    def eig(self, S: Mat, i: Any) -> Any:
        return Text(rf"\lambda_{{{Text.of(i).latex}}}\left({S.data.latex}\right)")

    def sv(self, A: Mat, i: Any) -> Any:
        return Text(rf"\sigma_{{{Text.of(i).latex}}}\left({A.data.latex}\right)")

    def op(self, A: Mat) -> Any:
        return Text(rf"\left\| {A.data.latex} \right\|")

    def nuc(self, A: Mat) -> Any:
        return Text(rf"\left\| {A.data.latex} \right\|_*")

    def kap(self, A: Mat) -> Any:
        return Text(rf"\kappa\left({A.data.latex}\right)")

    def tail2(self, A: Mat, r: Any) -> Any:
        return Text(rf"\sum_{{j > {Text.of(r).latex}}} \sigma_j^2\left({A.data.latex}\right)", PRODUCT)

    def sum(self, values: Iterable[Any]) -> Any:
        total: Any = Text.of(0)
        for value in values:
            total = total + value
        return total

    def min_(self, a: Any, b: Any) -> Any:
        return Text(rf"\min\left({Text.of(a).latex},\, {Text.of(b).latex}\right)")

    def max_(self, a: Any, b: Any) -> Any:
        return Text(rf"\max\left({Text.of(a).latex},\, {Text.of(b).latex}\right)")

    def pos_part(self, a: Any) -> Any:
        return Text(rf"\left({Text.of(a).latex}\right)_+")

    def abs_(self, a: Any) -> Any:
        return Text(rf"\left| {Text.of(a).latex} \right|")

    # -- defined objects ----------------------------------------------------------------------------------
    def inv(self, A: Mat) -> Mat:
        return self._mat(f"{A.data.at(ATOM)}^{{-1}}", POWER, A.shape)

    def pinv(self, A: Mat) -> Mat:
        return self._mat(f"{A.data.at(ATOM)}^{{+}}", POWER, (A.shape[1], A.shape[0]))

    def sqrtm(self, S: Mat, label: str) -> Mat:
        return self._mat(f"{S.data.at(ATOM)}^{{1/2}}", POWER, S.shape)

    def svd_r(self, A: Mat, r: Any, label: str) -> Mat:
        return self._mat(
            rf"\operatorname{{SVD}}_{{{Text.of(r).latex}}}\left({A.data.latex}\right)", ATOM, A.shape
        )

    def skew_orth(self, Z: Mat) -> Mat:
        return self._mat(_function("Cayley", Z.data.latex), ATOM, Z.shape)

    def apply(self, label: str, parts: Sequence[Mat], parameters: Sequence[Any] = ()) -> Mat:
        """An operation without a symbol of its own: a named function of its arguments."""
        arguments = [P.data.latex for P in parts] + [Text.of(p).latex for p in parameters]
        return self._mat(_function(label, *arguments), ATOM, parts[0].shape)

    # -- relations ----------------------------------------------------------------------------------------
    def sym(self, S: Mat) -> Relation:
        return Relation("eq", (S, self._mat(f"{S.data.at(ATOM)}" + r"^{\top}", POWER, S.shape)))

    def relation(self, r: Relation) -> str:
        """A relation as LaTeX."""
        if r.op in ("le", "lt", "eq"):
            a, b = (v.data.latex if isinstance(v, Mat) else Text.of(v).latex for v in r.args)
            return f"{a} {SIGNS[r.op]} {b}"
        if r.op == "psd":
            return rf"{r.args[0].data.latex} \succeq 0"
        if r.op == "rank_le":
            return rf"{_function('rank', r.args[0].data.latex)} \le {Text.of(r.args[1]).latex}"
        joint = r" \;\wedge\; " if r.op == "all" else r" \;\vee\; "
        return joint.join(self.relation(part) for part in r.args)


def _letters(kit: Latex, setting: Setting) -> list[Callable[[], Instance]]:
    """Ways of making an instance of symbols: open sizes first, then the sizes of the setting."""
    ways: list[Callable[[], Instance]] = []
    if setting.letters is not None:
        letters = setting.letters
        ways.append(lambda: letters(kit))

    def of_sizes(d: dict[str, Any]) -> Instance:
        plain = Exact()
        shapes = setting.free(d)
        for shift in range(5):  # some parameters may hit a singular place of `build`
            values = [(i * i + shift) % 5 - 2 for i in range(instances.count(shapes))]
            try:
                x = setting.build(plain, instances.parameters(plain, shapes, values), d)
                break
            except (ZeroDivisionError, Undecided):
                continue
        else:
            msg = f"build fails at sizes {d} for simple parameters"
            raise NotHere(msg)
        out = Instance()
        for name, value in x.items():
            if isinstance(value, Mat):
                out[name] = kit.letter(name, *value.shape)
            else:
                out[name] = value if isinstance(value, (int, tuple)) else kit.number(name)
        return out

    dims = [dict(d) for d in setting.dims]
    ways += [lambda d=d: of_sizes(d) for d in dims[1:] + dims[:1]]  # type: ignore[misc]
    return ways


def to_latex(statement: Statement, setting: Setting) -> dict[str, list[str]]:
    """A statement as LaTeX: {"definitions": [...], "hypotheses": [...], "conclusions": [...]}.

    Sizes stay open where the setting has letters and the text does not count with sizes; otherwise the second
    entry of `Setting.dims` is shown.

    Raises:
        NotHere: No instance of symbols can be made; the message says why.
    """
    problem: Exception | None = None
    for way in range(1 + len(setting.dims) + (setting.letters is not None)):
        kit = Latex()
        ways = _letters(kit, setting)
        if way >= len(ways):
            break
        try:
            givens, claims = kit.collect(statement, ways[way]())
        except (TypeError, ValueError, AttributeError, KeyError, NotHere, IndexError) as error:
            problem = problem or error
            continue
        return {
            "definitions": kit.definitions,
            "hypotheses": [kit.relation(r) for _, r in givens],
            "conclusions": [kit.relation(r) for _, r in claims],
        }
    msg = f"the statement cannot be written with symbols: {problem}"
    raise NotHere(msg)
