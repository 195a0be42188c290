"""The order of a search, and what becomes of a finding.

Rounds of growing effort; inside a round the cheap stages first, inside a stage the small sizes first. The
first counterexample of this order wins, whatever the number of processes; then the cheap stages run again at
smaller sizes, and the smallest finding is shrunk, certified by the trusted kit and completed by an open one.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
import sys
import time
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from theory.claim import Json, Setting
from theory.protocol import NotHere, Statement
from theory.search import box, growth, points, stages
from theory.search.beyond import widen
from theory.search.certify import Candidate, Certifier, shrink, survives_perturbation
from theory.search.classes import classes
from theory.search.problem import Problem
from theory.search.report import SearchReport, StageReport, TaskResult

DEFAULT_BUDGET = 200_000  # evaluations, in floats and exact together, of one search
ROUNDS = (0.05, 0.2, 0.75)  # shares of the budget
SHARES = {  # of a round's budget, in the order in which the stages run
    "boundary": 0.0,
    "small integers": 0.2,
    "families": 0.2,
    "gaussian": 0.05,
    "exact": 0.005,
    "degenerate": 0.1,
    "decision": 0.0,
    "ascent": 0.4,
}
BEYOND = "beyond build"
ALLOWED = 128  # instances of each kind drawn to see which classes the hypotheses allow
SHRINKING = 600  # exact decisions spent on shrinking a finding; a sixth where it has many numbers
MANY = 100
NOTE_DECISIONS = 120  # exact decisions spent on shrinking what is only a note
PART = 8192  # evaluations of one part at most: fixed, so that parts do not depend on the number of processes
CHEAP = ("boundary", "small integers", "families")
EFFORTS = (0, 2_000_000, 12_000_000)  # of the solver, by round

Progress = Callable[[TaskResult], None]


@dataclass(frozen=True)
class Task:
    """One part: stage, sizes by their index, the seed's coordinates, and how many evaluations."""

    stage: str
    size: int
    seeds: tuple[int, ...]
    count: int


def plan(sizes: int, budget: int, seed: int) -> Iterator[list[Task]]:
    """The rounds of a search, each a list of tasks in order."""
    names = list(SHARES)
    for number, share in enumerate(ROUNDS):
        tasks = []
        for stage in names:
            for size in range(sizes):
                key = (seed, number, names.index(stage), size)
                if stage == "boundary":
                    if number == 0:
                        tasks.append(Task(stage, size, key, max(16, budget // 20)))
                    continue
                if stage == "decision":
                    if EFFORTS[number]:
                        effort = EFFORTS[number] * budget // DEFAULT_BUDGET
                        tasks.append(Task(stage, size, key, min(effort, 8 * EFFORTS[number])))
                    continue
                count = int(budget * share * SHARES[stage] / sizes)
                parts = max(1, -(-count // PART))
                for part in range(parts):
                    if count // parts:
                        tasks.append(Task(stage, size, (*key, part), count // parts))
        yield tasks


_WORK: tuple[Problem, list[dict[str, Any]]] | None = None  # inherited by the worker processes


def _start_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _work(task: Task) -> TaskResult:
    assert _WORK is not None
    problem, dims = _WORK
    with threadpool_limits(1):
        return stages.run(problem, task.stage, dims[task.size], list(task.seeds), task.count)


class _Runner:
    """Runs tasks in order, here or in worker processes; results come in the order of the tasks either way."""

    def __init__(self, problem: Problem, dims: list[dict[str, Any]], jobs: int) -> None:
        global _WORK
        _WORK = (problem, dims)
        self.pool: ProcessPoolExecutor | None = None
        if jobs > 1 and "fork" in multiprocessing.get_all_start_methods() and sys.platform != "darwin":
            context = multiprocessing.get_context("fork")  # a stranger's file need not be importable by name
            self.pool = ProcessPoolExecutor(jobs, mp_context=context, initializer=_start_worker)

    def results(self, tasks: list[Task]) -> Generator[TaskResult, None, None]:
        """Results in the order of the tasks; what was not asked for is cancelled."""
        if self.pool is None:
            for task in tasks:
                yield _work(task)
            return
        futures: list[Future[TaskResult]] = [self.pool.submit(_work, task) for task in tasks]
        try:
            for future in futures:
                yield future.result()
        finally:
            for future in futures:
                future.cancel()

    def close(self) -> None:
        """End the workers at once: what they are still at is wanted by nobody."""
        if self.pool is None:
            return
        for worker in list((getattr(self.pool, "_processes", None) or {}).values()):
            worker.kill()
        self.pool.shutdown(wait=True, cancel_futures=True)


def falsify(
    statement: Statement,
    setting: Setting,
    *,
    budget: int = DEFAULT_BUDGET,
    seed: int = 0,
    jobs: int = 1,
    progress: Progress | None = None,
    outside: bool = False,
    **changes: Any,
) -> SearchReport:
    """Look for an instance that meets every hypothesis and breaks a conclusion.

    Args:
        statement: The text.
        setting: How instances are made.
        budget: Evaluations allowed (a count, so that the outcome does not depend on the machine).
        seed: Same seed, same outcome, for any number of jobs.
        jobs: Worker processes.
        progress: Called with the result of each part.
        outside: Where nothing was found, look also at other sizes and at instances that `build` does not make;
            what breaks there is a note of the report, no finding.
        changes: `tighten`, `drop`, `only`: a control instead of the statement itself.

    Returns:
        What was found, or how hard it was looked. Stopped by Ctrl-C, what is known so far, marked.

    Raises:
        ValueError: The budget is not positive, or the setting has no sizes.
    """
    if budget < 1:
        msg = f"budget must be a positive count of evaluations; got {budget}"
        raise ValueError(msg)
    dims = [dict(d) for d in setting.dims]
    if not dims:
        msg = "the setting has no sizes; give at least one entry in dims"
        raise ValueError(msg)
    start = time.perf_counter()
    problem = Problem(statement, setting, changes)
    log = _Log(progress)
    hit: tuple[TaskResult, int] | None = None
    found: Json | None = None
    notes: list[Json] = []
    interrupted = False
    runner = _Runner(problem, dims, jobs)
    try:
        with threadpool_limits(1), contextlib.closing(runner):
            hit = _look(problem, dims, runner, log, budget, seed)
            found = _settle(problem, dims, runner, log, hit, budget, seed) if hit else None
            if hit is None:
                for part in growth.run(problem, dims, budget // 4, seed):
                    log.add(part)
                    if part.hit is not None:
                        found = _settle(problem, dims, runner, log, (part, len(dims)), budget, seed)
                        break
            if found is None and outside:
                notes += _other_sizes(problem, dims, log, budget // 20, seed)
                notes += _other_instances(problem, log, budget // 10, seed, jobs)
    except KeyboardInterrupt:
        interrupted, found = True, log.first_found(problem)
    table = log.class_table()
    if found is None and not interrupted:
        allowed = allowed_classes(problem, dims, seed)
        table["allowed_never_hit"] = [name for name in table["never_hit"] if name in allowed]
    return SearchReport(
        found,
        log.reports(),
        table,
        log.trend,
        budget,
        seed,
        interrupted,
        time.perf_counter() - start,
        notes,
    )


def _other_sizes(
    problem: Problem, dims: list[dict[str, Any]], log: _Log, budget: int, seed: int
) -> list[Json]:
    """Counterexamples at sizes that the setting does not list: notes, since nobody said it holds there."""
    notes = []
    for part in growth.free_sizes(problem, dims, budget, seed):
        hit, part.hit = part.hit, None
        log.add(part)
        if hit is not None:
            certifier = Certifier(problem.statement, problem.setting, problem.changes)
            certificate = certifier.certificate(shrink(certifier, hit, NOTE_DECISIONS))
            if certificate is not None:
                notes.append({"outside": "the sizes in dims", "sizes": part.sizes, **certificate})
                break
    return notes


def _other_instances(problem: Problem, log: _Log, budget: int, seed: int, jobs: int) -> list[Json]:
    """Counterexamples that `build` does not make though they meet every stated hypothesis: notes.

    Either the statement is false, or a hypothesis that `build` respects was never stated; only a reader knows.
    """
    part = TaskResult(BEYOND, {})
    try:
        wide = widen(problem.setting)
        report = falsify(
            problem.statement,
            wide,
            budget=max(1, budget),
            seed=seed,
            jobs=jobs,
            **problem.changes,
        )
    except NotHere as reason:
        part.reasons[f"does not apply: {reason}"] += 1
        log.add(part)
        return []
    part.tried = report.evaluations
    log.add(part)
    if report.interrupted:
        raise KeyboardInterrupt
    return [{"outside": "what build makes", **report.found}] if report.found else []


def allowed_classes(problem: Problem, dims: list[dict[str, Any]], seed: int) -> set[str]:
    """Classes that some instance is in which meets every stated hypothesis, whether or not `build` makes it.

    Instances with free entries are drawn; a class found so is allowed, one not found so may be allowed all the
    same.
    """
    try:
        wide = Problem(problem.statement, widen(problem.setting), problem.changes)
    except NotHere:
        return set()
    allowed: set[str] = set()
    for number, d in enumerate(dims):
        try:
            rng, shapes = np.random.default_rng([seed, 60, number]), wide.shapes(d)
            pool = [points.boundary(shapes)[:ALLOWED], points.small(rng, shapes, ALLOWED)]
            pool += [points.families(rng, shapes, ALLOWED), points.gaussian(rng, shapes, ALLOWED // 4)]
            z = np.concatenate(pool)
            with threadpool_limits(1):
                meets = wide.score(d, z).meets
                found = classes(wide.floats(d, z), meets)
        except (NotHere, ValueError, ArithmeticError, np.linalg.LinAlgError):
            continue  # what cannot be evaluated there says nothing about classes
        allowed |= {name for name, hit in found.items() if hit}
    return allowed


class _Log:
    """What the parts reported, gathered by stage and sizes in the order of their first appearance."""

    def __init__(self, progress: Progress | None) -> None:
        self.progress = progress
        self.by_key: dict[tuple[str, str], StageReport] = {}
        self.classes: dict[str, bool] = {}
        self.trend: list[Json] = []
        self.hits: list[TaskResult] = []
        self.evaluations = 0

    def add(self, part: TaskResult) -> None:
        key = (part.stage, repr(part.sizes))
        self.by_key.setdefault(key, StageReport(part.stage, part.sizes)).add(part)
        self.evaluations += part.tried + part.exact
        for name, hit in part.classes.items():
            self.classes[name] = self.classes.get(name, False) or hit
        self.trend += part.trend
        if part.hit is not None:
            self.hits.append(part)
        if self.progress is not None:
            self.progress(part)

    def reports(self) -> list[StageReport]:
        return list(self.by_key.values())

    def class_table(self) -> Json:
        return {
            "hit": sorted(n for n, hit in self.classes.items() if hit),
            "never_hit": sorted(n for n, hit in self.classes.items() if not hit),
        }

    def first_found(self, problem: Problem) -> Json | None:
        """A certificate of the last finding, unshrunk: for a search that was stopped."""
        for part in reversed(self.hits):
            certificate = Certifier(problem.statement, problem.setting, problem.changes).certificate(part.hit)
            if certificate is not None:
                return {
                    **certificate,
                    "stage": part.stage,
                    "sizes": part.sizes,
                    "open": None,
                    "open_instance": None,
                }
        return None


def _boundary_instances(problem: Problem, log: _Log) -> TaskResult | None:
    """The setting's own boundary instances, before everything else."""
    if not problem.setting.boundary:
        return None
    part = TaskResult("boundary instances", {})
    certifier = Certifier(problem.statement, problem.setting, problem.changes)
    for data in problem.setting.boundary:
        candidate = Candidate(None, instance=dict(data))
        if certifier.breaks(candidate) is not None:
            part.hit = candidate
            break
        ratio = certifier.ratio
        if ratio is not None and (part.best is None or ratio[0] > part.best[0]):
            part.best, part.best_at = ratio, [str(v) for v in candidate.numbers()]
    part.tried = part.exact = certifier.asked
    part.reasons += certifier.reasons
    part.errors += certifier.errors
    log.add(part)
    return part if part.hit is not None else None


def _look(
    problem: Problem, dims: list[dict[str, Any]], runner: _Runner, log: _Log, budget: int, seed: int
) -> tuple[TaskResult, int] | None:
    part = _boundary_instances(problem, log)
    if part is not None:
        return part, 0
    for tasks in plan(len(dims), budget, seed):
        with contextlib.closing(runner.results(tasks)) as results:
            for task, part in zip(tasks, results, strict=True):
                log.add(part)
                if part.hit is not None:
                    return part, task.size
                if log.evaluations >= budget:  # small budgets: the fixed parts of the stages add up
                    return None
    return None


def _settle(
    problem: Problem,
    dims: list[dict[str, Any]],
    runner: _Runner,
    log: _Log,
    hit: tuple[TaskResult, int],
    budget: int,
    seed: int,
) -> Json | None:
    """Smaller sizes, shrinking, the certificate, an open counterexample."""
    part, size = hit
    part = _smaller(runner, log, part, size, budget, seed)
    certifier = Certifier(problem.statement, problem.setting, problem.changes)
    before = part.hit
    after = shrink(certifier, before, SHRINKING if len(before.numbers()) <= MANY else SHRINKING // 6)
    certificate = certifier.certificate(after) or certifier.certificate(before)
    if certificate is None:
        log.add(TaskResult(part.stage, part.sizes, uncertified=1, reasons=certifier.reasons))
        return None
    sizes, searched = part.sizes, None
    if after.instance is None and not after.replaced:
        searched, simpler = box.below(problem, _up_to(dims, after), after.values)
        better = certifier.certificate(simpler) if simpler is not None else None
        if simpler is not None and better is not None:
            after, certificate, sizes = simpler, better, searched["simplest"]["sizes"]
    is_open = survives_perturbation(certifier, after)
    return {
        **certificate,
        "stage": part.stage,
        "sizes": sizes,
        "parameters": [str(v) for v in after.values] if after.instance is None else None,
        "shrunk_from": [str(v) for v in before.numbers()],
        "open": is_open,
        "open_instance": None if is_open else _open(problem, certifier, sizes, dims, seed),
        "searched_box": searched,
    }


def _up_to(dims: list[dict[str, Any]], candidate: Candidate) -> list[dict[str, Any]]:
    """The sizes before a candidate's, in order, and its own."""
    own = dict(candidate.sizes or {})
    before = dims[: dims.index(own)] if own in dims else dims
    return [*before, own]


def _smaller(runner: _Runner, log: _Log, part: TaskResult, size: int, budget: int, seed: int) -> TaskResult:
    """Run the cheap stages again at the sizes below the one of the finding."""
    for small in range(size):
        tasks = [
            Task(stage, small, (seed, 9, i, small), min(PART, budget // 20)) for i, stage in enumerate(CHEAP)
        ]
        with contextlib.closing(runner.results(tasks)) as results:
            for again in results:
                log.add(again)
                if again.hit is not None:
                    return again
    return part


def _open(
    problem: Problem, certifier: Certifier, sizes: Json, dims: list[dict[str, Any]], seed: int
) -> Json | None:
    """A counterexample that survives small perturbations of all parameters, where the smallest does not."""
    if problem.setting.inner is not None:
        return None
    for d in [
        d for d in dims if {n: list(v) if isinstance(v, tuple) else v for n, v in d.items()} == sizes
    ] or dims:
        rng = np.random.default_rng([seed, 77])
        shapes = problem.shapes(d)
        pool = np.concatenate(
            [
                points.small(rng, shapes, 400)
                + 0.01 * rng.standard_normal((400, sum(m * n for m, n in shapes.values()))),
                points.gaussian(rng, shapes, 800),
                points.families(rng, shapes, 800),
            ]
        )
        scores = problem.score(d, pool)
        clear = np.flatnonzero(scores.clear)
        for i in clear[np.argsort(scores.objective[clear], kind="stable")][:6]:
            for candidate in islice(problem.candidates(d, pool[i]), 1):
                if certifier.breaks(candidate) is not None and survives_perturbation(certifier, candidate):
                    small = shrink(certifier, candidate, 120, lambda c: survives_perturbation(certifier, c))
                    certificate = certifier.certificate(small)
                    return dict(certificate["instance"]) if certificate else None
    return None
