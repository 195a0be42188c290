"""Ratios along growing sizes: a bound that fails only at size 160 shows itself as a ratio that keeps growing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from theory.protocol import NotHere
from theory.search import ascent, points
from theory.search.problem import Problem
from theory.search.report import TaskResult
from theory.search.stages import Part

STEPS = 7  # sizes tried along one direction
EXACT_TOTAL = 400  # free numbers up to which the best point is decided exactly
STILL = 1e-3  # relative growth over two steps below which a ratio counts as standing still


def run(problem: Problem, dims: list[dict[str, Any]], budget: int, seed: int) -> Iterator[TaskResult]:
    """For each size named in `Setting.grow`: ratios at growing values, until the ratio stands still."""
    for number, name in enumerate(problem.setting.grow):
        yield _along(problem, dims[-1], name, budget, [seed, 50, number])


def _along(problem: Problem, base: dict[str, Any], name: str, budget: int, seeds: list[int]) -> TaskResult:
    value = int(base[name])
    track: list[dict[str, Any]] = []
    ratios: list[float] = []
    out = TaskResult("growth", {"size": name, "from": value})
    for step in range(STEPS):
        d = {**base, name: value}
        try:
            part = Part(problem, "growth", d, np.random.default_rng([*seeds, step]))
            ratio = _best(part, max(32, budget // STEPS))
        except NotHere as reason:
            out.reasons[f"does not apply at {name} = {value}: {reason}"] += 1
            break
        except (ValueError, MemoryError) as error:
            out.errors[f"at {name} = {value}: {type(error).__name__}: {error}"] += 1
            break
        done = part.finish()
        out.tried += done.tried
        out.exact += done.exact
        out.reasons += done.reasons
        out.errors += done.errors
        ratios.append(ratio)
        exact = done.best is not None
        track.append(
            {
                "value": value,
                "about": round(ratio, 6),
                "ratio": done.best[1] if done.best else None,
                "exact": exact,
            }
        )
        if done.best is not None and (out.best is None or done.best[0] > out.best[0]):
            out.best, out.best_at = done.best, done.best_at
        if done.hit is not None:
            out.hit, out.sizes = done.hit, {**done.sizes}
            break
        if len(ratios) > 2 and ratios[-1] < ratios[-3] * (1 + STILL):
            break
        value = max(value + 1, value * 3 // 2)
    growing = len(ratios) > 2 and all(
        b > a * (1 + STILL / 2) for a, b in zip(ratios[-3:], ratios[-2:], strict=False)
    )
    out.trend = [{"size": name, "points": track, "growing": growing}]
    return out


def _best(part: Part, count: int) -> float:
    """The largest ratio that families, samples and a short ascent reach (floats; decided exactly if small)."""
    shapes, problem = part.shapes, part.problem
    total = sum(m * n for m, n in shapes.values())
    count = max(8, min(count, 2_000_000 // max(total, 1)))
    pools = [
        points.families(part.rng, shapes, count // 2),
        points.gaussian(part.rng, shapes, max(1, count // 8)),
    ]
    if problem.setting.families is not None:
        pools.insert(0, np.asarray(problem.setting.families(part.rng, part.d, count), dtype=float))
    pool = np.concatenate(pools)
    f = part.objective("ratio")
    values = f(pool)
    best = pool[np.argsort(values, kind="stable")[:8]]
    z, values = ascent.climb(f, best, part.rng, max(2, count // 32))
    if total <= EXACT_TOTAL:
        part.examine(z)
    slack = float(values.min())
    return (1 - slack) / (1 + slack) if -1 < slack <= 1 else 0.0
