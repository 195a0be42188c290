"""The box below a counterexample: every simpler instance with small integer parameters, decided one by one.

Simpler means smaller sizes first, then fewer non-zero parameters. What is recorded is what was decided, so a
reader sees how far "smallest" has been checked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

from theory import instances
from theory.claim import Json
from theory.search.certify import Candidate
from theory.search.exhaust import exhaust, points_in
from theory.search.problem import Problem

BOUND = 1  # largest absolute value of a parameter
DECISIONS = 400  # at one choice of sizes
SIZES = 4  # choices of sizes, the nearest below the counterexample's


def below(
    problem: Problem, dims: Sequence[Mapping[str, Any]], parameters: Sequence[Fraction]
) -> tuple[Json, Candidate | None]:
    """What was decided below a counterexample with these parameters at the last of `dims`.

    Args:
        problem: The text and its setting.
        dims: Sizes, ascending, up to those of the counterexample.
        parameters: Its free parameters.

    Returns:
        {"bound", "sizes": [{"non_zeros", "sizes", "decided", "undecided", "counterexamples", "smallest"}],
        "simplest"}: for each sizes the number of non-zero parameters up to which everything was decided, and the
        row of the first counterexample met, which is simpler than the one handed in; and that counterexample.
    """
    out: Json = {"bound": BOUND, "sizes": [], "simplest": None}
    for d in dims[-SIZES:]:
        total = instances.count(problem.shapes(d))
        most = total if d is not dims[-1] else sum(v != 0 for v in parameters) - 1
        while most >= 0 and points_in(total, most, 2 * BOUND) > DECISIONS:
            most -= 1
        if most < 0:
            continue
        found = exhaust(
            problem.statement,
            problem.setting,
            {"dims": [d], "bound": BOUND, "non_zeros": most},
            **problem.changes,
        )
        row = {"non_zeros": most, **found["sizes"][0]}
        out["sizes"].append(row)
        if row["smallest"] is not None:
            out["simplest"] = row
            return out, Candidate(d, tuple(Fraction(v) for v in row["smallest"]))
    return out, None
