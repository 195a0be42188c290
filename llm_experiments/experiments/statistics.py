"""Is a difference between two methods real, over seeds and over items?

Two runs with one seed saw the same data in the same order, so differences are taken seed by seed and item by item.
Seeds say whether another training would show the difference, items whether another test set would; a difference
counts as seen only if both exclude zero.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

LEVEL = 0.05
DRAWS = 2000  # of the bootstrap over items


@dataclass(frozen=True)
class Contrast:
    """A mean paired difference.

    Attributes:
        mean: the difference.
        seeds: half-width of its 95% t interval over seeds; None for a single seed.
        p: two-sided p-value over seeds; 1 for a single seed.
        items: 95% bootstrap interval over items; None where the measure has no items.
        n: seeds.
    """

    mean: float
    seeds: float | None
    p: float
    items: tuple[float, float] | None
    n: int

    @property
    def half(self) -> float:
        """The smallest effect that this run could have told from zero: the larger half-width."""
        over_items = 0.0 if self.items is None else (self.items[1] - self.items[0]) / 2
        return max(math.inf if self.seeds is None else self.seeds, over_items)

    def words(self) -> str:
        """Mean and intervals for a table."""
        text = f"{self.mean:+.3g}"
        text += " (one seed)" if self.seeds is None else f" ± {self.seeds:.2g} over {self.n} seeds"
        if self.items is not None:
            text += f", [{self.items[0]:+.2g}, {self.items[1]:+.2g}] over items"
        return text


def contrast(
    first: Sequence[float],
    second: Sequence[float],
    items: tuple[np.ndarray, np.ndarray] | None = None,
    interval: tuple[float, float] | None = None,
) -> Contrast:
    """`first - second`, paired.

    Args:
        first: one value a seed.
        second: the same seeds under the other method.
        items: per-item values of both, (seeds x items), whose means over items are the values above.
        interval: over items, where it was computed otherwise.
    """
    if len(first) != len(second) or not len(first):
        message = f"both sides must have the same seeds, at least one; got {len(first)} and {len(second)}"
        raise ValueError(message)
    difference = np.asarray(first, float) - np.asarray(second, float)
    n, mean = len(difference), float(np.mean(difference))
    half, p = None, 1.0
    if n > 1:
        error = float(difference.std(ddof=1)) / math.sqrt(n)
        half = float(stats.t.ppf(1 - LEVEL / 2, n - 1)) * error
        p = float(2 * stats.t.sf(abs(mean) / error, n - 1)) if error else float(mean == 0)
    over_items = interval
    if items is not None:
        over_items = items_interval(*items)
    return Contrast(mean, half, p, over_items, n)


def items_interval(first: np.ndarray, second: np.ndarray) -> tuple[float, float]:
    """Bootstrap interval over items of the mean difference; both sides (seeds x items)."""
    each = (first - second).mean(axis=0)
    rng = np.random.default_rng(0)
    draws = each[rng.integers(0, len(each), (DRAWS, len(each)))].mean(axis=1)
    low, high = np.quantile(draws, [LEVEL / 2, 1 - LEVEL / 2])
    return float(low), float(high)


def rank_correlation_interval(
    first: np.ndarray, second: np.ndarray, scores: np.ndarray
) -> tuple[float, float]:
    """Bootstrap interval over items of the difference of rank correlations with human scores, mean over seeds.

    Args:
        first: predictions of one method, (seeds x items).
        second: of the other.
        scores: human scores, (items).
    """
    rng = np.random.default_rng(0)
    ranked = [np.stack([stats.rankdata(row) for row in side]) for side in (first, second)]
    truth = stats.rankdata(scores)
    found = []
    for _ in range(DRAWS // 4):
        draw = rng.integers(0, len(scores), len(scores))
        y = truth[draw] - truth[draw].mean()
        rho = []
        for side in ranked:
            x = side[:, draw] - side[:, draw].mean(axis=1, keepdims=True)
            rho.append(float(np.mean(x @ y / np.sqrt((x * x).sum(axis=1) * (y @ y)))))
        found.append(rho[0] - rho[1])
    low, high = np.quantile(found, [LEVEL / 2, 1 - LEVEL / 2])
    return float(low), float(high)


def holm(values: Sequence[float]) -> list[float]:
    """P-values corrected for their number (Holm 1979), in the given order."""
    order = np.argsort(values, kind="stable")
    corrected, largest = [0.0] * len(values), 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(values) - rank) * values[index]))
        corrected[index] = largest
    return corrected


def outcome(found: Contrast, sign: int, corrected: float) -> str:
    """`agrees`, `contradicts` or `undecided` for the prediction that the difference has this sign.

    Args:
        found: the difference.
        sign: +1 or -1.
        corrected: its p-value after correction for multiple comparisons.
    """
    over_items = found.items is None or found.items[0] > 0 or found.items[1] < 0
    if corrected >= LEVEL or not over_items:
        return "undecided"
    if found.items is not None and (found.items[0] > 0) != (found.mean > 0):
        return "undecided"
    return "agrees" if found.mean * sign > 0 else "contradicts"


def mean_interval(values: Sequence[float]) -> dict[str, Any]:
    """Mean and half-width of the 95% t interval over seeds, for a table."""
    found = contrast(values, [0.0] * len(values))
    return {"mean": found.mean, "half": found.seeds}


def shown(values: Sequence[float], digits: int = 3) -> str:
    """Mean ± half-width as text."""
    found = mean_interval(values)
    text = f"{found['mean']:.{digits}f}"
    return text if found["half"] is None else f"{text} ± {found['half']:.{digits}f}"
