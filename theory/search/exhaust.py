"""Every small instance: the record that nothing smaller than a counterexample exists."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from itertools import product
from typing import Any

from theory import instances
from theory.claim import Json, Setting
from theory.protocol import Statement
from theory.search.certify import Candidate, Certifier, cost

LIMIT = 300_000  # points that are decided one by one


def exhaust(statement: Statement, setting: Setting, box: Mapping[str, Any], **changes: Any) -> Json:
    """Decide every instance with integer parameters in a box, exactly.

    Args:
        statement: The text.
        setting: How instances are made.
        box: {"dims": sizes to go through (those of the setting if missing), "bound": largest absolute value
            of a parameter, "non_zeros": largest number of non-zero parameters (all if missing)}.
        changes: `tighten`, `drop`, `only`.

    Returns:
        {"bound", "non_zeros", "sizes": [{"sizes", "decided", "undecided", "counterexamples", "smallest"}]}:
        `smallest` is a counterexample's parameters with the fewest non-zeros, then the simplest numbers.

    Raises:
        ValueError: The box holds more than `LIMIT` points at some sizes.
    """
    bound = int(box["bound"])
    dims: Sequence[Mapping[str, Any]] = box.get("dims", setting.dims)
    out: Json = {"bound": bound, "non_zeros": box.get("non_zeros"), "sizes": []}
    values = [Fraction(0), *(Fraction(s * v) for v in range(1, bound + 1) for s in (1, -1))]
    for d in dims:
        total = instances.count(setting.free(dict(d)))
        most = min(total, total if box.get("non_zeros") is None else box["non_zeros"])
        if points_in(total, most, 2 * bound) > LIMIT:
            msg = f"the box must hold at most {LIMIT} points; got {points_in(total, most, 2 * bound)} at sizes {dict(d)}"
            raise ValueError(msg)
        certifier = Certifier(statement, setting, changes)
        found: list[tuple[Fraction, ...]] = []
        decided = 0
        for point in product(values, repeat=total) if most == total else _sparse(total, most, values[1:]):
            decided += 1
            if certifier.breaks(Candidate(d, tuple(point))) is not None:
                found.append(tuple(point))
        smallest = min(found, key=cost) if found else None
        out["sizes"].append(
            {
                "sizes": {n: list(v) if isinstance(v, tuple) else v for n, v in d.items()},
                "decided": decided,
                "undecided": sum(certifier.reasons.values()) + sum(certifier.errors.values()),
                "counterexamples": len(found),
                "smallest": [str(v) for v in smallest] if smallest else None,
            }
        )
    return out


def points_in(total: int, most: int, others: int) -> int:
    """How many points have at most `most` non-zeros among `total` coordinates, each with `others` other values."""
    count, choose = 0, 1
    for k in range(most + 1):
        count += choose * others**k
        choose = choose * (total - k) // (k + 1)
    return count


def _sparse(total: int, most: int, values: Sequence[Fraction]) -> Any:
    """Points with at most `most` non-zero coordinates."""
    from itertools import combinations

    for k in range(most + 1):
        for places in combinations(range(total), k):
            for choice in product(values, repeat=k):
                point = [Fraction(0)] * total
                for i, v in zip(places, choice, strict=True):
                    point[i] = v
                yield tuple(point)
