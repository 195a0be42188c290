"""Exact information: entropies with rational enclosures, and a learner whose samples are all enumerated.

Source: LoRA past, present, future, Theorem 5, Lemma 1 (after Xu and Raginsky, 2017). A learner sees N = (z_1, ..., z_n),
independent from a law on finitely many atoms, and returns one of finitely many updates, together with a draw (the
frozen matrices) that does not depend on N. Its information on N given the draw is the mean over draws of the entropy of
what it returns, because it returns a function of N.

Logarithms of rationals are enclosed by ln v = b ln 2 + 2 artanh((u - 1) / (u + 1)), v = 2^b u with 2/3 < u <= 4/3, by
partial sums of the series and a geometric bound on its rest. Standard library only.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from itertools import product
from typing import Any

Interval = tuple[Fraction, Fraction]
TERMS = 16  # of the series: the rest is below 1e-16
GRID = 10**12  # enclosures are widened to this grid to keep numbers short


def _series(u: Fraction) -> Interval:
    """The logarithm of u for 2/3 <= u <= 4/3 or u = 2, from 2 artanh(y), |y| <= 1/3."""
    y = (u - 1) / (u + 1)
    total = 2 * sum((y ** (2 * i + 1) / (2 * i + 1) for i in range(TERMS)), Fraction(0))
    rest = 2 * abs(y) ** (2 * TERMS + 1) / (1 - y * y)
    return total - rest, total + rest


@lru_cache(maxsize=4096)
def ln(v: Fraction) -> Interval:
    """A rational enclosure of the natural logarithm of a positive rational."""
    if v <= 0:
        msg = f"the logarithm needs a positive number; got {v}"
        raise ValueError(msg)
    bits, u = 0, v
    while u > Fraction(4, 3):
        bits, u = bits + 1, u / 2
    while u <= Fraction(2, 3):
        bits, u = bits - 1, u * 2
    (low, high), two = _series(u), _series(Fraction(2))
    ends = (bits * two[0], bits * two[1])
    low, high = low + min(ends), high + max(ends)
    return Fraction(low * GRID // 1, GRID), Fraction(-(-high * GRID // 1), GRID)


def entropy(law: Mapping[Any, Fraction]) -> Interval:
    """-sum p ln p, enclosed."""
    logs = [(p, ln(p)) for p in law.values() if p]
    return -sum((p * high for p, (_, high) in logs), Fraction(0)), -sum(
        (p * low for p, (low, _) in logs), Fraction(0)
    )


@dataclass(frozen=True)
class Outcome:
    """What enumeration gives: the mean of G, and its information on the sample given the draw (enclosed)."""

    gap: Fraction
    information: Interval
    support: int  # the most different updates that one draw allows to return


def enumerate_samples(
    law: Mapping[Any, Fraction],
    n: int,
    draws: Sequence[object],
    learn: Callable[[tuple[Any, ...], Any], Hashable],
    loss: Callable[[Any, Any], Fraction],
) -> Outcome:
    """Every sample of n atoms and every draw, each draw as likely.

    Args:
        law: Atom -> probability.
        n: Size of the sample.
        draws: The frozen parts that the learner may be handed.
        learn: (sample, draw) -> update.
        loss: (update, atom) -> loss.
    """
    gap, low, high, support = Fraction(0), Fraction(0), Fraction(0), 0
    risks: dict[Hashable, Fraction] = {}
    for draw in draws:
        returned: dict[Hashable, Fraction] = {}
        for sample in product(law, repeat=n):
            p = Fraction(1)
            for z in sample:
                p *= law[z]
            w = learn(sample, draw)
            if w not in risks:
                risks[w] = sum((q * loss(w, z) for z, q in law.items()), Fraction(0))
            empirical = sum((loss(w, z) for z in sample), Fraction(0)) / n
            gap += p * (risks[w] - empirical) / len(draws)
            returned[w] = returned.get(w, Fraction(0)) + p
        bounds = entropy(returned)
        low, high = low + bounds[0] / len(draws), high + bounds[1] / len(draws)
        support = max(support, len(returned))
    return Outcome(gap, (low, high), support)


def within(gap: Fraction, sigma: Fraction, information: Fraction, n: int) -> bool:
    """|gap| <= sqrt(2 sigma^2 information / n), squared."""
    return gap * gap * n <= 2 * sigma * sigma * information
