"""Generalization gaps: the bounds of Table 1 and Theorems 4 and 5 as numbers, and gaps that are known exactly.

Source: LoRA past, present, future, Table 1, Theorems 3 to 5, Lemma 1, C.1.5. Layers W (n x m), rank r, k chains, q bits a
number, N samples, a loss that is sigma-sub-Gaussian (sigma = 1/2 for values in [0, 1]).

Exact gaps, ours. Least squares on r features A x of standard normal inputs with A fixed: the residual is independent of
the features, so with residual variance tau2 the risk is tau2 (1 + r / (N - r - 1)) in the mean and the empirical risk
tau2 (1 - r / N). A learner that looks at counts of finitely many atoms: the mean over all counts, each with its
multinomial probability; what it returns is a function of the sample, so its information on it is its entropy.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction

Shape = tuple[int, int]
BOTH, CHAINED = ("LoRA", "LoRA+", "CoLA"), ("CoLA", "RAC", "c3LA", "random-c3LA")
METHODS = ("full", "LoRA", "LoRA+", "Asym", "CoLA", "RAC", "cLA", "random-cLA", "c3LA", "random-c3LA")


# -- bounds ---------------------------------------------------------------------------------------------------
def trained_numbers(method: str, shapes: Sequence[Shape], r: int, k: int) -> int:
    """How many numbers a method trains in all its chains, as Table 1 counts them: r n or r (m + n) a layer and chain.

    Raises:
        ValueError: no such method.
    """
    if method not in METHODS:
        msg = f"method must be one of {', '.join(METHODS)}; got {method!r}"
        raise ValueError(msg)
    if method == "full":
        return sum(n * m for n, m in shapes)
    one = sum(r * (n + (m if method in BOTH else 0)) for n, m in shapes)
    return one * (k if method in CHAINED else 1)


def information_bound(sigma: float, information: float, samples: int) -> float:
    """Theorem 5, on the mean gap: sqrt(2 sigma^2 I / N), I in nats."""
    return math.sqrt(2 * sigma**2 * information / samples)


def bits_bound(sigma: float, q: int, numbers: int, samples: int) -> float:
    """Lemma 1 in Theorem 5: I <= q p ln 2; Table 1 without Phi_W0."""
    return information_bound(sigma, q * numbers * math.log(2), samples)


def start_printed(largest: float, samples: int, delta: float, eps: float) -> float:
    """Theorem 4's part for the start alone, with probability 1 - 2 delta: eps + C2 sqrt((3 ln(N / delta) + 8) / N)."""
    return eps + largest * math.sqrt((3 * math.log(samples / delta) + 8) / samples)


def hoeffding(largest: float, samples: int, delta: float) -> float:
    """The same for weights that do not depend on the sample, values in [0, C2]: C2 sqrt(ln(1 / delta) / (2 N))."""
    return largest * math.sqrt(math.log(1 / delta) / (2 * samples))


# -- exact gaps -----------------------------------------------------------------------------------------------
def least_squares(tau2: float, features: int, samples: int) -> float:
    """Mean risk less mean empirical risk of one output.

    Raises:
        ValueError: N < features + 2, where the mean risk is not finite.
    """
    if samples < features + 2:
        msg = f"samples must be at least features + 2 = {features + 2}; got {samples}"
        raise ValueError(msg)
    return tau2 * (features / samples + features / (samples - features - 1))


def counts_of(samples: int, atoms: int) -> Iterator[tuple[int, ...]]:
    """Every way in which so many samples fall on the atoms."""
    if atoms == 1:
        yield (samples,)
        return
    for first in range(samples + 1):
        for rest in counts_of(samples - first, atoms - 1):
            yield (first, *rest)


Learner = Callable[[Sequence[int]], int]


def enumerated(
    losses: Sequence[Sequence[Fraction]], chances: Sequence[Fraction], learner: Learner, samples: int
) -> tuple[Fraction, float]:
    """The mean gap, and the information (nats) that what is learnt has on the sample.

    Args:
        losses: for each hypothesis its loss on every atom.
        chances: the atoms' probabilities.
        learner: from the counts of the atoms to the number of a hypothesis.
        samples: their number N.
    """
    gap, taken = Fraction(0), [Fraction(0)] * len(losses)
    for counts in counts_of(samples, len(chances)):
        chance = Fraction(math.factorial(samples))
        for count, c in zip(counts, chances, strict=True):
            chance *= c**count / math.factorial(count)
        chosen = learner(counts)
        seen = sum((count * loss for count, loss in zip(counts, losses[chosen], strict=True)), Fraction(0))
        gap += chance * (risk(losses[chosen], chances) - seen / samples)
        taken[chosen] += chance
    return gap, -sum(float(p) * math.log(p) for p in taken if p)


def risk(loss: Sequence[Fraction], chances: Sequence[Fraction]) -> Fraction:
    """The population risk of one hypothesis."""
    return sum((c * value for c, value in zip(chances, loss, strict=True)), Fraction(0))
