"""Compare two records of the same thing, and name every place where they disagree."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from typing import Any

from reports.layout import Record

RELATIVE_TOLERANCE = 1e-6


@dataclass(frozen=True)
class Difference:
    """One place where two records disagree.

    Attributes:
        where: the place, for example `verdicts[0].status`.
        before: the value in the first record, shortened for reading.
        after: the value in the second one.
        information: True when the place may differ between machines (a search's counts and best ratios).
    """

    where: str
    before: str
    after: str
    information: bool = False

    def __str__(self) -> str:
        note = " (information: the search went another way)" if self.information else ""
        return f"{self.where}: {self.before} -> {self.after}{note}"


def compare_records(before: Record, after: Record) -> list[Difference]:
    """Return every difference between two records of the same thing, in the order of their fields.

    Statuses, certificates and exact values must be equal; floats agree to a relative 1e-6. What lies under a
    field `search`, and an attained ratio kept as a float, is what a search met on the way: reported as
    information. `key` and `digest` follow from the rest and are not compared.
    """
    skipped = ("key", "digest")
    found: list[Difference] = []
    _compare(
        {name: value for name, value in before.items() if name not in skipped},
        {name: value for name, value in after.items() if name not in skipped},
        "",
        found,
    )
    return found


_ABSENT = object()


def _compare(before: Any, after: Any, place: str, found: list[Difference]) -> None:
    if isinstance(before, dict) and isinstance(after, dict):
        for name in [*before, *(name for name in after if name not in before)]:
            inner = f"{place}.{name}" if place else name
            _compare(before.get(name, _ABSENT), after.get(name, _ABSENT), inner, found)
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for i, (left, right) in enumerate(zip(before, after, strict=True)):
            _compare(left, right, f"{place}[{i}]", found)
    elif not _same(before, after):
        numbers = isinstance(before, float) or isinstance(after, float)
        searched = re.search(r"(^|\.)search(\.|\[|$)", place) is not None
        information = searched or (place.endswith("tightness.ratio") and numbers)
        found.append(Difference(place, _short(before), _short(after), information))


def _same(before: Any, after: Any) -> bool:
    if isinstance(before, bool) or isinstance(after, bool):
        return before is after
    numbers = (int, float)
    if isinstance(before, numbers) and isinstance(after, numbers):
        if isinstance(before, int) and isinstance(after, int):
            return before == after
        return math.isclose(before, after, rel_tol=RELATIVE_TOLERANCE, abs_tol=1e-300)
    return type(before) is type(after) and bool(before == after)


def _short(value: Any) -> str:
    if value is _ABSENT:
        return "absent"
    text = json.dumps(value, sort_keys=True)
    return text if len(text) <= 60 else text[:57] + "..."
