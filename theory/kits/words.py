"""The kit of words: proofs that hold for every dimension.

A matrix is a combination of words in letters and their transposes, a scalar a polynomial in traces of words,
norms and named numbers. Defined objects bring rewriting rules that follow from their definitions (for
Y = pinv(w): w Y w = w, Y w Y = Y, (w Y)' = w Y, (Y w)' = Y w and their consequences). Both sides of a
conclusion are brought to a normal form by those rules, by hypotheses that the proof names, by cyclicity of
the trace and by tr(w) = tr(w'). Equal normal forms prove an equality for every size, since no size was used.

An inequality is proved by writing right minus left as a sum of quantities that are non-negative for a stated
reason: squares, traces against a matrix that a hypothesis calls psd, submultiplicativity, Eckart-Young.
Rewriting that stops too early can only fail to prove; it cannot prove something false. Standard library only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from theory.protocol import Instance, Kit, Mat, NotHere, Relation, Statement

Letter = tuple[str, bool]  # name, transposed
Word = tuple[Letter, ...]
Monomial = tuple[Any, ...]  # sorted generators: names, traces, norms
STEPS = 20_000  # rewriting steps before a proof is given up


class ProofFails(Exception):
    """The proof does not establish the conclusion; the message shows what is left over."""


class Poly:
    """A scalar: a polynomial with rational coefficients in commuting generators."""

    __slots__ = ("terms",)

    def __init__(self, terms: Mapping[Monomial, Fraction]) -> None:
        self.terms = {m: c for m, c in terms.items() if c}

    @staticmethod
    def of(value: Any) -> Poly:
        """A constant as a polynomial."""
        return value if isinstance(value, Poly) else Poly({(): Fraction(value)})

    @staticmethod
    def gen(generator: Any) -> Poly:
        """A single generator."""
        return Poly({(generator,): Fraction(1)})

    def __add__(self, other: Any) -> Poly:
        terms = dict(self.terms)
        for m, c in Poly.of(other).terms.items():
            terms[m] = terms.get(m, Fraction(0)) + c
        return Poly(terms)

    __radd__ = __add__

    def __neg__(self) -> Poly:
        return Poly({m: -c for m, c in self.terms.items()})

    def __sub__(self, other: Any) -> Poly:
        return self + (-Poly.of(other))

    def __rsub__(self, other: Any) -> Poly:
        return Poly.of(other) - self

    def __mul__(self, other: Any) -> Any:
        if isinstance(other, Mat):
            return other.kit.scale(self, other)
        total = Poly({})
        for m, c in self.terms.items():
            for n, d in Poly.of(other).terms.items():
                total = total + _product(m, n, c * d)
        return total

    __rmul__ = __mul__

    def __truediv__(self, other: Any) -> Poly:
        divisor = Poly.of(other).terms
        if list(divisor) != [()]:
            msg = "division by something that is not a constant; multiply it out"
            raise NotHere(msg)
        return Poly({m: c / divisor[()] for m, c in self.terms.items()})

    def __str__(self) -> str:
        parts = [f"{c}" + "".join(f"*{_show(g)}" for g in m) for m, c in sorted(self.terms.items(), key=repr)]
        return " + ".join(parts) or "0"


@dataclass(frozen=True)
class Root:
    """The generator sqrt(of); its square is ``of`` again."""

    radicand: tuple[tuple[Monomial, Fraction], ...]


def _product(m: Monomial, n: Monomial, c: Fraction) -> Poly:
    joined = sorted([*m, *n], key=repr)
    for i in range(len(joined) - 1):
        if isinstance(joined[i], Root) and joined[i] == joined[i + 1]:
            rest = tuple(joined[:i] + joined[i + 2 :])
            return Poly({rest: c}) * Poly(dict(joined[i].radicand))  # type: ignore[no-any-return]
    return Poly({tuple(joined): c})


def _show(generator: Any) -> str:
    if isinstance(generator, tuple) and len(generator) == 2 and isinstance(generator[1], tuple):
        return f"{generator[0]}({' '.join(n + (chr(39) if t else '') for n, t in generator[1])})"
    return str(generator)


_EARNED = object()  # only methods of `Words` that say why may make a non-negative scalar


@dataclass(frozen=True)
class NonNegative:
    """A scalar known to be non-negative, and why; closed under sums and products."""

    value: Poly
    reason: str
    seal: object = None

    def __post_init__(self) -> None:
        if self.seal is not _EARNED:
            msg = "a non-negative term comes from a method of the kit, such as `square`"
            raise ProofFails(msg)

    def __add__(self, other: NonNegative) -> NonNegative:
        return NonNegative(self.value + other.value, f"{self.reason}; {other.reason}", _EARNED)

    def __mul__(self, other: NonNegative) -> NonNegative:
        return NonNegative(self.value * other.value, f"{self.reason} times {other.reason}", _EARNED)


# (kit, instance) -> conclusion -> the non-negative terms that right minus left is the sum of
Proof = Callable[[Any, Instance], Mapping[str, Sequence[NonNegative]]]


class Words(Kit):
    """Evaluation in the free algebra with transposition modulo the rules of the defined objects."""

    kind = "words"

    def __init__(self) -> None:
        super().__init__()
        self.symmetric: set[str] = set()
        self.rules: list[tuple[Word, Mat]] = []
        self._known: dict[Any, Mat] = {}
        self._rows: dict[Letter, Any] = {}  # number of rows of a letter and of its transpose
        self._projectors: list[tuple[Mat, Mat]] = []  # projector and a matrix that spans its space

    # -- letters and instances --------------------------------------------------------------------------
    def letter(self, name: str, rows: Any, columns: Any, symmetric: bool = False) -> Mat:
        """A letter: a matrix about which nothing is known but its shape and symmetry."""
        if symmetric:
            self.symmetric.add(name)
        self._rows[name, False], self._rows[name, True] = rows, columns
        return Mat(self, {((name, False),): Poly.of(1)}, (rows, columns))

    def number(self, name: str) -> Poly:
        """A named real number."""
        return Poly.gen(name)

    def _combo(self, data: Mapping[Word, Poly], shape: tuple[Any, Any]) -> Mat:
        return Mat(self, {w: c for w, c in data.items() if c.terms}, shape)

    # -- ring operations ----------------------------------------------------------------------------------
    def num(self, value: Any) -> Any:
        if isinstance(value, str) and value.isidentifier():  # a size left open, such as the rank r
            return self.number(value)
        return Poly.of(value)

    def eye(self, n: Any) -> Mat:
        return Mat(self, {(): Poly.of(1)}, (n, n))

    def zeros(self, m: Any, n: Any) -> Mat:
        return Mat(self, {}, (m, n))

    def matmul(self, A: Mat, B: Mat) -> Mat:
        out: dict[Word, Poly] = {}
        for v, c in A.data.items():
            for w, d in B.data.items():
                out[v + w] = out.get(v + w, Poly({})) + c * d
        return self.normal(self._combo(out, (A.shape[0], B.shape[1])))

    def add(self, A: Mat, B: Mat) -> Mat:
        out = dict(A.data)
        for w, c in B.data.items():
            out[w] = out.get(w, Poly({})) + c
        return self._combo(out, A.shape)

    def scale(self, c: Any, A: Mat) -> Mat:
        return self._combo({w: Poly.of(c) * d for w, d in A.data.items()}, A.shape)

    def transpose(self, A: Mat) -> Mat:
        return self.normal(
            self._combo({self._star(w): c for w, c in A.data.items()}, (A.shape[1], A.shape[0]))
        )

    def _star(self, word: Word) -> Word:
        return tuple((n, not t and n not in self.symmetric) for n, t in reversed(word))

    # -- rewriting ----------------------------------------------------------------------------------------
    def _rule(self, word: Word, value: Mat, transposed: bool = True) -> None:
        """Rewrite `word` as `value`, and its transpose likewise; the caller answers for word = value."""
        both = ((word, value), (self._star(word), self.transpose(value)))
        for w, v in both if transposed else both[:1]:
            if v.data.keys() != {w} and all(w != known for known, _ in self.rules):
                self.rules.append((w, v))

    def _steps(self, word: Word) -> Iterator[Mat]:
        """Every way of applying one rule once."""
        for pattern, value in self.rules:
            size = len(pattern)
            for i in range(len(word) - size + 1):
                if word[i : i + size] == pattern:
                    before, after = word[:i], word[i + size :]
                    yield Mat(self, {before + w + after: c for w, c in value.data.items()}, (None, None))

    def normal(self, A: Mat) -> Mat:
        """The normal form: no rule applies any more."""
        pending: dict[Word, Poly] = dict(A.data)
        done: dict[Word, Poly] = {}
        for _ in range(STEPS):
            if not pending:
                return self._combo(done, A.shape)
            word, c = pending.popitem()
            step = next(self._steps(word), None)
            if step is None:
                done[word] = done.get(word, Poly({})) + c
            else:
                for w, d in step.data.items():
                    pending[w] = pending.get(w, Poly({})) + c * d
        msg = "rewriting does not end; orient a hypothesis the other way"
        raise ProofFails(msg)

    def tr(self, A: Mat) -> Any:
        total = Poly({})
        for word, c in self.normal(A).data.items():
            total = total + c * self._trace(word, A.shape[0], 0)
        return total

    def _trace(self, word: Word, size: Any, depth: int) -> Poly:
        if not word:
            return Poly.gen(f"dim {size}")
        if depth > 200:
            msg = "rewriting under the trace does not end"
            raise ProofFails(msg)
        seen, frontier = {word}, [word]
        while frontier:  # words of one length that have the same trace, until a rule shortens one of them
            current = frontier.pop()
            same = [current[1:] + current[:1], self._star(current)]
            for step in self._steps(current):
                if len(step.data) == 1 and all(
                    len(w) == len(word) and str(c) == "1" for w, c in step.data.items()
                ):
                    same += step.data
                    continue
                total = Poly({})
                rows = self._rows[current[0]]  # of the identity, should nothing else be left
                for w, c in step.data.items():
                    total = total + c * self._trace(w, rows, depth + 1)
                return total
            frontier += [w for w in dict.fromkeys(same) if w not in seen]
            seen.update(same)
        return Poly.gen(("tr", min(seen)))

    # -- defined objects ----------------------------------------------------------------------------------
    def _key(self, kind: str, A: Mat, *more: Any) -> Any:
        return (kind, tuple(sorted((w, str(c)) for w, c in A.data.items())), *more)

    def _single(self, A: Mat) -> Word | None:
        if len(A.data) == 1:
            ((word, c),) = A.data.items()
            if str(c) == "1" and word:
                return word  # type: ignore[no-any-return]
        return None

    def _orient(self, left: Mat, right: Mat) -> None:
        """Add left = right as a rule on the largest word of left."""
        if not left.data:
            msg = "an equation whose left side is zero; state it the other way round"
            raise NotHere(msg)
        lead = max(left.data, key=lambda w: (len(w), w))
        c = left.data[lead]
        if list(c.terms) != [()]:
            msg = "an equation whose leading coefficient is not a constant"
            raise NotHere(msg)
        rest = self._combo({w: d for w, d in left.data.items() if w != lead}, left.shape)
        self._rule(lead, self.scale(Poly.of(1) / c, right - rest))

    def proj(self, A: Mat) -> Mat:
        A = self.normal(A)
        key = self._key("proj", A)
        if key not in self._known:
            P = self.letter(f"P{len(self._known)}", A.shape[0], A.shape[0], symmetric=True)
            self._known[key] = P
            (p,) = P.data
            self._rule(p + p, P)
            if A.data:
                lead = max(A.data, key=lambda w: (len(w), w))
                rest = self._combo({w: d for w, d in A.data.items() if w != lead}, A.shape)
                self._rule(p + lead, self.scale(Poly.of(1) / A.data[lead], A - self._prepend(p, rest)))
            self._nest(P, A)
            self._link_projector(A)
        return self._known[key]

    def _link_projector(self, A: Mat) -> None:
        """A A^+ is the projector on the columns of A, once both have letters."""
        word, P = self._single(A), self._known.get(self._key("proj", A))
        Y = self._single(self._known.get(self._key("pinv", A), self.zeros(*A.shape)))
        if word is not None and P is not None and Y is not None and len(Y) == 1:
            self._rule(word + Y, P)

    def _nest(self, P: Mat, A: Mat) -> None:
        """Projectors whose spaces contain one another: P0 A = A gives P0 P = P."""
        for other, B in self._projectors:
            for outer, inner, spans in ((other, P, A), (P, other, B)):
                if (
                    outer.shape[1] == spans.shape[0]
                    and self.normal(outer @ spans).data.keys() == spans.data.keys()
                    and not (outer @ spans - spans).data
                ):
                    ((o, _),), ((i, _),) = outer.data.items(), inner.data.items()
                    self._rule(o + i, inner)
        self._projectors.append((P, A))

    def _prepend(self, p: Word, A: Mat) -> Mat:
        return self._combo({p + w: c for w, c in A.data.items()}, A.shape)

    def pinv(self, A: Mat) -> Mat:
        A = self.normal(A)
        key = self._key("pinv", A)
        if key in self._known:
            return self._known[key]
        word, flipped = self._single(A), self._known.get(self._key("pinv", A.T))
        if flipped is not None:
            self._known[key] = flipped.T
            self._link_projector(A)
            return self._known[key]
        if word is None:
            msg = "the pseudo-inverse of a sum; give the sum a letter of its own"
            raise NotHere(msg)
        if (shown := self._pinv_by_root(A, word)) is not None:
            self._known[key] = shown
            return shown
        even = self._star(word) == word
        Y = self.letter(f"Y{len(self._known)}", A.shape[1], A.shape[0], symmetric=even)
        self._known[key] = Y
        (y,) = Y.data
        value = self._combo({word: Poly.of(1)}, A.shape)
        star = self._star(word)
        self._rule(word + y + word, value)
        self._rule(y + word + y, Y)
        if even:  # then Y A = A Y, A A Y = A and A Y Y = Y
            self._rule(
                y + word, self._combo({word + y: Poly.of(1)}, (A.shape[1], A.shape[1])), transposed=False
            )
            self._rule(word + word + y, value)
            self._rule(word + y + y, Y)
        else:
            ystar = self._star(y)
            self._rule(ystar + star, self._combo({word + y: Poly.of(1)}, (A.shape[0], A.shape[0])), False)
            self._rule(star + ystar, self._combo({y + word: Poly.of(1)}, (A.shape[1], A.shape[1])), False)
            self._rule(star + word + y, self._combo({star: Poly.of(1)}, (A.shape[1], A.shape[0])))
            self._rule(y + word + star, self._combo({star: Poly.of(1)}, (A.shape[1], A.shape[0])))
        self._link_projector(A)
        return Y

    def _pinv_by_root(self, A: Mat, word: Word) -> Mat | None:
        """(R^2)^+ = (R^+)^2 for a symmetric letter R, and Z^+ = Z'(Z Z')^+ where Z Z' is known to be R^2."""
        if len(word) == 2 and word[0] == word[1] and self._star(word) == word:
            R = self._combo({word[:1]: Poly.of(1)}, A.shape)
            return self.pinv(R) @ self.pinv(R)
        gram = self._single(A @ A.T)
        if (
            gram is None
            or len(gram) != 2
            or gram[0] != gram[1]
            or self._star(gram) != gram
            or word == gram[:1]
        ):
            return None
        R = self._combo({gram[:1]: Poly.of(1)}, (A.shape[0], A.shape[0]))
        return A.T @ self.pinv(R) @ self.pinv(R)

    def inv(self, A: Mat) -> Mat:
        Y = self.pinv(A)
        word, ((y, _),) = self._single(A), Y.data.items()
        if word is None:
            msg = "the inverse of a sum"
            raise NotHere(msg)
        for pair in (word + y, y + word):
            self.rules.insert(0, (pair, self.eye(A.shape[0])))
        return Y

    def sqrtm(self, S: Mat, label: str) -> Mat:
        S = self.normal(S)
        key = self._key("root", S)
        if key not in self._known:
            R = self.letter(label, S.shape[0], S.shape[0], symmetric=True)
            self._known[key] = R
            ((r, _),) = R.data.items()
            word = self._single(S)
            if word is not None and len(word) > 2:
                self._rule(word, self._combo({r + r: Poly.of(1)}, S.shape))
                half = word[: len(word) // 2]
                if half + self._star(half) == word:  # S = Z Z': the columns of Z are those of the root
                    (y,) = self.pinv(R).data
                    self._rule(r + y + half, self._combo({half: Poly.of(1)}, (S.shape[0], None)))
                    back = self._star(half)
                    self._rule(back + r + y, self._combo({back: Poly.of(1)}, (None, S.shape[0])))
            else:
                self._rule(r + r, S)
        return self._known[key]

    def svd_r(self, A: Mat, r: Any, label: str) -> Mat:
        """A Q, where Q projects on the top r right singular vectors: Q commutes with A'A."""
        A = self.normal(A)
        key = self._key("svd", A, str(r))
        if key not in self._known:
            Q = self.letter(f"Q[{label}]", A.shape[1], A.shape[1], symmetric=True)
            self._known[key] = Q
            ((q, _),) = Q.data.items()
            self._rule(q + q, Q)
            gram = self._single(A.T @ A)
            if gram is not None:
                self._rule(q + gram, self._combo({gram + q: Poly.of(1)}, Q.shape), transposed=False)
        return A @ self._known[key]

    def cols(self, A: Mat, S: Any) -> Mat:
        key = ("cols", str(S), str(A.shape[1]))
        if key not in self._known:
            name = f"U[{S}]"
            if (name, False) in self._rows:  # the same index set of another size is another letter
                name = f"U[{S} of {A.shape[1]}]"
            U = self.letter(name, A.shape[1], f"|{S}|")
            self._known[key] = U
            ((u, _),) = U.data.items()
            self._rule(self._star(u) + u, self.eye(U.shape[1]))
        return A @ self._known[key]

    # -- scalars ------------------------------------------------------------------------------------------
    def sqrt(self, a: Any) -> Any:
        p = Poly.of(a)
        return Poly.gen(Root(tuple(sorted(p.terms.items(), key=repr))))

    def op(self, A: Mat) -> Any:
        A = self.normal(A)
        sign = min(A.data.items(), default=((), Poly.of(1)))[1].terms.get((), Fraction(0))
        return Poly.gen(self._key("op", self.scale(-1, A) if sign < 0 else A))  # |-A| = |A|

    def sv(self, A: Mat, i: Any) -> Any:
        return Poly.gen(self._key("sv", self.normal(A), str(i)))

    def rank(self, A: Mat) -> Any:
        return Poly.gen(self._key("rank", self.normal(A)))

    def pos_part(self, a: Any) -> Any:
        p = Poly.of(a)
        return Poly.gen(("positive part", tuple(sorted(p.terms.items(), key=repr))))

    def tail2(self, A: Mat, r: Any) -> Any:
        return self.fro2(A - self.svd_r(A, r, f"tail {len(self._known)}"))

    # -- what a proof may use -------------------------------------------------------------------------------
    def use(self, hypothesis: str) -> None:
        """Turn the hypothesis of that name, an equation between matrices, into a rule (left side -> right)."""
        relation = dict(self.givens).get(hypothesis)
        if relation is None or relation.op != "eq" or not isinstance(relation.args[0], Mat):
            msg = f"there is no hypothesis {hypothesis!r} that equates two matrices"
            raise ProofFails(msg)
        left, right = self.normal(relation.args[0]), self.normal(relation.args[1])
        if (left - right).data:  # else an earlier pass made it a rule
            self._orient(left, right)

    def square(self, Z: Mat, times: Any = 1) -> NonNegative:
        """``times |Z|_F^2``, times a non-negative rational."""
        c = Fraction(times)
        if c < 0:
            msg = f"a square with the negative factor {c}"
            raise ProofFails(msg)
        return NonNegative(c * self.fro2(Z), "a square", _EARNED)

    def against_psd(self, hypothesis: str, Z: Mat) -> NonNegative:
        """tr(Z' S Z) for the S that a hypothesis calls psd."""
        relation = dict(self.givens).get(hypothesis)
        if relation is None or relation.op != "psd":
            msg = f"there is no hypothesis {hypothesis!r} that calls a matrix psd"
            raise ProofFails(msg)
        return NonNegative(self.tr(Z.T @ relation.args[0] @ Z), f"{hypothesis}", _EARNED)

    def hypothesis(self, name: str) -> NonNegative:
        """Right minus left of a hypothesis a <= b or a < b."""
        relation = dict(self.givens).get(name)
        if relation is None or relation.op not in ("le", "lt"):
            msg = f"there is no hypothesis {name!r} of the form a <= b"
            raise ProofFails(msg)
        return NonNegative(Poly.of(relation.args[1]) - relation.args[0], name, _EARNED)

    def submultiplicative(self, A: Mat, Z: Mat) -> NonNegative:
        """|A|^2 |Z|_F^2 - |A Z|_F^2 with the spectral norm of A."""
        return NonNegative(
            self.op(A) * self.op(A) * self.fro2(Z) - self.fro2(A @ Z), "|AZ|_F <= |A| |Z|_F", _EARNED
        )

    def triangle(self, A: Mat, B: Mat) -> NonNegative:
        """|A|_F + |B|_F - |A + B|_F."""
        return NonNegative(self.fro(A) + self.fro(B) - self.fro(A + B), "|A + B|_F <= |A|_F + |B|_F", _EARNED)

    def eckart_young(self, A: Mat, r: Any, left: Mat, K: Mat, right: Mat) -> NonNegative:
        """|A - B|_F^2 - |A - SVD_r(A)|_F^2 for B = left SVD_r(K) right, whose rank is at most r."""
        B = left @ self.svd_r(K, r, f"part {len(self._known)}") @ right
        best = self.svd_r(A, r, f"best {len(self._known)}")
        return NonNegative(self.fro2(A - B) - self.fro2(A - best), "Eckart-Young", _EARNED)

    # -- deciding -----------------------------------------------------------------------------------------
    def prove(self, statement: Statement, x: Instance, proof: Proof | None) -> dict[str, str]:
        """Check a proof of every conclusion; returns conclusion -> its normal form and reasons.

        The statement runs twice: the proof may add rules (hypotheses it uses), after which both sides are
        reduced again.

        Raises:
            ProofFails: A conclusion is not established; the message shows the difference that remains.
        """
        self._require_plain_letters(x)
        givens, _ = self.collect(statement, x)
        self._require_stated_symmetry(x, givens)
        terms = dict(proof(self, x)) if proof else {}
        _, claims = self.collect(statement, x)
        if proof:
            terms = dict(proof(self, x))
        unknown = set(terms) - {n for n, _ in claims}
        if unknown:
            msg = f"the proof speaks of {sorted(unknown)}, which the statement does not claim"
            raise ProofFails(msg)
        return {name: self._establish(name, relation, terms.get(name, ())) for name, relation in claims}

    def _require_plain_letters(self, x: Instance) -> None:
        """Each object of the instance is a letter or a number of its own, or the proof would lose generality."""
        seen: set[Any] = set()
        for name, value in x.items():
            if isinstance(value, Mat):
                word = self._single(value)
                plain: Any = word if word is not None and len(word) == 1 and not word[0][1] else None
            elif isinstance(value, Poly):
                generators = [m for m, c in value.terms.items() if c == 1]
                plain = (
                    generators[0]
                    if len(value.terms) == 1 and generators and len(generators[0]) == 1
                    else None
                )
            else:
                continue
            if plain is None or plain in seen:
                msg = f"{name} must be a letter of its own in `letters`"
                raise ProofFails(msg)
            seen.add(plain)

    def _require_stated_symmetry(self, x: Instance, givens: Sequence[tuple[str, Relation]]) -> None:
        """A letter declared symmetric must be called so by a hypothesis (psd, or equal to its transpose)."""
        stated = set()
        for _, relation in givens:
            if relation.op in ("psd", "eq") and isinstance(relation.args[0], Mat):
                word = self._single(relation.args[0])
                star = relation.args[0].T
                same = relation.op == "psd" or (
                    star.shape == relation.args[1].shape and not (star - relation.args[1]).data
                )
                if word is not None and len(word) == 1 and same:
                    stated.add(word[0][0])
        for name, value in x.items():
            word = self._single(value) if isinstance(value, Mat) else None
            if word is not None and word[0][0] in self.symmetric - stated:
                msg = f"{name} is declared symmetric, but no hypothesis says so"
                raise ProofFails(msg)

    def _establish(self, name: str, relation: Relation, terms: Sequence[NonNegative]) -> str:
        if relation.op == "eq":
            left, right = relation.args
            rest: Any = (
                self.normal(left - right).data if isinstance(left, Mat) else (Poly.of(left) - right).terms
            )
            if rest:
                shown = self._describe(left - right) if isinstance(left, Mat) else str(Poly.of(left) - right)
                msg = f"{name}: left - right = {shown}"
                raise ProofFails(msg)
            return "equal normal forms: " + (
                self._describe(left) if isinstance(left, Mat) else str(Poly.of(left))
            )
        if relation.op == "le":
            rest_poly = Poly.of(relation.args[1]) - relation.args[0]
            for term in terms:
                rest_poly = rest_poly - term.value
            if rest_poly.terms:
                msg = f"{name}: right - left - (non-negative terms) = {rest_poly}"
                raise ProofFails(msg)
            return "right - left = sum of: " + "; ".join(t.reason for t in terms)
        msg = f"a proof of a relation {relation.op!r}"
        raise NotHere(msg)

    def _describe(self, A: Mat) -> str:
        words = sorted(self.normal(A).data.items(), key=repr)
        return " + ".join(f"({c}) " + " ".join(n + ("'" if t else "") for n, t in w) for w, c in words) or "0"
