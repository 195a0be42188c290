"""Along growing sizes: a bound that fails only at size 160 shows itself as a ratio that keeps growing.

Sizes grow alone or together (chains with their steps), each larger problem starting from the best points of the
one before, set into a corner of the larger parameters. A setting names its sizes in `Setting.grow`; then what is
found counts. Otherwise every integer size is tried, and a finding is a note only: the author may have meant the
sizes that stand in the file and no others.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from theory.protocol import NotHere
from theory.search import ascent, points
from theory.search.problem import Problem
from theory.search.report import TaskResult
from theory.search.stages import Part

Array = Any
STEPS = 7  # sizes tried along one direction
EXACT_TOTAL = 60  # free numbers up to which the best points are decided exactly, broken or not
BROKEN_TOTAL = 1500  # free numbers up to which points that look broken are decided exactly
STILL = 1e-3  # relative growth over two steps below which a ratio counts as standing still
STARTS = 8  # points that are climbed from, and handed on to the next size
LENGTH = 20_000  # numbers and matrices that one evaluation of a text may make: 2^n terms end here
TOTAL = 2_000_000  # free numbers of all points of one size together
JOIN = "+"  # between the names of sizes that grow together


def run(problem: Problem, dims: list[dict[str, Any]], budget: int, seed: int) -> Iterator[TaskResult]:
    """For each direction named in `Setting.grow`: ratios at growing values, until the ratio stands still."""
    for number, names in enumerate(problem.setting.grow):
        yield _along(problem, dims[-1], names.split(JOIN), budget, [seed, 50, number], patient=True)


def free_sizes(problem: Problem, dims: list[dict[str, Any]], budget: int, seed: int) -> Iterator[TaskResult]:
    """For each integer size of the setting, alone and all of them together; sizes named in `grow` are done."""
    base = dims[-1]
    names = [n for n, v in base.items() if isinstance(v, int) and not isinstance(v, bool) and v > 0]
    directions = [[n] for n in names] + ([names] if len(names) > 1 else [])
    directions = [d for d in directions if JOIN.join(d) not in problem.setting.grow]
    for number, direction in enumerate(directions):
        yield _along(problem, base, direction, budget // len(directions), [seed, 51, number], patient=False)


def larger(base: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """The next sizes of a direction: the first one half larger, the others in proportion."""
    first = int(base[names[0]])
    grown = max(first + 1, first * 3 // 2)
    return {**base, **{n: max(int(base[n]) + 1, round(int(base[n]) * grown / first)) for n in names}}


def _along(
    problem: Problem,
    base: dict[str, Any],
    names: Sequence[str],
    budget: int,
    seeds: list[int],
    patient: bool,
) -> TaskResult:
    d, ratios, track = dict(base), [], []
    best: tuple[dict[str, tuple[int, int]], Array] | None = None
    label = JOIN.join(names)
    out = TaskResult("growth", {"size": label, "from": int(base[names[0]])})
    for step in range(STEPS):
        try:
            part = Part(problem, "growth", d, np.random.default_rng([*seeds, step]))
            ratio, z = _best(part, max(32, budget // STEPS), best, patient)
        except NotHere as reason:
            out.reasons[f"does not apply at {_at(d, names)}: {reason}"] += 1
            break
        except Exception as error:  # sizes outside the file: what they break is no fault of the file
            kind = out.errors if patient else out.reasons
            kind[f"at {_at(d, names)}: {type(error).__name__}: {error}"] += 1
            break
        best = (dict(part.shapes), z)
        done = part.finish()
        out.tried += done.tried
        out.exact += done.exact
        out.reasons += done.reasons
        if patient or step == 0:
            out.errors += done.errors
        ratios.append(ratio)
        track.append(
            {
                "value": d[names[0]],
                "about": round(ratio, 6),
                "ratio": done.best[1] if done.best else None,
                "exact": done.best is not None,
            }
        )
        if done.best is not None and (out.best is None or done.best[0] > out.best[0]):
            out.best, out.best_at = done.best, done.best_at
        if done.hit is not None:
            out.hit, out.sizes = done.hit, {**done.sizes}
            break
        if not patient and len(ratios) > 2 and ratios[-1] < ratios[-3] * (1 + STILL):
            break
        d = larger(d, names)
    growing = len(ratios) > 2 and all(
        b > a * (1 + STILL / 2) for a, b in zip(ratios[-3:], ratios[-2:], strict=False)
    )
    if patient or growing:
        out.trend = [{"size": label, "points": track, "growing": growing}]
    return out


def _at(d: Mapping[str, Any], names: Sequence[str]) -> str:
    return ", ".join(f"{n} = {d[n]}" for n in names)


def embedded(small: Mapping[str, tuple[int, int]], z: Array, large: Mapping[str, tuple[int, int]]) -> Array:
    """Points of smaller parameters in the last and in the first corner of larger ones, zero elsewhere."""
    rows = []
    for front in (False, True):
        parts, at = [np.zeros((len(z), 0))], 0
        for name, (m, n) in large.items():
            a, b = small.get(name, (0, 0))
            block = z[:, at : at + a * b].reshape(-1, a, b)
            at += a * b
            out = np.zeros((len(z), m, n))
            a, b = min(a, m), min(b, n)
            if front:
                out[:, :a, :b] = block[:, :a, :b]
            else:
                out[:, m - a :, n - b :] = block[:, :a, :b]
            parts.append(out.reshape(len(z), -1))
        rows.append(np.concatenate(parts, axis=1))
    return np.concatenate(rows)


def _best(part: Part, count: int, before: Any, patient: bool) -> tuple[float, Array]:
    """The largest ratio that the points before, families, samples and an ascent reach, and the points for next."""
    shapes, problem = part.shapes, part.problem
    total = sum(m * n for m, n in shapes.values())
    count = max(8, min(count, TOTAL // max(total, 1)))
    pools = [points.families(part.rng, shapes, count // 8), points.gaussian(part.rng, shapes, count // 16)]
    if problem.setting.families is not None:
        pools.insert(0, np.asarray(problem.setting.families(part.rng, part.d, count // 4), dtype=float))
    if before is not None:
        small, points_before = before
        pools.insert(0, embedded(small, points_before, shapes))
    pool = np.concatenate(pools)
    f = part.objective("ratio", LENGTH)
    values = f(pool)
    order = np.argsort(values, kind="stable")
    handed = min(len(pools[0]), 2 * STARTS) if before is not None else 0
    chosen = np.unique(np.concatenate([order[:STARTS], np.argsort(values[:handed], kind="stable")[:STARTS]]))
    groups = problem.groups(part.d)
    z, values = ascent.climb(f, pool[chosen], part.rng, max(2, count // (2 * len(chosen))), groups=groups)
    order = np.argsort(values, kind="stable")
    slack = float(values.min())
    broken = slack < 0 and bool(problem.score(part.d, z, "ratio", LENGTH).clear.any())
    if (patient and total <= EXACT_TOTAL) or (broken and total <= BROKEN_TOTAL):
        part.examine(z[order][:STARTS], thin=True)
    return (1 - slack) / (1 + slack) if -1 < slack <= 1 else 0.0, z[order][:STARTS]
