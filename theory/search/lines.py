"""Thin sets by exact roots: where a rank, determinant or side of a relation vanishes along a rational line.

A determinant that vanishes only at an odd rational point is invisible to samplers and to rounding. Along a
line through simple points it is a polynomial in one variable; interpolated exactly, its rational roots are
its linear factors over the rationals.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from fractions import Fraction
from typing import Any

from flint import fmpq, fmpq_poly

from theory import instances
from theory.kits.flint import to_fmpq, to_fraction
from theory.kits.reals import Real
from theory.protocol import Instance, Mat, NotHere, Relation, Undecided
from theory.search.certify import Candidate, TiedFlint
from theory.search.problem import Problem

DEGREE = 9  # of the polynomials that are looked for along a line
NODES = [Fraction(i) for i in range(-5, 7)]  # DEGREE + 1 to interpolate, the rest to confirm


Counter = Callable[[int], None]


class Probe(TiedFlint):
    """The flint kit, noting every quantity whose vanishing changes what the text does."""

    def __init__(self) -> None:
        super().__init__()
        self.critical: list[Fraction | None] = []

    def _note(self, value: Any) -> None:
        self.critical.append(None if isinstance(value, Real) else Fraction(value))

    def _note_rank(self, A: Mat) -> None:
        m, n = A.shape
        if not m * n:
            return
        square = A if m == n else (A @ A.T if m < n else A.T @ A)
        self.critical.append(to_fraction(square.data.det()))

    def det(self, A: Mat) -> Any:
        value = super().det(A)
        self._note(value)
        return value

    def rank(self, A: Mat) -> int:
        self._note_rank(A)
        return super().rank(A)

    def inv(self, A: Mat) -> Mat:
        self._note_rank(A)
        return super().inv(A)

    def pinv(self, A: Mat) -> Mat:
        self._note_rank(A)
        return super().pinv(A)

    def decide(self, relation: Relation) -> bool:
        if relation.op in ("le", "lt", "eq"):
            a, b = relation.args
            if isinstance(a, Mat):
                for row in self.data(a - b):
                    for v in row:
                        self._note(v)
            else:
                self._note(b - a)
        elif relation.op == "psd":
            self._note_rank(relation.args[0])
        return super().decide(relation)


def critical_values(
    problem: Problem, d: Mapping[str, Any], values: list[Fraction]
) -> list[Fraction | None] | None:
    """The noted quantities at exact parameters; None where the text cannot be evaluated."""
    kit = Probe()
    shapes = problem.shapes(d)
    try:
        x: Instance = problem.setting.build(kit, instances.parameters(kit, shapes, values), dict(d))
        kit.run(problem.statement, x, **problem.changes)
    except (NotHere, Undecided, ZeroDivisionError):
        return kit.critical or None
    return kit.critical


def rational_roots(ordinates: list[Fraction]) -> list[Fraction]:
    """Rational roots of the polynomial of degree <= DEGREE through the values at NODES; none if there is none."""
    x, p = fmpq_poly([0, 1]), fmpq_poly([0])
    table = [to_fmpq(v) for v in ordinates]
    nodes = [to_fmpq(v) for v in NODES]
    coefficients = []
    for i in range(DEGREE + 1):  # Newton's divided differences
        coefficients.append(table[i])
        for j in range(len(table) - 1, i, -1):
            table[j] = (table[j] - table[j - 1]) / (nodes[j] - nodes[j - i - 1])
    if any(v != 0 for v in table[DEGREE + 1 :]):
        return []
    for c, node in zip(reversed(coefficients), reversed(nodes[: DEGREE + 1]), strict=True):
        p = p * (x - node) + c
    if p.degree() < 1:
        return []
    _, factors = p.numer().factor()
    return [to_fraction(fmpq(-q[0], q[1])) for q, _ in factors if q.degree() == 1]


def candidates(
    problem: Problem, d: Mapping[str, Any], base: Any, rng: Any, count: Counter
) -> Iterator[Candidate]:
    """Points on random coordinate lines through `base` (points, total) where something noted vanishes.

    `count` is called with the number of exact evaluations that each line takes.
    """
    total = base.shape[1]
    if not total or problem.setting.inner is not None:
        return
    for row in base:
        start = [Fraction(int(v)) for v in row]
        direction = [Fraction(0)] * total
        direction[int(rng.integers(total))] = Fraction(1)
        if rng.random() < 0.25:
            direction = [Fraction(int(v)) for v in rng.integers(-1, 2, total)]
        count(len(NODES))
        yield from on_line(problem, d, start, direction)


def on_line(
    problem: Problem, d: Mapping[str, Any], start: list[Fraction], direction: list[Fraction]
) -> Iterator[Candidate]:
    """Points start + s direction, s rational, where a noted quantity vanishes."""
    rows = []
    for s in NODES:
        noted = critical_values(problem, d, [a + s * b for a, b in zip(start, direction, strict=True)])
        if noted is None:
            return
        rows.append(noted)
    seen: set[Fraction] = set()
    for column in zip(*rows, strict=False):
        values = [v for v in column if v is not None]
        if len(values) < len(NODES) or not any(values):
            continue
        for s in rational_roots(values):
            if s not in seen and s not in NODES:
                seen.add(s)
                yield Candidate(d, tuple(a + s * b for a, b in zip(start, direction, strict=True)))
