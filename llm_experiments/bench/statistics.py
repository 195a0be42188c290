"""Medians and quartiles, and ratios of two arms paired round by round."""

from __future__ import annotations

import statistics
from collections.abc import Sequence


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """Lower quartile, median and upper quartile, interpolated between the ordered values.

    Raises:
        ValueError: there is no value.
    """
    if not values:
        msg = "values must hold at least one number; got none"
        raise ValueError(msg)
    if len(values) == 1:
        return values[0], values[0], values[0]
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high


def paired_ratio(over: Sequence[float], under: Sequence[float]) -> tuple[float, float, float]:
    """Quartiles of `over[i] / under[i]`, both taken in round `i`.

    A slow minute of the machine hits both arms of a round alike and cancels; the ratio of the medians would
    keep it.

    Raises:
        ValueError: the two were not measured in the same rounds.
    """
    if len(over) != len(under):
        msg = f"both arms must have the same rounds; got {len(over)} and {len(under)}"
        raise ValueError(msg)
    return quartiles([a / b for a, b in zip(over, under, strict=True)])
