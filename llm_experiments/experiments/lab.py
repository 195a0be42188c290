"""The pool of trainings: computes what is missing, several at a time, and chooses learning rates.

Finished trainings are never repeated, so a row that was interrupted, even killed, goes on where it was.
"""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing import get_context
from typing import Any

import numpy as np

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


class TimeIsUp(Exception):
    """The time for this call is used; what is finished is kept."""


class Lab:
    """Runs trials of one tier.

    Args:
        tier: name of the tier.
        jobs: trainings at a time.
        again: repeat what is finished.
        say: receives one line of text at each stage.
        until: value of `time.monotonic()` after which no further training is started; None: no limit.
        changes: settings of every training that differ from the tier's (model, device).

    Raises:
        UserError: an unknown tier, or no job at all.

    Attributes:
        rates: every choice of a rate by (bed, method, budget), for the record.
        used: every trial that a row asked for, for the record.
    """

    def __init__(
        self,
        tier: str,
        *,
        jobs: int = 2,
        again: bool = False,
        say: Say = lambda line: None,
        until: float | None = None,
        **changes: Any,
    ) -> None:
        if tier not in TIERS:
            message = f"--tier must be one of {', '.join(TIERS)}; got {tier!r}"
            raise UserError(message)
        if jobs < 1:
            message = f"--jobs must be at least 1; got {jobs}"
            raise UserError(message)
        self.tier = TIERS[tier]
        self.jobs, self.again, self.say = jobs, again, say
        self.until, self.changes = until, changes
        self.rates: dict[tuple[str, str, str], dict[str, Any]] = {}
        self.used: dict[str, Result] = {}
        self._fresh: set[str] = set()
        self.spent = 0.0

    def bed(self, name: str = "main") -> Bed:
        """A test bed of the tier."""
        bed = self.tier.bed(name)
        return replace(bed, common={**bed.common, **self.changes}) if self.changes else bed

    def _named(self, name: str) -> str:
        """The name under which a bed's rates are kept: `main` where the tier has no bed of its own."""
        return name if name in self.tier.beds else "main"

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
                    if self.until is not None and time.monotonic() >= self.until:
                        raise TimeIsUp
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
        """The rate of each method, on the same small grid for all, by one short training a rate.

        The method's default is taken unless another rate has a validation loss lower by more than one standard error
        (paired over items): a few hundred items do not tell rates apart that are nearer.

        Args:
            bed: name of the test bed.
            methods: names; see `rate_method`.
            changes: settings that differ from the bed's; a choice holds for its budget.
        """
        bed, wanted = self._named(bed), {method: rate_method(method) for method in methods}
        budget = str(changes.get("budget", self.bed(bed).budget))
        trials: dict[str, list[Trial]] = {}
        for method in dict.fromkeys(wanted.values()):
            trials[method] = self._rate_trials(bed, method, changes)
        self.results([t for grid in trials.values() for t in grid], "learning rates")
        chosen = {}
        for method, grid in trials.items():
            losses = {trial.settings.lr: _validation(trial) for trial in grid}
            rates = [trial.settings.lr for trial in grid]
            default = rates[RATE_FACTORS.index(1.0)]
            best = better_than_default(losses, default)
            self.rates[(bed, method, budget)] = {
                "bed": bed,
                "method": method,
                "budget": budget,
                **{
                    f"loss at {factor:g} x": None if each is None else float(each.mean())
                    for factor, each in zip(RATE_FACTORS, losses.values(), strict=True)
                },
                "default rate": default,
                "chosen": best,
                "at the edge": best in (rates[0], rates[-1]),
            }
            chosen[method] = self.rates[(bed, method, budget)]["chosen"]
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
        place = self.bed(bed).settings(method, **changes)
        budgets = (place.budget, self.bed(bed).budget)
        name = self._named(bed)
        of = next((r for b in budgets if (r := self.rates.get((name, rate_method(method), b)))), None)
        return place if of is None or "lr" in changes else replace(place, lr=of["chosen"])

    def trial(self, bed: str, method: str, *, probes: tuple[str, ...] = (), **changes: Any) -> Trial:
        """A trial at the chosen rate; `marks` and `keep` as in `Trial`."""
        marks, keep = tuple(changes.pop("marks", ())), changes.pop("keep", "")
        return Trial(self.settings(bed, method, **changes), probes, marks, keep, self.tier.far_items)


def _validation(trial: Trial) -> np.ndarray | None:
    """Validation loss of every item; None if the training failed."""
    result = finished(trial)
    if result is None or result.failure:
        return None
    each = result.each("split/validation")
    if "log_probs" in each:
        return -each["log_probs"][np.arange(len(each["label"])), each["label"]]
    return each["answer_nats"] / each["answer_tokens"].mean()


def better_than_default(losses: Mapping[float, np.ndarray | None], default: float) -> float:
    """The rate of lowest mean loss, or the default where the two differ by at most one paired standard error.

    Args:
        losses: rate -> loss of every validation item, the same items for all; None for a training that failed.
        default: one of the rates; returned, too, if all trainings failed.
    """
    usable = {rate: each for rate, each in losses.items() if each is not None and np.isfinite(each).all()}
    if not usable:
        return default
    best = min(usable, key=lambda rate: float(usable[rate].mean()))
    if default not in usable or best == default:
        return best
    apart = usable[default] - usable[best]
    told = float(apart.mean()) > float(apart.std(ddof=1)) / math.sqrt(len(apart))
    return best if told else default


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
