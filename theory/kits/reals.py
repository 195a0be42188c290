"""Exact real numbers: a `Fraction`, or a `Real` whose rational enclosure is refined on demand.

Order and inequality of reals are decided by enclosures; equality of two irrational numbers cannot be, and is
then reported as `Undecided`, never as false. Standard library only.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from math import isqrt
from typing import Any, Union

from theory.protocol import Mat, Undecided

Interval = tuple[Fraction, Fraction]
Scalar = Union[Fraction, "Real"]

PRECISIONS = (20, 60, 160)  # bits tried one after the other before a comparison is given up


class Real:
    """A real number given by enclosures.

    Args:
        enclose: bits -> (low, high), rational, shrinking as bits grow.
        compare: Exact comparison with a rational (-1, 0, 1), where the number is algebraic of a known form.
        square: The exact square, where the number is a root.
    """

    __array_ufunc__ = None
    __slots__ = ("_cache", "compare", "enclose_", "square")

    def __init__(
        self,
        enclose: Callable[[int], Interval],
        compare: Callable[[Fraction], int] | None = None,
        square: Scalar | None = None,
    ) -> None:
        self.enclose_, self.compare, self.square = enclose, compare, square
        self._cache: dict[int, Interval] = {}

    def enclose(self, bits: int) -> Interval:
        """A rational interval that contains the number."""
        if bits not in self._cache:
            self._cache[bits] = self.enclose_(bits)
        return self._cache[bits]

    @staticmethod
    def of(value: Any) -> Real:
        """A rational as a `Real`."""
        if isinstance(value, Real):
            return value
        q = Fraction(value)
        return Real(lambda bits: (q, q), lambda c: (q > c) - (q < c))

    def __add__(self, other: Any) -> Real:
        o = Real.of(other)
        return Real(lambda b: (self.enclose(b)[0] + o.enclose(b)[0], self.enclose(b)[1] + o.enclose(b)[1]))

    __radd__ = __add__

    def __neg__(self) -> Real:
        compare = self.compare
        return Real(
            lambda b: (-self.enclose(b)[1], -self.enclose(b)[0]),
            (lambda c: -compare(-c)) if compare else None,
            self.square,
        )

    def __sub__(self, other: Any) -> Real:
        return self + (-Real.of(other))

    def __rsub__(self, other: Any) -> Real:
        return Real.of(other) + (-self)

    def __mul__(self, other: Any) -> Any:
        if isinstance(other, Mat):
            return other.kit.scale(self, other)
        if other is self and self.square is not None:
            return self.square
        if not isinstance(other, Real) and other == 0:
            return Fraction(0)
        o = Real.of(other)

        def enclose(bits: int) -> Interval:
            ends = [x * y for x in self.enclose(bits) for y in o.enclose(bits)]
            return min(ends), max(ends)

        return Real(enclose)

    __rmul__ = __mul__

    def __truediv__(self, other: Any) -> Real:
        o = Real.of(other)

        def enclose(bits: int) -> Interval:
            low, high = o.enclose(bits)
            if low <= 0 <= high:
                msg = "division by an enclosure that contains zero"
                raise Undecided(msg)
            ends = [x / y for x in self.enclose(bits) for y in (low, high)]
            return min(ends), max(ends)

        return Real(enclose)

    def __rtruediv__(self, other: Any) -> Real:
        return Real.of(other) / self


def sign(value: Any) -> int:
    """The sign of an exact number; `Undecided` if its enclosures keep containing zero."""
    if not isinstance(value, Real):
        return int(value > 0) - int(value < 0)
    if value.compare:
        return int(value.compare(Fraction(0)))
    for bits in PRECISIONS:
        low, high = value.enclose(bits)
        if low > 0:
            return 1
        if high < 0:
            return -1
        if low == high == 0:
            return 0
    msg = "the enclosure contains zero"
    raise Undecided(msg)


def compare(a: Any, b: Any) -> int:
    """The sign of a - b."""
    if a is b:
        return 0
    if isinstance(a, Real) and a.compare and not isinstance(b, Real):
        return a.compare(Fraction(b))
    if isinstance(b, Real) and b.compare and not isinstance(a, Real):
        return -b.compare(Fraction(a))
    roots = isinstance(a, Real) and isinstance(b, Real) and a.square is not None and b.square is not None
    if roots and sign(a) >= 0 and sign(b) >= 0:
        return compare(a.square, b.square)
    return sign(a - b)


def sqrt_interval(v: Fraction, bits: int) -> Interval:
    """An interval of width 2^-bits around the root of a non-negative rational."""
    root = isqrt((v.numerator << 2 * bits) // v.denominator)
    return Fraction(root, 1 << bits), Fraction(root + 1, 1 << bits)


def sqrt(v: Scalar) -> Scalar:
    """The non-negative root of an exact number: rational when it is, otherwise enclosed."""
    if isinstance(v, Real):
        inner = v

        def enclose(bits: int) -> Interval:
            low, high = inner.enclose(2 * bits + 4)
            if high < 0:
                msg = "root of a negative number"
                raise ValueError(msg)
            return sqrt_interval(max(low, Fraction(0)), bits)[0], sqrt_interval(high, bits)[1]

        below = inner.compare
        return Real(enclose, (lambda c: 1 if c < 0 else below(c * c)) if below else None, inner)
    v = Fraction(v)
    if v < 0:
        msg = f"root of a negative number: {v}"
        raise ValueError(msg)
    n, d = isqrt(v.numerator), isqrt(v.denominator)
    if n * n == v.numerator and d * d == v.denominator:
        return Fraction(n, d)
    q = v
    return Real(lambda b: sqrt_interval(q, b), lambda c: 1 if c < 0 else (q > c * c) - (q < c * c), q)


def simplest_between(low: Fraction, high: Fraction) -> Fraction:
    """The rational of smallest denominator in [low, high] (Stern-Brocot)."""
    if low > 0:
        n = low.numerator // low.denominator
        if n == low:
            return Fraction(n)
        if n + 1 <= high:
            return Fraction(n + 1)
        return n + 1 / simplest_between(1 / (high - n), 1 / (low - n))
    return Fraction(0) if high >= 0 else -simplest_between(-high, -low)


def text(value: Any) -> str:
    """An exact number as "p/q", or an irrational one as "[low, high]" of width below 1e-12."""
    if not isinstance(value, Real):
        return str(Fraction(value))
    low, high = value.enclose(60)
    scale = 10**15
    below, above = (
        (low.numerator * scale) // low.denominator,
        -((-high.numerator * scale) // high.denominator),
    )
    return f"[{Fraction(below, scale)}, {Fraction(above, scale)}]"


def midpoint(value: Any) -> float:
    """A float near the number, for display only."""
    if isinstance(value, Real):
        low, high = value.enclose(60)
        return float((low + high) / 2)
    return float(value)
