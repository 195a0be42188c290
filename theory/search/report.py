"""What a search says when it is done: what it found, or how hard it looked, stage by stage."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

Json = dict[str, Any]


@dataclass
class TaskResult:
    """One stage at one choice of sizes, or one part of it."""

    stage: str
    sizes: Json
    tried: int = 0
    exact: int = 0
    uncertified: int = 0
    best: tuple[float, str, str] | None = None  # about, exact text, conclusion
    best_at: list[str] | None = None
    hit: Any = None  # a Candidate that breaks a conclusion
    answer: str | None = None  # of a complete decision
    reasons: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    classes: dict[str, bool] = field(default_factory=dict)
    trend: list[Json] = field(default_factory=list)


@dataclass
class StageReport:
    """One stage at one choice of sizes, all its parts together.

    Attributes:
        tried: Instances scored.
        exact: Exact decisions made.
        uncertified: Points that looked like counterexamples in floats and were none in exact arithmetic.
        best: Largest left/right ratio among the points re-evaluated exactly: {ratio, conclusion, parameters}.
        answer: Of a complete decision: sat, unsat, unknown.
        reasons: Why exact decisions could not be made, or why the stage does not apply: reason -> count.
        errors: Faults of the statement or its setting: message -> count.
    """

    stage: str
    sizes: Json
    tried: int = 0
    exact: int = 0
    uncertified: int = 0
    best: Json | None = None
    answer: str | None = None
    reasons: dict[str, int] = field(default_factory=dict)
    errors: dict[str, int] = field(default_factory=dict)
    about: float = field(default=float("-inf"), repr=False)

    def add(self, part: TaskResult) -> None:
        """Count a part in."""
        self.tried += part.tried
        self.exact += part.exact
        self.uncertified += part.uncertified
        if part.best is not None and part.best[0] > self.about:
            self.about = part.best[0]
            self.best = {"ratio": part.best[1], "conclusion": part.best[2], "parameters": part.best_at}
        self.answer = part.answer or self.answer
        for mine, new in ((self.reasons, part.reasons), (self.errors, part.errors)):
            for text, number in new.items():
                mine[text] = mine.get(text, 0) + number

    def to_json(self) -> Json:
        """Everything but what is empty."""
        out: Json = {"stage": self.stage, "sizes": self.sizes, "tried": self.tried, "exact": self.exact}
        out |= {"uncertified": self.uncertified} if self.uncertified else {}
        out |= {n: v for n in ("best", "answer", "reasons", "errors") if (v := getattr(self, n))}
        return out


@dataclass
class SearchReport:
    """The outcome of `falsify`.

    Attributes:
        found: None, or {instance, witnesses, breaks, sides, stage, sizes, parameters, shrunk_from, open,
            open_instance}: a certificate with how it was come by.
        stages: One `StageReport` for each stage and sizes.
        classes: {"hit": [...], "never_hit": [...], "allowed_never_hit": [...]}: rank, tie, alignment and scale
            classes among the sampled instances that meet the hypotheses. A class never hit is excluded by the
            hypotheses or was missed; the last list (where nothing was found) names those that some instance
            with free entries is in which meets every stated hypothesis: they are allowed, and were missed.
        trend: Ratios against growing sizes: [{size, points: [{value, ratio, exact}], growing}].
        evaluations: Instances scored and decided altogether.
        budget: The count that was allowed.
        interrupted: Whether the search was stopped from outside.
        seconds: Wall time; not part of `to_json`.
        notes: Counterexamples outside what the setting makes: {"outside": "the sizes in dims" or "what build
            makes", the certificate}. They meet every stated hypothesis, and are no findings all the same: the
            author may have meant less than the file states.
    """

    found: Json | None
    stages: list[StageReport]
    classes: Json
    trend: list[Json]
    budget: int
    seed: int
    interrupted: bool = False
    seconds: float = 0.0
    notes: list[Json] = field(default_factory=list)

    @property
    def evaluations(self) -> int:
        """Instances scored in floats and decided exactly, altogether."""
        return sum(s.tried + s.exact for s in self.stages)

    @property
    def best(self) -> Json | None:
        """The largest exactly re-evaluated left/right ratio of all stages, with where it was attained."""
        top = max((s for s in self.stages if s.best), key=lambda s: s.about, default=None)
        return {**top.best, "stage": top.stage, "sizes": top.sizes} if top and top.best else None

    @property
    def certificate(self) -> Json | None:
        """What `theory.evidence.Counterexample.recheck` decides from; None if nothing was found.

        A search under changes of a control has no digest: its certificate belongs to no claim.
        """
        parts = ("kind", "instance", "witnesses", "breaks", "sides", "digest")
        return {n: self.found[n] for n in parts if n in self.found} if self.found else None

    @property
    def errors(self) -> dict[str, int]:
        """Faults of the statement or its setting that came up, with counts."""
        out: dict[str, int] = {}
        for stage in self.stages:
            for text, number in stage.errors.items():
                out[text] = out.get(text, 0) + number
        return out

    def to_json(self) -> Json:
        """The same for the same seed and budget, whatever the machine: no times."""
        return {
            "budget": self.budget,
            "seed": self.seed,
            "evaluations": self.evaluations,
            "found": self.found,
            "best": self.best,
            "stages": [s.to_json() for s in self.stages],
            "classes": self.classes,
            "trend": self.trend,
            "notes": self.notes,
            "interrupted": self.interrupted,
        }
