"""From a suspicious point to a certificate: rounding, exact decision, legal choices at ties.

A `Candidate` is a point in exact numbers: free parameters at given sizes (with entries that an inner
maximisation has replaced), or an instance written down. It is decided with flint, where flint cannot with
`Fraction`, and a counterexample is decided once more by the trusted kit from the JSON that is kept.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any

from theory import instances
from theory.claim import Json, Setting
from theory.evidence import Context, Counterexample, evaluate
from theory.kits import reals
from theory.kits.exact import Exact
from theory.kits.flint import Flint
from theory.protocol import BadWitness, Instance, Mat, NotHere, Outcome, Statement, Undecided

DOES_NOT_APPLY = (Undecided, NotHere, BadWitness, ZeroDivisionError)
CHOICES = 6  # ways of breaking one tie that are tried
COARSE = (1, 2, 3, 4, 6, 10, 30, 100, 1000)
FINE = 10**6


@dataclass(frozen=True)
class Candidate:
    """A point in exact numbers.

    Attributes:
        sizes: The sizes d; None for an instance written down.
        values: The free parameters in the order of `Setting.free`, flat.
        replaced: Name -> rows of entries of the instance that an inner maximisation has set.
        instance: The instance as JSON, where there are no parameters.
    """

    sizes: Mapping[str, Any] | None
    values: tuple[Fraction, ...] = ()
    replaced: Mapping[str, tuple[tuple[Fraction, ...], ...]] = field(default_factory=dict)
    instance: Json | None = None

    def make(self, kit: Exact, setting: Setting) -> Instance:
        """The instance in a kit."""
        if self.instance is not None:
            return instances.load(kit, self.instance)
        d = dict(self.sizes or {})
        shapes = setting.free(d)
        x = setting.build(kit, instances.parameters(kit, shapes, self.values), d)
        for name, rows in self.replaced.items():
            x[name] = kit.mat([list(r) for r in rows])
        return x

    def numbers(self) -> list[Fraction]:
        """All numbers that shrinking may change, flat."""
        if self.instance is None:
            return [*self.values, *(v for rows in self.replaced.values() for r in rows for v in r)]
        return [Fraction(v) for _, v in _entries(self.instance)]

    def with_numbers(self, numbers: Sequence[Fraction]) -> Candidate:
        """The same candidate with other numbers."""
        if self.instance is not None:
            data = _copy(self.instance)
            for ((name, i, j), _), v in zip(_entries(self.instance), numbers, strict=True):
                if i is None:
                    data[name] = str(v)
                else:
                    data[name][i][j] = str(v)
            return replace(self, instance=data)
        n, at = len(self.values), len(self.values)
        replaced = {}
        for name, rows in self.replaced.items():
            width = len(rows[0])
            replaced[name] = tuple(
                tuple(numbers[at + i * width : at + (i + 1) * width]) for i in range(len(rows))
            )
            at += len(rows) * width
        return replace(self, values=tuple(numbers[:n]), replaced=replaced)


def _copy(data: Json) -> Json:
    return {
        n: [list(r) if isinstance(r, list) else r for r in v] if isinstance(v, list) else v
        for n, v in data.items()
    }


def _entries(data: Json) -> list[tuple[tuple[str, Any, Any], str]]:
    out: list[tuple[tuple[str, Any, Any], str]] = []
    for name, value in data.items():
        if instances.is_matrix(value) and not isinstance(value, dict):
            out += [((name, i, j), v) for i, row in enumerate(value) for j, v in enumerate(row)]
        elif isinstance(value, str):
            out.append(((name, None, None), value))
    return out


class _Ties(Exact):
    """Breaks a tie of SVD_r by one of several legal choices; what was chosen becomes the witness."""

    choice = 0
    tied = False

    def _rational_part(self, A: Mat, r: int, label: str) -> Mat:
        try:
            return super()._rational_part(A, r, label)
        except Undecided:
            self.tied = True
            return self._chosen_part(A, r, label)

    def _chosen_part(self, A: Mat, r: int, label: str) -> Mat:
        G, n = A.T @ A, A.shape[1]
        w = self.eig(G, r)
        if isinstance(w, reals.Real):
            msg = f"a tie between irrational singular values at r = {r}: {label} needs a witness"
            raise Undecided(msg)
        shifted = G - w * self.eye(n)
        above = self.inertia(shifted)[0]
        basis = _null_space(self, shifted)
        need = r - above
        rng = random.Random(1000 * self.choice + r)
        if self.choice == 0:
            chosen = basis[:need]
        elif self.choice == 1:
            chosen = basis[::-1][:need]
        else:
            weights = [[rng.randint(-2, 2) for _ in basis] for _ in range(need)]
            chosen = [
                [sum((c * v[i] for c, v in zip(ws, basis, strict=True)), Fraction(0)) for i in range(n)]
                for ws in weights
            ]
        V = self.mat(chosen).T if chosen else self.zeros(n, 0)
        if self.rank(V) < need:
            V = self.mat(basis[:need]).T
        part = self.proj(V)
        if above:
            upper = super()._rational_part(A, above, label)
            return upper + A @ part
        return A @ part


def _null_space(kit: Exact, S: Mat) -> list[list[Fraction]]:
    rows, pivots = kit.echelon(S)
    n = S.shape[1]
    basis = []
    for free in (j for j in range(n) if j not in pivots):
        v = [Fraction(0)] * n
        v[free] = Fraction(1)
        for row, p in zip(rows, pivots, strict=True):
            v[p] = -Fraction(row[free])
        basis.append(v)
    return basis


class TiedFlint(_Ties, Flint):
    """flint with drawn choices at ties."""


class TiedExact(_Ties, Exact):
    """Fractions, for irrational entries, with drawn choices at ties; rational spectra are left to flint."""

    def arithmetic(self) -> Exact:
        return Flint()

    def _counter(self, S: Mat) -> Callable[[Fraction], tuple[int, int]]:
        flint = Flint()
        return flint._counter(flint.mat(self.data(S), S.shape))

    def _rational_eigenvalues(self, S: Mat) -> list[Fraction] | None:
        flint = Flint()
        return flint._rational_eigenvalues(flint.mat(self.data(S), S.shape))

    def inertia(self, S: Mat) -> tuple[int, int, int]:
        flint = Flint()
        try:
            return flint.inertia(flint.mat(self.data(S), S.shape))
        except NotHere:  # irrational entries: the parent knows what to say
            return super().inertia(S)


class Certifier:
    """Decides candidates exactly and counts how often it was asked and why it could not answer."""

    def __init__(self, statement: Statement, setting: Setting, changes: Mapping[str, Any]) -> None:
        self.statement, self.setting, self.changes = statement, setting, dict(changes)
        self.asked = 0
        self.reasons: Counter[str] = Counter()
        self.errors: Counter[str] = Counter()
        self.ratio: tuple[float, str, str] | None = None  # of the last candidate decided

    def breaks(self, candidate: Candidate) -> Exact | None:
        """The kit in which the candidate meets every hypothesis and breaks a conclusion; None otherwise."""
        self.ratio = None
        for choice in range(CHOICES):
            outcome, kit = self._decide(candidate, choice)
            if kit is not None:
                self._note_ratio(kit, outcome)
            if outcome is not None and outcome.is_counterexample:
                return kit
            if kit is None or not getattr(kit, "tied", False):
                return None
        return None

    def _decide(self, candidate: Candidate, choice: int) -> tuple[Outcome | None, Exact | None]:
        self.asked += 1
        for make in (TiedFlint, TiedExact):
            kit = make()
            kit.choice = choice
            try:
                return kit.run(self.statement, candidate.make(kit, self.setting), **self.changes), kit
            except NotHere as reason:
                if make is TiedExact:
                    self.reasons[f"not expressible: {reason}"] += 1
                continue
            except (Undecided, BadWitness) as reason:
                self.reasons[f"undecided: {reason}"] += 1
                return None, kit
            except ZeroDivisionError:
                self.reasons["division by zero"] += 1
                return None, None
            except Exception as error:  # reported with the stage; one bad point must not end the search
                self.errors[f"{type(error).__name__}: {error}"] += 1
                return None, None
        return None, None

    def _note_ratio(self, kit: Exact, outcome: Outcome | None) -> None:
        if outcome is None or outcome.broken_hypotheses:
            return
        for name, (left, right) in kit.sides.items():
            try:
                below = reals.midpoint(right)
                if below > 1e-300 and reals.sign(right) > 0:
                    value = left / right
                    about = reals.midpoint(value)
                    if self.ratio is None or about > self.ratio[0]:
                        self.ratio = (about, _short(value), name)
            except (Undecided, ZeroDivisionError, OverflowError):
                continue

    def certificate(self, candidate: Candidate) -> Json | None:
        """The certificate of a counterexample, decided by the trusted kit from its own JSON.

        None where the trusted kit does not confirm (then the point is no counterexample).
        """
        kit = self.breaks(candidate)
        if kit is None:
            return None
        plain = Exact()
        data = (
            candidate.instance
            if candidate.instance is not None
            else instances.dump(plain, candidate.make(plain, self.setting))
        )
        witnesses = {
            label: [[str(Fraction(v)) for v in row] for row in rows]
            for label, rows in kit.witnesses.items()
            if not any(isinstance(v, reals.Real) for row in rows for v in row)
        }
        try:
            outcome, trusted = evaluate(self.statement, data, witnesses, **self.changes)
        except DOES_NOT_APPLY as reason:
            self.reasons[f"the trusted kit does not confirm: {reason}"] += 1
            return None
        if not outcome.is_counterexample:
            self.reasons["the trusted kit does not confirm"] += 1
            return None
        if not self.changes:
            context = Context("found by search", self.statement, self.setting)
            return Counterexample(data, witnesses).establish(context)[1]
        sides = {name: [reals.text(a), reals.text(b)] for name, (a, b) in trusted.sides.items()}
        changed = {"kind": Counterexample.kind, "instance": data, "witnesses": witnesses}
        return {**changed, "breaks": list(outcome.broken_conclusions), "sides": sides}


def _short(value: Any) -> str:
    """An exact number, as a decimal enclosure of width 1e-12 where the fraction would be long."""
    if not isinstance(value, reals.Real):
        exact = Fraction(value)
        if (
            exact.numerator.bit_length() + exact.denominator.bit_length() < 200
        ):  # longer ones may not be printable
            text = str(exact)
            if len(text) <= 40:
                return text
    low, high = reals.Real.of(value).enclose(60)
    grid = 10**12
    below, above = (low.numerator * grid) // low.denominator, -((-high.numerator * grid) // high.denominator)
    return f"[{_decimal(below)}, {_decimal(above)}]"


def _decimal(units: int) -> str:
    """An integer count of 1e-12 as a decimal."""
    whole, rest = divmod(abs(units), 10**12)
    return f"{'-' if units < 0 else ''}{whole}.{rest:012d}"


def roundings(point: Sequence[float], thin: bool = False) -> Iterator[tuple[Fraction, ...]]:
    """Rational points near a float point, each once: itself if integral, a fine grid, then coarse ones.

    Args:
        point: The floats.
        thin: Whether the violation may live on a thin set, where only the right simple numbers will do; then
            the coarse grids and the continued fractions of each coordinate come first.
    """
    if all(float(v).is_integer() and abs(v) < 1e15 for v in point):
        yield tuple(Fraction(int(v)) for v in point)
        return
    grid, simple = [*COARSE[-2:], *COARSE[:-2]], (12, 60, 1000)
    if thin:
        order = [(_simple, D) for D in simple] + [(_on_grid, D) for D in COARSE] + [(_on_grid, FINE)]
    else:
        order = [(_on_grid, FINE), *((_on_grid, D) for D in grid[:2]), *((_simple, D) for D in simple[:2])]
        order += [*((_on_grid, D) for D in grid[2:]), (_simple, simple[2])]
    seen = set()
    for rounded, D in order:
        values = rounded(point, D)
        if values not in seen:
            seen.add(values)
            yield values


def _on_grid(point: Sequence[float], D: int) -> tuple[Fraction, ...]:
    return tuple(Fraction(round(float(v) * D), D) for v in point)


def _simple(point: Sequence[float], D: int) -> tuple[Fraction, ...]:
    return tuple(Fraction(float(v)).limit_denominator(D) for v in point)


def cost(numbers: Sequence[Fraction]) -> tuple[int, int, int]:
    """What shrinking makes small: non-zeros, then the sum of |numerator| + denominator - 1, then signs."""
    return (
        sum(v != 0 for v in numbers),
        sum(abs(v.numerator) + v.denominator - 1 for v in numbers),
        sum(v < 0 for v in numbers),
    )


def shrink(certifier: Certifier, candidate: Candidate, limit: int = 600, accept: Any = None) -> Candidate:
    """A counterexample with fewer non-zeros and simpler numbers; decided exactly at every step.

    Args:
        certifier: Decides.
        candidate: A counterexample.
        limit: Exact decisions at most.
        accept: Further condition on the shrunk candidate, if any.
    """

    def good(c: Candidate) -> bool:
        return certifier.breaks(c) is not None and (accept is None or accept(c))

    numbers, start = candidate.numbers(), certifier.asked
    for D in (1, 2, 6, 30, 1000):  # all numbers at once first: most of the way in a few decisions
        rounded = [Fraction(round(v * D), D) for v in numbers]
        if cost(rounded) < cost(numbers) and good(candidate.with_numbers(rounded)):
            numbers = rounded
            break
    changed = True
    while changed and certifier.asked - start < limit:
        changed = False
        for i in range(len(numbers)):
            for w in _simpler(numbers[i]):
                trial = [*numbers[:i], w, *numbers[i + 1 :]]
                if certifier.asked - start >= limit:
                    break
                if good(candidate.with_numbers(trial)):
                    numbers, changed = trial, True
                    break
    return candidate.with_numbers(numbers)


def _simpler(v: Fraction) -> list[Fraction]:
    ladder = [Fraction(0), Fraction(1), Fraction(-1), Fraction(2), Fraction(-2), Fraction(round(v))]
    ladder += [v.limit_denominator(D) for D in (2, 3, 5, 10, 100)] + [-v]
    return [w for w in dict.fromkeys(ladder) if cost([w]) < cost([v])]


def survives_perturbation(certifier: Certifier, candidate: Candidate) -> bool:
    """Whether the counterexample is open: three small perturbations of all parameters are counterexamples too."""
    numbers = candidate.numbers()
    if candidate.sizes is None or not numbers:
        return False
    for seed in range(3):
        rng = random.Random(seed)
        moved = [v + Fraction(rng.randint(-9, 9), 10**4) for v in numbers]
        if certifier.breaks(candidate.with_numbers(moved)) is None:
            return False
    return True
