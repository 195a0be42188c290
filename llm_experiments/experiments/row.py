"""What an experiment is, and how its record is put together.

Predictions stand in the row's file as literals: they were committed before the run that scores them, and the record
carries their hash. A row scores every prediction that it makes, if only by saying why it could not.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from llm_experiments.experiments.statistics import Contrast, holm, outcome

if TYPE_CHECKING:
    from llm_experiments.experiments.lab import Lab

Record = dict[str, Any]


@dataclass(frozen=True)
class Prediction:
    """What should be seen.

    Attributes:
        name: short name, unique in the row.
        says: the prediction in a sentence.
        source: claim, or paper and place.
        sign: +1 or -1 for the sign of a difference; 0 for a fact that holds or not.
        claims: claim ids it follows from.
        about: which difference is taken, in words, for signs.
    """

    name: str
    says: str
    source: str
    sign: int = 0
    claims: tuple[str, ...] = ()
    about: str = ""


@dataclass(frozen=True)
class Design:
    """What a tier runs, said before it is run.

    Attributes:
        methods: names of methods.
        seeds: how many, from 0 on.
        seconds: processor seconds that it is expected to take, rate choice included.
        words: what else is varied.
        options: numbers that the row's own code reads.
    """

    methods: tuple[str, ...]
    seeds: int
    seconds: int
    words: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Row:
    """An experiment.

    Attributes:
        name: as in records and on the command line.
        source: paper and figure or table.
        question: what it asks, in a sentence.
        predictions: see `Prediction`.
        reported: what the paper reported, facts beside ours and never a target.
        designs: tier name -> design.
        run: does it.
    """

    name: str
    source: str
    question: str
    predictions: tuple[Prediction, ...]
    designs: Mapping[str, Design]
    run: Callable[[Lab, Sheet], None]
    reported: tuple[Mapping[str, Any], ...] = ()

    @property
    def digest(self) -> str:
        """Hash of the predictions."""
        text = json.dumps([dataclasses.asdict(p) for p in self.predictions], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def claims(self) -> list[str]:
        """All claims that the predictions follow from."""
        return list(dict.fromkeys(claim for p in self.predictions for claim in p.claims))


class Sheet:
    """Collects what a run of a row found, and makes its record."""

    def __init__(self, row: Row, tier: str) -> None:
        self.row, self.tier = row, tier
        self._named = {p.name: p for p in row.predictions}
        self._signs: dict[str, Contrast] = {}
        self._facts: dict[str, tuple[str, str]] = {}
        self.tables: dict[str, list[Record]] = {}
        self.figures: list[Record] = []
        self.notes: list[str] = []
        self.assumptions: list[Record] = []
        self.summary = ""

    @property
    def design(self) -> Design:
        """The design in force."""
        return self.row.designs[self.tier]

    def score(self, name: str, found: Contrast) -> None:
        """Scores a predicted sign by a paired difference."""
        if not self._named[name].sign:
            message = f"prediction {name} has no sign; use fact"
            raise ValueError(message)
        self._signs[name] = found

    def fact(self, name: str, holds: bool | None, measured: str) -> None:
        """Scores a fact: holds, does not, or (None) could not be decided; `measured` says what was seen."""
        self._facts[name] = ({True: "agrees", False: "contradicts", None: "undecided"}[holds], measured)

    def equal(self, name: str, found: Contrast, margin: float, unit: str) -> None:
        """Scores the prediction that a difference is smaller than `margin`: by both ends of its interval."""
        half = found.half
        holds = (
            True if abs(found.mean) + half < margin else False if abs(found.mean) - half > margin else None
        )
        self.fact(name, holds, f"{found.words()} {unit}, to be within {margin:g}")

    def undecided(self, name: str, why: str) -> None:
        """Leaves a prediction open, with the reason."""
        self._facts[name] = ("undecided", why)

    def table(self, title: str, rows: list[Record]) -> None:
        """Adds a table; columns are the keys."""
        self.tables[title] = rows

    def note(self, text: str) -> None:
        """Adds a remark below the tables."""
        self.notes.append(text)

    def scores(self) -> list[Record]:
        """One entry a prediction; p-values are corrected over the row's predicted signs.

        Raises:
            ValueError: a prediction was not scored.
        """
        missing = [name for name in self._named if name not in self._signs and name not in self._facts]
        if missing:
            message = f"{self.row.name} must score all its predictions; {', '.join(missing)} is missing"
            raise ValueError(message)
        corrected = dict(zip(self._signs, holm([c.p for c in self._signs.values()]), strict=True))
        found = []
        for name, prediction in self._named.items():
            entry: Record = {
                "name": name,
                "says": prediction.says,
                "source": prediction.source,
                "claims": list(prediction.claims),
            }
            if name in self._signs:
                seen = self._signs[name]
                entry |= {
                    "about": prediction.about,
                    "expected": "positive" if prediction.sign > 0 else "negative",
                    "measured": seen.words(),
                    "mean": seen.mean,
                    "half_width_seeds": seen.seeds,
                    "interval_items": None if seen.items is None else list(seen.items),
                    "p_corrected": corrected[name],
                    "smallest_effect": None if seen.seeds is None else seen.half,
                    "outcome": outcome(seen, prediction.sign, corrected[name]),
                }
            else:
                verdict, measured = self._facts[name]
                entry |= {"expected": "holds", "measured": measured, "outcome": verdict}
            found.append(entry)
        return found

    def body(self) -> Record:
        """The record without environment."""
        scores = self.scores()
        counts = {o: sum(s["outcome"] == o for s in scores) for o in ("agrees", "contradicts", "undecided")}
        said = ", ".join(f"{count} {verdict}" for verdict, count in counts.items() if count)
        of = "prediction" if len(scores) == 1 else "predictions"
        headline = f"{len(scores)} {of}: {said}." if scores else ""
        design = self.design
        return {
            "id": f"{self.row.name}/{self.tier}",
            "tier": self.tier,
            "headline": " ".join(filter(None, [self.summary, headline])),
            "question": self.row.question,
            "source": self.row.source,
            "claims": self.row.claims,
            "predictions": scores,
            "predictions_digest": self.row.digest,
            "reported": [dict(row) for row in self.row.reported],
            "design": {
                "methods": list(design.methods),
                "seeds": design.seeds,
                "expected_cpu_seconds": design.seconds,
                "also": design.words,
            },
            "tables": {"Predictions": [_line(s) for s in scores], **self._reported(), **self.tables},
            "figures": self.figures,
            "assumptions": self.assumptions,
            "notes": self.notes,
        }

    def _reported(self) -> dict[str, list[Record]]:
        return (
            {"What the paper reported": [dict(row) for row in self.row.reported]} if self.row.reported else {}
        )


def _line(score: Record) -> Record:
    """A prediction in the table."""
    smallest = score.get("smallest_effect")
    return {
        "prediction": score["says"],
        "source": score["source"],
        "measured": f"{score['about']}: {score['measured']}" if score.get("about") else score["measured"],
        "outcome": score["outcome"],
        "smallest effect seen": "-" if smallest is None else f"{smallest:.2g}",
    }
