"""Which side answers better, over seeds and over items; a side is one method or the mean of several."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import numpy as np

from llm_experiments.experiments.ood_forgetting import item_losses
from llm_experiments.experiments.statistics import (
    Contrast,
    contrast,
    items_interval,
    rank_correlation_interval,
)
from llm_experiments.experiments.tiers import Bed
from llm_experiments.experiments.trial import Result

Side = Sequence[Sequence[Result]]  # methods x seeds


def better(first: Side, second: Side, bed: Bed, splits: Sequence[str] = ("test",)) -> Contrast:
    """How much better the first side is, mean over the splits; positive: better.

    By the rank correlation with human scores where the bed has it, else by the loss in nats (second - first).

    Args:
        first: results, methods x seeds; a method's seeds pair with the other side's.
        second: likewise.
        bed: where they were trained.
        splits: test sets.
    """
    name, sign = ("rho", 1.0) if bed.quality == "rho" else (bed.loss, -1.0)
    values = [sign * _by_seed(side, splits, name) for side in (first, second)]
    centre, halves = float(np.mean(values[0]) - np.mean(values[1])), []
    for split in splits:
        if name == "rho":
            scores = first[0][0].each(f"split/{split}")["score"]
            low, high = rank_correlation_interval(_margins(first, split), _margins(second, split), scores)
        else:
            low, high = items_interval(_losses(second, split), _losses(first, split))
        halves.append((high - low) / 2)
    # Items of different sets are independent: half-widths of the mean add in squares.
    half = float(np.sqrt(np.sum(np.square(halves)))) / len(splits)
    return contrast(list(values[0]), list(values[1]), interval=(centre - half, centre + half))


def lower_loss(first: Side, second: Side, bed: Bed, split: str) -> Contrast:
    """Loss of the second side minus that of the first on a split, in nats; positive: the first is lower."""
    each = [_losses(side, split) for side in (second, first)]
    seeds = [_by_seed(side, (split,), bed.loss) for side in (second, first)]
    return contrast(list(seeds[0]), list(seeds[1]), interval=items_interval(*each))


def _by_seed(side: Side, splits: Sequence[str], name: str) -> np.ndarray:
    """Mean of a measure over methods and splits, one value a seed."""
    return np.array([[[r.measure(s, name) for r in method] for method in side] for s in splits]).mean((0, 1))


def _losses(side: Side, split: str) -> np.ndarray:
    """Loss of every item, mean over methods (seeds x items)."""
    return np.mean([item_losses(list(method), split) for method in side], axis=0)


def _margins(side: Side, split: str) -> np.ndarray:
    """What is ranked against the human scores, ((methods and seeds) x items)."""
    each = [result.each(f"split/{split}")["log_probs"] for result in chain.from_iterable(side)]
    return np.stack([log_probs[:, 1] - log_probs[:, 0] for log_probs in each])
