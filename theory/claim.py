"""What a claim is: its readings, the evidence for each, and the verdict that the evidence earns.

A `Claim` holds one or several `Reading`s of one printed statement. A reading carries its text
(`statement(k, x)`), the setting that makes instances, and one piece of `Evidence`. Evidence is checked every
time and turned into a certificate, plain JSON from which `recheck` decides again without search and without
floats. Nothing here trusts a status that somebody wrote down. Standard library only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from theory.protocol import Instance, Kit, Statement

Json = dict[str, Any]
STATUSES = ("proved", "proved_within", "refuted", "supported", "undecided")
DEFECTS = (
    None,
    "misprint",
    "missing hypothesis",
    "wrong constant",
    "gap in the proof, statement true",
    "false statement",
    "text uncertain",
)


@dataclass(frozen=True)
class Source:
    """Where a statement stands: paper, place, and the version of the text that was read."""

    paper: str
    place: str
    version: str


@dataclass(frozen=True)
class Setting:
    """How instances are made.

    Attributes:
        dims: Sizes to try, ascending.
        free: Sizes -> shapes of the free rational parameters.
        build: (kit, parameters, sizes) -> an instance that meets the hypotheses.
        letters: kit of words -> an instance of letters, for proofs in every dimension.
        raw: Sizes -> raw variables of the statement as {name: (rows, columns, symmetric)}, and static data
            under their names; for complete decisions by a solver. None if `build` must be used.
        boundary: Instances that must be looked at first, as JSON.
        families: (rng, sizes, count) -> arrays of parameters (count, total), adversarial for this claim.
        inner: (instance of floats) -> the same instance with an inner maximisation solved.
        classes: (kit of floats, instance) -> {class name: array of bool}, which classes instances hit.
        grow: Names of sizes along which a growing ratio is looked for.
    """

    dims: Sequence[Mapping[str, Any]]
    free: Callable[[dict[str, Any]], Mapping[str, tuple[int, int]]]
    build: Callable[[Kit, Instance, dict[str, Any]], Instance]
    letters: Callable[[Any], Instance] | None = None
    raw: Callable[[dict[str, Any]], Json] | None = None
    boundary: Sequence[Json] = ()
    families: Callable[[Any, dict[str, Any], int], Any] | None = None
    inner: Callable[[Any, Instance], Instance] | None = None
    classes: Callable[[Any, Instance], Mapping[str, Any]] | None = None
    grow: Sequence[str] = ()


@dataclass(frozen=True)
class Control:
    """A test of the checker itself.

    A false control changes the reading so that it becomes wrong, and names an exact instance on which the
    check must refute the change and must not refute the reading. A true control is a weaker statement that no
    search may refute.

    Attributes:
        variant: What was changed, in words.
        kind: "false" or "true".
        instance: The instance (JSON) of a false control.
        statement: The changed text; None for the reading's own text under `tighten` and `drop`.
        tighten: Relative amount by which the conclusion is made harder, "1/50" for instance.
        drop: Hypotheses left out.
        only: The single conclusion that `tighten` applies to.
        witnesses: Witnesses that the instance needs.
        check: For claims outside the protocol: () -> whether the changed claim is refuted; replaces all else.
        spares: For claims outside the protocol: () -> whether the claim itself is refuted on that instance.
    """

    variant: str
    kind: str = "false"
    instance: Json | None = None
    statement: Statement | None = None
    tighten: str = "0"
    drop: Sequence[str] = ()
    only: str | None = None
    witnesses: Json = field(default_factory=dict)
    check: Callable[[], bool] | None = None
    spares: Callable[[], bool] | None = None


@dataclass(frozen=True)
class Repair:
    """The strongest statement found to be true in place of a refuted reading.

    Attributes:
        sentence: The repaired statement in words.
        statement: Its text, or None when it lives outside the protocol.
        evidence: Why it holds.
        setting: Its own setting; that of the reading if None.
        necessary: Added hypothesis -> an instance (JSON) on which the repaired conclusion fails without it.
        sharp: An instance (JSON) on which the repaired conclusion is attained or nearly so.
    """

    sentence: str
    evidence: Any
    statement: Statement | None = None
    setting: Setting | None = None
    necessary: Mapping[str, Json] = field(default_factory=dict)
    sharp: Json | None = None


@dataclass(frozen=True)
class Reading:
    """One way of reading a printed statement.

    Attributes:
        name: "as printed", or what distinguishes it.
        evidence: A piece of `theory.evidence`.
        sentence: The reading in words, where it differs from the claim's sentence.
        statement: Its text; None when it lives outside the protocol (then the evidence is `Custom`).
        setting: The claim's setting if None.
        scope: What the verdict covers, in words.
        vacuous: The reason why the statement says nothing, if it does.
        controls: At least one false and one true control.
        repair: For refuted readings.
        sharp: An instance (JSON) with left/right as large as known.
        open_instance: A counterexample that survives small perturbations, where the smallest is degenerate.
        unused: Hypotheses that the conclusion does not need.
    """

    name: str
    evidence: Any
    sentence: str = ""
    statement: Statement | None = None
    setting: Setting | None = None
    scope: str = ""
    vacuous: str | None = None
    controls: Sequence[Control] = ()
    repair: Repair | None = None
    sharp: Json | None = None
    open_instance: Json | None = None
    unused: Sequence[str] = ()


@dataclass(frozen=True)
class Claim:
    """One statement of one paper, or one result of ours that a reader needs beside it.

    Attributes:
        id: "<paper folder>/<id of the catalogue>".
        source: Where it is printed.
        sentence: The statement in our own words.
        headline: The verdict in one plain sentence; shown first on pages.
        readings: At least one.
        setting: How instances are made, unless each reading brings its own.
        defect: What is wrong with the printed statement, one of `DEFECTS`.
        uses: Ids of the claims that the statement or its proof rests on.
        module: Filled by the registry: the module that defines the claim.
    """

    id: str
    source: Source
    sentence: str
    headline: str
    readings: Sequence[Reading]
    setting: Setting | None = None
    defect: str | None = None
    uses: Sequence[str] = ()

    def __post_init__(self) -> None:
        if self.defect not in DEFECTS:
            msg = f"{self.id}: defect must be one of {DEFECTS}; got {self.defect!r}"
            raise ValueError(msg)
        names = [r.name for r in self.readings]
        if not names or len(set(names)) != len(names):
            msg = f"{self.id}: readings need distinct names; got {names}"
            raise ValueError(msg)

    def reading(self, name: str) -> Reading:
        """The reading of that name."""
        for reading in self.readings:
            if reading.name == name:
                return reading
        msg = f"{self.id} has no reading {name!r}; it has {[r.name for r in self.readings]}"
        raise KeyError(msg)

    def setting_of(self, reading: Reading) -> Setting | None:
        """The setting that a reading uses."""
        return reading.setting or self.setting
