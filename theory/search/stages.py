"""The stages of a search, each from cheap to dear; every one scores, certifies and counts in the same way."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from fractions import Fraction
from itertools import islice
from typing import Any

import numpy as np

from theory.kits.floats import Floats
from theory.protocol import NotHere
from theory.search import ascent, lines, points
from theory.search.certify import Candidate, Certifier
from theory.search.classes import classes
from theory.search.problem import Problem
from theory.search.report import TaskResult

Array = Any
CLEAR_POINTS = 150  # clear violations of one part that are tried exactly
NEAR_POINTS = 4  # points on the boundary of a conclusion that are tried exactly
EXACT_DECISIONS = 300  # of one part, for what floats suggest
WATCHED = 128  # points of one part whose classes are noted


class Part:
    """One part of a stage at one choice of sizes: scores points, certifies what looks broken, keeps count."""

    def __init__(self, problem: Problem, stage: str, d: Mapping[str, Any], rng: Any) -> None:
        self.problem, self.d, self.rng = problem, dict(d), rng
        self.certifier = Certifier(problem.statement, problem.setting, problem.changes)
        plain = {n: list(v) if isinstance(v, tuple) else v for n, v in self.d.items()}
        self.result = TaskResult(stage, plain)
        self.shapes = problem.shapes(d)
        self._seen: set[tuple[Fraction, ...]] = set()

    @property
    def hit(self) -> bool:
        """Whether a counterexample was certified."""
        return self.result.hit is not None

    def count_exact(self, number: int) -> None:
        """Count exact evaluations that decide no candidate."""
        self.result.exact += number

    def objective(self, mode: str, most: int | None = None) -> Callable[[Array], Array]:
        """The objective to minimise, counting evaluations; each may take at most `most` operations."""

        def f(z: Array) -> Array:
            self.result.tried += len(z)
            return self.problem.score(self.d, z, mode, most).objective

        return f

    def examine(self, z: Array, thin: bool = False) -> None:
        """Score points, try the suspicious ones exactly, and re-evaluate the best ones exactly."""
        if not len(z) or self.hit:
            return
        s = self.problem.score(self.d, z)
        self.result.tried += len(z)
        self._watch(z[:WATCHED], s.meets[:WATCHED])
        integral = np.all(z == np.round(z), axis=1)
        for flagged, limit, flat in ((s.clear, CLEAR_POINTS, thin), (s.near, NEAR_POINTS, True)):
            index = np.flatnonzero(flagged)
            weight = np.where(integral[index], np.abs(z[index]).sum(axis=1) - 1e6, s.objective[index])
            for i in index[np.argsort(weight, kind="stable")][:limit]:
                if self._try(z[i], flat, 3 if flagged is s.near else 12, flagged is s.clear):
                    return
        good = np.flatnonzero(s.meets & ~s.clear)
        for i in good[np.argsort(s.objective[good], kind="stable")][:2]:
            if self._try(np.round(z[i], 3), False, 1, suspicious=False):
                return

    def _try(self, point: Array, thin: bool, roundings: int, suspicious: bool = True) -> bool:
        for candidate in islice(self.problem.candidates(self.d, point, thin), roundings):
            if self.certifier.asked >= EXACT_DECISIONS:
                return False
            if self.decide(candidate):
                return True
        self.result.uncertified += suspicious
        return False

    def decide(self, candidate: Candidate) -> bool:
        """Decide a candidate exactly; keep it if it is a counterexample, and its ratio if it is none."""
        if not candidate.replaced and candidate.instance is None:
            if candidate.values in self._seen:
                return False
            self._seen.add(candidate.values)
        kit = self.certifier.breaks(candidate)
        ratio = self.certifier.ratio
        if kit is not None:
            self.result.hit = candidate
        elif ratio is not None and (self.result.best is None or ratio[0] > self.result.best[0]):
            self.result.best = ratio
            self.result.best_at = [str(v) for v in candidate.numbers()]
        return kit is not None

    def _watch(self, z: Array, meets: Array) -> None:
        if not meets.any():
            return
        x = self.problem.floats(self.d, z)
        found = classes(x, meets)
        if self.problem.setting.classes is not None:
            for name, hits in self.problem.setting.classes(Floats(), x).items():
                found[name] = bool((np.broadcast_to(hits, meets.shape) & meets).any())
        for name, hits in found.items():
            self.result.classes[name] = self.result.classes.get(name, False) or hits

    def finish(self) -> TaskResult:
        """The counts, complete."""
        self.result.exact += self.certifier.asked
        self.result.reasons += self.certifier.reasons
        self.result.errors += self.certifier.errors
        return self.result


def boundary(part: Part, count: int) -> None:
    """Zeros, identities, ones, exchanges."""
    part.examine(points.boundary(part.shapes)[:count])


def small(part: Part, count: int) -> None:
    """Structured small integers."""
    part.examine(points.small(part.rng, part.shapes, count))


def families(part: Part, count: int) -> None:
    """Structured real points, and the claim's own families."""
    own = part.problem.setting.families
    if own is not None:
        part.examine(np.asarray(own(part.rng, part.d, count // 2), dtype=float))
        count -= count // 2
    part.examine(points.families(part.rng, part.shapes, count))


def gaussian(part: Part, count: int) -> None:
    """Gaussian parameters."""
    part.examine(points.gaussian(part.rng, part.shapes, count))


def exact(part: Part, count: int) -> None:
    """Small integers decided exactly without asking floats: ties, thin sets, what floats cannot express."""
    for row in points.small(part.rng, part.shapes, count):
        for candidate in part.problem.candidates(part.d, row):
            if part.decide(candidate):
                return


def ascend(part: Part, count: int) -> None:
    """Evolution from the best of a mixed pool, by ratio and by size of terms, then with adapted covariance."""
    total = sum(m * n for m, n in part.shapes.values())
    if not total:
        return
    pool_size = max(32, count // 6)
    pool = np.concatenate(
        [
            points.families(part.rng, part.shapes, pool_size // 2),
            points.small(part.rng, part.shapes, pool_size // 4),
            points.gaussian(part.rng, part.shapes, pool_size // 4),
        ]
    )
    if part.problem.setting.families is not None:
        own = np.asarray(part.problem.setting.families(part.rng, part.d, pool_size // 2), dtype=float)
        pool = np.concatenate([own, pool])
    mode = "ratio" if part.rng.random() < 0.6 else "terms"
    f = part.objective(mode)
    values = f(pool)
    order = np.argsort(values, kind="stable")
    spread = order[:: max(1, len(order) // 8)][:8]  # not all from one basin
    starts = pool[np.unique(np.concatenate([order[:24], spread]))]
    rounds = max(4, count // 3 // len(starts))
    groups = part.problem.groups(part.d)
    z, values = ascent.climb(f, starts, part.rng, rounds, groups=groups)
    part.examine(z)
    if part.hit:
        return
    best = z[np.argsort(values, kind="stable")[: 2 if count < 6000 else 6]]
    if total <= 80:
        final, _ = ascent.adapt(f, best, part.rng, count // 2)
    else:
        final, _ = ascent.climb(f, best, part.rng, max(4, count // 2 // len(best)), step=0.05, groups=groups)
    part.examine(final)
    part.examine(final, thin=True)


def degenerate(part: Part, count: int) -> None:
    """Points where a rank, inverse, gap or determinant of the text changes: by exact roots and by descent."""
    base = points.small(part.rng, part.shapes, max(2, count // 120))
    for candidate in lines.candidates(part.problem, part.d, base, part.rng, part.count_exact):
        if part.decide(candidate):
            return
    total = sum(m * n for m, n in part.shapes.values())
    first = part.problem.score(part.d, points.gaussian(part.rng, part.shapes, 4)) if total else None
    if first is None or not first.critical or total > 80 or count < 800:
        return
    budget = count // 2
    kinds = list(part.rng.permutation(len(first.critical)))[: max(1, count // 1500)]
    for kind in kinds:

        def f(z: Array, kind: int = int(kind)) -> Array:
            part.result.tried += len(z)
            s = part.problem.score(part.d, z)
            value = s.critical[kind] if kind < len(s.critical) else np.ones(len(z))
            return np.where(s.meets, value, 1 + s.objective)

        starts = np.concatenate(
            [points.small(part.rng, part.shapes, 4), points.gaussian(part.rng, part.shapes, 4)]
        )
        z, values = ascent.climb(f, starts, part.rng, max(3, count // 4 // len(kinds) // 8))
        final, _ = ascent.adapt(f, z[np.argsort(values, kind="stable")[:2]], part.rng, budget // len(kinds))
        for point in final:
            for candidate in islice(part.problem.candidates(part.d, point, True), 8):
                if part.decide(candidate):
                    return


def decision(part: Part, count: int) -> None:
    """A complete decision by the solver, where the statement is polynomial and small."""
    from theory.search import solver

    try:
        answer, found = solver.search(
            part.problem.statement,
            part.problem.setting,
            part.d,
            effort=count,
            guard=4.0,
            **part.problem.changes,
        )
    except NotHere as reason:
        part.result.reasons = Counter({f"does not apply: {reason}": 1})
        return
    part.result.answer = answer
    part.result.tried += 1
    for candidate in found:
        if part.decide(candidate):
            return
    if answer == "sat":
        part.result.uncertified += 1


STAGES: dict[str, Callable[[Part, int], None]] = {
    "boundary": boundary,
    "small integers": small,
    "families": families,
    "gaussian": gaussian,
    "exact": exact,
    "degenerate": degenerate,
    "decision": decision,
    "ascent": ascend,
}


def run(problem: Problem, stage: str, d: Mapping[str, Any], seeds: list[int], count: int) -> TaskResult:
    """One part of a stage. A stage that does not apply says why; a fault of the text is reported, not raised."""
    part = Part(problem, stage, d, np.random.default_rng(seeds))
    try:
        STAGES[stage](part, count)
    except NotHere as reason:
        part.result.reasons[f"does not apply: {reason}"] += 1
    except (KeyboardInterrupt, MemoryError):
        raise
    except Exception as error:  # a crash of one stage must not end the search; it is shown in the report
        part.result.errors[f"{type(error).__name__}: {error}"] += 1
    return part.finish()
