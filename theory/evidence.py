"""Kinds of evidence, each with the certificate it yields and the re-check of that certificate.

`establish` checks the evidence and returns (status, certificate); `recheck` decides again from the
certificate's JSON alone and returns the status it earns. Both raise `CheckFails` when the evidence does not
hold. Standard library only: this file is part of what is trusted.
"""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from theory import instances
from theory.claim import Json, Setting
from theory.kits import reals
from theory.kits.degrees import Degree, Degrees, RankLog
from theory.kits.exact import Exact
from theory.kits.words import ProofFails, Words
from theory.protocol import BadWitness, Instance, Mat, NotHere, Statement, Undecided


class CheckFails(Exception):
    """The evidence does not establish what it is meant to."""


@dataclass(frozen=True)
class Context:
    """What a piece of evidence speaks about: a text and the setting of its instances."""

    label: str  # "<claim id> [<reading>]"
    statement: Statement | None
    setting: Setting | None

    def text(self) -> Statement:
        """The statement; evidence of the protocol cannot do without."""
        if self.statement is None:
            msg = f"{self.label}: this evidence needs a statement(k, x)"
            raise CheckFails(msg)
        return self.statement

    def instances(self) -> Setting:
        """The setting; evidence of the protocol cannot do without."""
        if self.setting is None:
            msg = f"{self.label}: this evidence needs a setting"
            raise CheckFails(msg)
        return self.setting


def _digest(certificate: Json) -> str:
    """Also entries that the statement never reads may not be altered unnoticed."""
    return hashlib.sha256(json.dumps(certificate, sort_keys=True).encode()).hexdigest()


def _witnesses(kit: Exact) -> Json:
    return {
        n: [[str(Fraction(v)) for v in r] for r in rows]
        for n, rows in kit.witnesses.items()
        if _rational(rows)
    }


def _rational(rows: Any) -> bool:
    return not any(isinstance(v, reals.Real) for r in rows for v in r)


def _sides(kit: Exact) -> Json:
    return {name: [reals.text(a), reals.text(b)] for name, (a, b) in kit.sides.items()}


def evaluate(
    statement: Statement, data: Mapping[str, Any], witnesses: Json | None = None, **changes: Any
) -> tuple[Any, Exact]:
    """Decide a statement on a JSON instance with the trusted kit: (outcome, kit)."""
    kit = Exact(witnesses)
    return kit.run(statement, instances.load(kit, data), **changes), kit


@dataclass(frozen=True)
class Counterexample:
    """An exact instance that meets every hypothesis and breaks a conclusion."""

    instance: Json
    witnesses: Json = field(default_factory=dict)
    kind = "counterexample"

    def establish(self, context: Context) -> tuple[str, Json]:
        try:
            outcome, kit = evaluate(context.text(), self.instance, self.witnesses)
        except (Undecided, BadWitness, NotHere, ZeroDivisionError) as error:
            msg = f"{context.label}: the counterexample is not decided: {error}"
            raise CheckFails(msg) from error
        if outcome.broken_hypotheses:
            msg = f"{context.label}: the instance breaks the hypotheses {list(outcome.broken_hypotheses)}"
            raise CheckFails(msg)
        if not outcome.broken_conclusions:
            msg = f"{context.label}: the instance breaks no conclusion; sides {_sides(kit)}"
            raise CheckFails(msg)
        certificate = {
            "kind": self.kind,
            "instance": dict(self.instance),
            "witnesses": _witnesses(kit),
            "breaks": list(outcome.broken_conclusions),
            "sides": _sides(kit),
        }
        return "refuted", {**certificate, "digest": _digest(certificate)}

    @staticmethod
    def recheck(context: Context, certificate: Json) -> str:
        """Evaluate again with the stored witnesses; every stored value must come out the same."""
        body = {name: value for name, value in certificate.items() if name != "digest"}
        if certificate.get("digest") != _digest(body):
            msg = f"{context.label}: the certificate was altered (its digest does not match)"
            raise CheckFails(msg)
        again = Counterexample(certificate["instance"], certificate["witnesses"])
        status, fresh = again.establish(context)
        for part in ("breaks", "sides", "witnesses"):
            if fresh[part] != certificate[part]:
                msg = f"{context.label}: {part} come out as {fresh[part]}, stored {certificate[part]}"
                raise CheckFails(msg)
        return status


@dataclass(frozen=True)
class WordProof:
    """A proof for every dimension by rewriting words; see `theory.kits.words`.

    Attributes:
        proof: (kit, instance) -> {conclusion: non-negative terms}, and rules by `kit.use`; None if the rules of
            the defined objects suffice.
    """

    proof: Callable[[Any, Instance], Mapping[str, Sequence[Any]]] | None = None
    kind = "words"

    def establish(self, context: Context) -> tuple[str, Json]:
        setting = context.instances()
        if setting.letters is None:
            msg = f"{context.label}: a proof by words needs `letters` in the setting"
            raise CheckFails(msg)
        kit = Words()
        try:
            shown = kit.prove(context.text(), setting.letters(kit), self.proof)
        except (ProofFails, NotHere) as error:
            msg = f"{context.label}: {error}"
            raise CheckFails(msg) from error
        return "proved", {"kind": self.kind, "established": shown, "rules": len(kit.rules)}

    def recheck(self, context: Context, certificate: Json) -> str:
        """Run the proof again; the normal forms must be the stored ones."""
        status, fresh = self.establish(context)
        if fresh != certificate:
            msg = f"{context.label}: the proof now shows {fresh}, stored {certificate}"
            raise CheckFails(msg)
        return status


@dataclass(frozen=True)
class Identity:
    """Polynomial identity testing with the error bound computed from the same text.

    At each of the given sizes the statement is evaluated exactly at `points` points whose coordinates are
    taken from a hash of the claim's source in {0, ..., 2^64 - 1}.
    """

    dims: Sequence[Mapping[str, Any]]
    points: int = 2
    kind = "identity"

    def establish(self, context: Context) -> tuple[str, Json]:
        statement, setting = context.text(), context.instances()
        sizes = []
        for d in self.dims:
            d = dict(d)
            degree = 0
            for number in range(self.points):
                values = _hashed_point(context, d, number, instances.count(setting.free(d)))
                kit = RankLog()
                x = setting.build(kit, instances.parameters(kit, setting.free(d), values), d)
                outcome = kit.run(statement, x)
                if not outcome.supports:
                    msg = f"{context.label}: the identity fails at sizes {d}: {outcome}"
                    raise CheckFails(msg)
                degree = _degree(statement, setting, d, kit.ranks)
            error = Fraction(max(degree, 1), 2**64) ** self.points  # degree 0: decided, any bound holds
            sizes.append({"sizes": _plain(d), "degree": degree, "error_below": f"2^-{_bits(error)}"})
        return "proved_within", {"kind": self.kind, "points": self.points, "checked": sizes}

    def recheck(self, context: Context, certificate: Json) -> str:
        """Evaluate at the same points again; degrees and error bounds must come out the same."""
        status, fresh = self.establish(context)
        if fresh != certificate:
            msg = f"{context.label}: identity testing now shows {fresh}, stored {certificate}"
            raise CheckFails(msg)
        return status


def _hashed_point(context: Context, d: Mapping[str, Any], number: int, size: int) -> list[int]:
    source = inspect.getsource(context.text()) + inspect.getsource(context.instances().build)
    seed = hashlib.sha256(f"{context.label}|{sorted(d.items())}|{number}|{source}".encode()).digest()
    words = [hashlib.sha256(seed + i.to_bytes(4, "big")).digest() for i in range(size)]
    return [int.from_bytes(w[:8], "big") for w in words]


def _degree(statement: Statement, setting: Setting, d: dict[str, Any], ranks: list[int]) -> int:
    kit = Degrees(ranks)
    parameters = Instance({n: Mat(kit, Degree(1), shape) for n, shape in setting.free(d).items()})
    return kit.bound(statement, setting.build(kit, parameters, d))


def _bits(error: Fraction) -> int:
    """The largest b with error < 2^-b."""
    bits = 0
    while error < Fraction(1, 1 << (bits + 1)):
        bits += 1
    return bits


def _plain(d: Mapping[str, Any]) -> Json:
    return {n: list(v) if isinstance(v, tuple) else v for n, v in d.items()}


@dataclass(frozen=True)
class Decision:
    """A solver's complete decision at small sizes; it rests on the solver's word and says so.

    The decision itself is made by `theory.search.solver` in the audit; what is stored is which sizes were
    decided. There is nothing that the standard library could re-check, so re-checking compares nothing but
    the sizes.
    """

    dims: Sequence[Mapping[str, Any]]
    decide: Callable[[Statement, Setting, Mapping[str, Any]], str] | None = None
    kind = "decision"

    def establish(self, context: Context) -> tuple[str, Json]:
        from theory.search.solver import decide  # the only evidence that needs more than the standard library

        for d in self.dims:
            answer = decide(context.text(), context.instances(), dict(d))
            if answer != "unsat":
                msg = f"{context.label}: the solver answers {answer!r} at sizes {dict(d)}"
                raise CheckFails(msg)
        return "proved_within", {
            "kind": self.kind,
            "solver": "z3",
            "rests_on": "the solver's word",
            "sizes": [_plain(d) for d in self.dims],
        }

    def recheck(self, context: Context, certificate: Json) -> str:
        """Compare the sizes; the rest is the solver's word."""
        if certificate["sizes"] != [_plain(d) for d in self.dims]:
            msg = f"{context.label}: other sizes were decided"
            raise CheckFails(msg)
        return "proved_within"


@dataclass(frozen=True)
class Search:
    """Nobody found a counterexample; `reason` says why there is no proof (statistical, asymptotic, ...)."""

    reason: str
    kind = "search"

    def establish(self, context: Context) -> tuple[str, Json | None]:
        return "supported", None


@dataclass(frozen=True)
class Open:
    """Not decided, with the reason (the text is not precise enough, text missing, balls overlap)."""

    reason: str
    kind = "open"

    def establish(self, context: Context) -> tuple[str, Json | None]:
        return "undecided", None


@dataclass(frozen=True)
class Custom:
    """Evidence outside the protocol: existence, rates, suprema, measure, algorithms at scale, statistics.

    Attributes:
        status: The status that `verify` is meant to establish; one of the statuses.
        produce: () -> payload (JSON) that `verify` decides from; may search, may use floats and heavy libraries.
        verify: payload -> None, raising `CheckFails` (or returning a reason) when the payload does not
            establish the status. Exact, standard library only, for proved, proved_within and refuted.
        about: One line: what kind of argument it is ("exact run of the algorithm", "Gaussian moments", ...).
    """

    status: str
    produce: Callable[[], Json]
    verify: Callable[[Json], str | None]
    about: str
    reason: str = ""
    kind = "custom"

    def establish(self, context: Context) -> tuple[str, Json]:
        certificate = {"kind": self.kind, "about": self.about, "payload": self.produce()}
        return self.recheck(context, certificate), certificate

    def recheck(self, context: Context, certificate: Json) -> str:
        """Let the claim's own exact lines decide from the payload."""
        complaint = self.verify(certificate["payload"])
        if complaint:
            msg = f"{context.label}: {complaint}"
            raise CheckFails(msg)
        return self.status


def recheck(evidence: Any, context: Context, certificate: Json) -> str:
    """The status that a stored certificate earns."""
    if certificate.get("kind") == Counterexample.kind:
        return Counterexample.recheck(context, certificate)
    if certificate.get("kind") != evidence.kind:
        msg = f"{context.label}: the certificate is of kind {certificate.get('kind')!r}, the evidence of {evidence.kind!r}"
        raise CheckFails(msg)
    status: str = evidence.recheck(context, certificate)
    return status
