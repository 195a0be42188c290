"""The verdict of one claim, derived anew: plain data in, plain data out, so that it can run on any machine."""

from __future__ import annotations

import time
from dataclasses import dataclass

from threadpoolctl import threadpool_limits

from theory import registry, verdicts
from theory.checks import stored_searches
from theory.claim import Json, Setting
from theory.evidence import CheckFails
from theory.protocol import Statement


def searcher(budget: int, seed: int) -> verdicts.Searcher:
    """Look for counterexamples with a fixed count of evaluations."""
    from theory.search import falsify

    def search(label: str, statement: Statement, setting: Setting, changes: Json) -> Json:
        report: Json = falsify(statement, setting, budget=budget, seed=seed, **changes).to_json()
        return report

    return search


@dataclass(frozen=True)
class Task:
    """One claim to be derived, perhaps on another machine: plain data only."""

    claim_id: str
    stored: Json | None
    write: bool
    search: bool
    budget: int
    seed: int


@dataclass(frozen=True)
class Derived:
    """What came out: the fresh record, or why the evidence fails; and how long it took."""

    record: Json | None
    failure: str
    seconds: float


def derive(task: Task) -> Derived:
    """Derive the verdict of one claim; reads and writes no file, so that it can run anywhere."""
    entry, started = registry.find(task.claim_id), time.perf_counter()
    settings: Json = {"search_budget": task.budget, "seed": task.seed}
    try:
        with threadpool_limits(1):
            if task.search:
                searches = verdicts.search_all(entry.claim, searcher(task.budget, task.seed))
            else:
                searches = stored_searches(task.stored) if task.stored else {}
                settings = task.stored["settings"] if task.stored else settings
            fresh = verdicts.record(entry, searches, settings)
    except CheckFails as error:
        return Derived(None, str(error), time.perf_counter() - started)
    return Derived(fresh, "", time.perf_counter() - started)
