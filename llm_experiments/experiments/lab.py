"""The pool of trainings: computes what is missing, several at a time, and chooses learning rates.

Finished trainings are never repeated, so a row that was interrupted, even killed, goes on where it was.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing import get_context
from typing import Any

from llm_experiments.errors import UserError
from llm_experiments.experiments.tiers import RATE_FACTORS, RATE_SEED, TIERS, Bed
from llm_experiments.experiments.trial import Result, Trial, finished, perform, probed
from llm_experiments.settings import Settings

Say = Callable[[str], None]
# Methods that train the same numbers in the same way share one choice of the rate.
_RATE_OF = ("s2ft_",)


def rate_method(method: str) -> str:
    """The method whose rate is chosen for this one: selections of S2FT differ only in which channels train."""
    return "s2ft_r" if method.startswith(_RATE_OF) else method


class Lab:
    """Runs trials of one tier.

    Args:
        tier: name of the tier.
        jobs: trainings at a time.
        again: repeat what is finished.
        say: receives one line of text at each stage.

    Attributes:
        rates: every choice of a rate, for the record: bed, method, grid with validation losses, chosen.
        used: every trial that a row asked for, for the record.
    """

    def __init__(
        self, tier: str, *, jobs: int = 2, again: bool = False, say: Say = lambda line: None
    ) -> None:
        if tier not in TIERS:
            message = f"--tier must be one of {', '.join(TIERS)}; got {tier!r}"
            raise UserError(message)
        if jobs < 1:
            message = f"--jobs must be at least 1; got {jobs}"
            raise UserError(message)
        self.tier = TIERS[tier]
        self.jobs, self.again, self.say = jobs, again, say
        self.rates: dict[tuple[str, str], dict[str, Any]] = {}
        self.used: dict[str, Result] = {}
        self._fresh: set[str] = set()
        self.spent = 0.0

    def bed(self, name: str = "main") -> Bed:
        """A test bed of the tier."""
        return self.tier.bed(name)

    # --- trials ----------------------------------------------------------------------------------

    def results(self, trials: Sequence[Trial], what: str = "") -> list[Result]:
        """The results of trials, in order; missing ones are computed."""
        unique = {trial.key: trial for trial in trials}
        missing = [
            t for key, t in unique.items() if (self.again and key not in self._fresh) or finished(t) is None
        ]
        if missing:
            self._compute(missing, what)
        found = [finished(trial) for trial in trials]
        for trial, result in zip(trials, found, strict=True):
            self.used[trial.key] = result
        return found

    def _compute(self, trials: list[Trial], what: str) -> None:
        # Neighbours share models and caches, so trainings of one kind stay together.
        with _bar(len(trials), what or "trainings", self.say) as advance:
            if self.jobs == 1 or len(trials) == 1:
                for trial in trials:
                    self._done(trial, perform(trial), advance)
                return
            os.environ.setdefault("OMP_NUM_THREADS", "1")  # for the workers; each trial has one thread
            with ProcessPoolExecutor(self.jobs, mp_context=get_context("spawn")) as pool:
                waiting = {pool.submit(perform, trial): trial for trial in trials}
                try:
                    for future in as_completed(waiting):
                        self._done(waiting[future], future.result(), advance)
                except BrokenProcessPool as error:
                    message = (
                        "a training process was killed (memory?); the same command goes on, try --jobs 1"
                    )
                    raise UserError(message) from error
                except BaseException:
                    pool.shutdown(wait=False, cancel_futures=True)
                    raise

    def probes(self, trials: Sequence[Trial], name: str) -> list[Any]:
        """What a probe finds on finished trials that kept their state, in order."""
        missing = [trial for trial in trials if not (trial.folder / f"probe-{name}.json").is_file()]
        if missing and self.jobs > 1:
            with ProcessPoolExecutor(self.jobs, mp_context=get_context("spawn")) as pool:
                list(pool.map(probed, missing, [name] * len(missing)))
        return [probed(trial, name) for trial in trials]

    def _done(self, trial: Trial, seconds: float, advance: Callable[[str], None]) -> None:
        self._fresh.add(trial.key)
        self.spent += seconds
        settings = trial.settings
        advance(f"{settings.method} {settings.task} seed {settings.seed}: {seconds:.0f} s of processor time")

    # --- learning rates --------------------------------------------------------------------------

    def choose_rates(self, bed: str, methods: Iterable[str], **changes: Any) -> dict[str, float]:
        """The rate of each method with the lowest validation loss, on the same small grid for all.

        Args:
            bed: name of the test bed.
            methods: names; see `rate_method`.
            changes: settings that differ from the bed's.
        """
        wanted = {method: rate_method(method) for method in methods}
        trials: dict[str, list[Trial]] = {}
        for method in dict.fromkeys(wanted.values()):
            trials[method] = self._rate_trials(bed, method, changes)
        self.results([t for grid in trials.values() for t in grid], "learning rates")
        chosen = {}
        for method, grid in trials.items():
            found = [finished(trial) for trial in grid]
            loss = self.bed(bed).loss
            losses = {
                trial.settings.lr: None if result.failure else result.measure("validation", loss)
                for trial, result in zip(grid, found, strict=True)
            }
            usable = {rate: value for rate, value in losses.items() if value is not None}
            best = min(usable, key=usable.__getitem__) if usable else grid[1].settings.lr
            rates = [trial.settings.lr for trial in grid]
            self.rates[(bed, method)] = {
                "bed": bed,
                "method": method,
                **{f"at {rate:g}": value for rate, value in losses.items()},
                "chosen": best,
                "at the edge": best in (rates[0], rates[-1]),
            }
            chosen[method] = best
        return {method: chosen[of] for method, of in wanted.items()}

    def _rate_trials(self, bed: str, method: str, changes: dict[str, Any]) -> list[Trial]:
        place = self.bed(bed)
        steps = place.rate_steps
        base = place.settings(method, seed=RATE_SEED)
        few = min(300, place.common.get("final_items") or 300)
        short = {"seed": RATE_SEED, "steps": steps, "eval_every": 0, "eval_items": 1, "final_items": few}
        return [
            Trial(
                place.settings(method, **{**short, "splits": "validation", **changes, "lr": base.lr * factor})
            )
            for factor in RATE_FACTORS
        ]

    def settings(self, bed: str, method: str, **changes: Any) -> Settings:
        """Settings of one run at the chosen rate (`choose_rates` first)."""
        of = self.rates.get((bed, rate_method(method)))
        place = self.bed(bed).settings(method, **changes)
        return place if of is None or "lr" in changes else replace(place, lr=of["chosen"])

    def trial(self, bed: str, method: str, *, probes: tuple[str, ...] = (), **changes: Any) -> Trial:
        """A trial at the chosen rate; `marks` and `keep` as in `Trial`."""
        marks, keep = tuple(changes.pop("marks", ())), changes.pop("keep", "")
        return Trial(self.settings(bed, method, **changes), probes, marks, keep, self.tier.far_items)


@contextmanager
def _bar(total: int, what: str, say: Say) -> Any:
    """A function that counts finished trials: a bar on a terminal, a line each elsewhere."""
    if not sys.stderr.isatty():
        done = 0

        def advance(text: str) -> None:
            nonlocal done
            done += 1
            say(f"{what} {done}/{total}: {text}")

        yield advance
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task(what, total=total)
        yield lambda text: progress.update(bar, advance=1, description=f"{what}: {text}")
