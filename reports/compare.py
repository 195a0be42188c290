"""Compare two records of the same thing, and name every place where they disagree."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass, replace
from typing import Any

from reports.layout import Record

RELATIVE_TOLERANCE = 1e-6
# Two floats that are both below this are what rounding leaves of zero: their digits differ between processors.
RESIDUE = 1e-9


@dataclass(frozen=True)
class Difference:
    """One place where two records disagree.

    Attributes:
        where: the place, for example `verdicts[0].status`.
        before: the value in the first record, shortened for reading.
        after: the value in the second one.
        information: True when the place may differ between machines (a search's counts and best ratios).
        rounding: True when both values are numbers and at least one is a float.
        residue: True when both are floats below 1e-9, which rounding leaves of zero.
    """

    where: str
    before: str
    after: str
    information: bool = False
    rounding: bool = False
    residue: bool = False

    def __str__(self) -> str:
        note = " (may differ between machines)" if self.information else ""
        return f"{self.where}: {self.before} -> {self.after}{note}"


def compare_records(before: Record, after: Record, measured: bool = False) -> list[Difference]:
    """Return every difference between two records of the same thing, in the order of their fields.

    Statuses, certificates and exact values must be equal; floats agree to a relative 1e-6. What lies under a
    field `search`, and an attained ratio kept as a float, is what a search met on the way; two floats below
    1e-9 are what rounding leaves of zero: reported as information. `key` and `digest` follow from the rest
    and are not compared.

    Args:
        before: one record, for example the committed one.
        after: the other one.
        measured: True for experiments and benchmarks, whose numbers and machines differ from one processor to the
            next. There floats, and the parts that show them as text, are information; outcomes of predictions must
            agree, and a scored mean must lie within the interval over seeds of the first record.
    """
    skipped = ("key", "digest")
    found: list[Difference] = []
    _compare(
        {name: value for name, value in before.items() if name not in skipped},
        {name: value for name, value in after.items() if name not in skipped},
        "",
        found,
    )
    return [
        replace(
            difference,
            information=_is_information(difference, measured)
            and not (measured and _outside(difference, before, after)),
        )
        for difference in found
    ]


# Parts of an experiment's record that hold measured numbers, some of them as text.
_MEASURED = re.compile(
    r"(headline|tables|figures|notes|trainings|protocols|assumptions|environment|machine)\b"
    r"|predictions\[\d+\]\.(measured|half_width_seeds|interval_items|p_corrected|smallest_effect)\b"
)


def _outside(difference: Difference, before: Record, after: Record) -> bool:
    """Return whether a difference is a scored mean that left the interval over seeds of the first record."""
    place = re.fullmatch(r"predictions\[(\d+)\]\.mean", difference.where)
    if place is None:
        return False
    old, new = (record["predictions"][int(place[1])] for record in (before, after))
    half = old.get("half_width_seeds")
    return half is not None and abs(new["mean"] - old["mean"]) > half


def _is_information(difference: Difference, measured: bool) -> bool:
    """Return whether a difference says only that a search, or a measurement on another machine, went otherwise."""
    if measured and _MEASURED.match(difference.where):
        return True
    searched = re.search(r"(^|\.)search(\.|\[|$)", difference.where) is not None
    numeric = difference.where.endswith("tightness.ratio") or measured
    return searched or difference.residue or (numeric and difference.rounding)


_ABSENT = object()


def _compare(before: Any, after: Any, place: str, found: list[Difference], sensitive: bool = False) -> None:
    """Collect differences; `sensitive` marks parts whose floats depend on the processor's rounding."""
    if isinstance(before, dict) and isinstance(after, dict):
        sensitive = sensitive or (before.get("sensitive") is True and after.get("sensitive") is True)
        for name in [*before, *(name for name in after if name not in before)]:
            inner = f"{place}.{name}" if place else name
            _compare(before.get(name, _ABSENT), after.get(name, _ABSENT), inner, found, sensitive)
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for i, (left, right) in enumerate(zip(before, after, strict=True)):
            _compare(left, right, f"{place}[{i}]", found, sensitive)
    elif not _same(before, after):
        floats = _floats(before, after)
        residue = floats and (sensitive or max(abs(before), abs(after)) < RESIDUE)
        found.append(Difference(place, _short(before), _short(after), rounding=floats, residue=residue))


def _same(before: Any, after: Any) -> bool:
    if isinstance(before, bool) or isinstance(after, bool):
        return before is after
    numbers = (int, float)
    if isinstance(before, numbers) and isinstance(after, numbers):
        if isinstance(before, int) and isinstance(after, int):
            return before == after
        return math.isclose(before, after, rel_tol=RELATIVE_TOLERANCE, abs_tol=1e-300)
    return type(before) is type(after) and bool(before == after)


def _floats(before: Any, after: Any) -> bool:
    """Return whether both are numbers and at least one is a float."""
    both = all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in (before, after))
    return both and (isinstance(before, float) or isinstance(after, float))


def _short(value: Any) -> str:
    if value is _ABSENT:
        return "absent"
    text = json.dumps(value, sort_keys=True)
    return text if len(text) <= 60 else text[:57] + "..."
