"""The proof-checks that `pytest theory/` runs on every claim file; their names say what they check.

Each check takes (entry, reading) and raises with the claim's id, the statement and the offending instance.
Verdicts are derived again from stored witnesses; the search itself runs in the audit.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

from reports.store import read_record, record_path
from theory import verdicts
from theory.claim import Json, Reading
from theory.evidence import CheckFails, Counterexample, evaluate, recheck
from theory.protocol import Statement, Undecided
from theory.registry import Registered

Check = Callable[[Registered, Reading], None]


def recorded(entry: Registered) -> Json:
    """The claim's stored record."""
    record: Json = read_record(record_path("claims", entry.claim.id))
    return record


def stored_searches(record: Json) -> dict[str, Json]:
    """The search reports that a record carries, by the labels of `verdicts.search_all`."""
    found: dict[str, Json] = {}
    for v in record["verdicts"]:
        if v["evidence"]["search"]:
            found[v["reading"]] = v["evidence"]["search"]
        if v["repair"] and v["repair"].get("search"):
            found[f"{v['reading']}, repaired"] = v["repair"]["search"]
        for control in v["controls"]:
            if control.get("search"):
                found[f"{v['reading']}, {control['variant']}"] = control["search"]
    return found


def built_instances_meet_the_hypotheses(entry: Registered, reading: Reading) -> None:
    """`build` makes instances on which every hypothesis holds (or which the standing assumptions exclude)."""
    setting = entry.claim.setting_of(reading)
    if setting is None or reading.statement is None:
        return
    met = 0
    for d, data, kit in verdicts.built_instances(setting):
        try:
            outcome, _ = evaluate(reading.statement, data, {n: r for n, r in kit.witnesses.items()})
        except Undecided:
            continue
        met += not outcome.broken_hypotheses
        if not outcome.broken_hypotheses and outcome.broken_conclusions and not _is_refuted(reading):
            msg = f"{entry.claim.id} [{reading.name}] fails at sizes {d}: {json.dumps(data)}"
            raise CheckFails(msg)
    if not met and not setting.boundary:
        msg = f"{entry.claim.id} [{reading.name}]: no built instance meets the hypotheses"
        raise CheckFails(msg)


def _is_refuted(reading: Reading) -> bool:
    return (
        isinstance(reading.evidence, Counterexample) or getattr(reading.evidence, "status", "") == "refuted"
    )


def boundary_instances_agree(entry: Registered, reading: Reading) -> None:
    """No boundary instance refutes a reading that is said to hold."""
    setting = entry.claim.setting_of(reading)
    if setting is None or reading.statement is None or _is_refuted(reading):
        return
    for data in setting.boundary:
        try:
            outcome, _ = evaluate(reading.statement, data)
        except Undecided:
            continue
        if outcome.is_counterexample:
            msg = f"{entry.claim.id} [{reading.name}] fails on the boundary instance {json.dumps(data)}"
            raise CheckFails(msg)


def verdict_is_the_recorded_one(entry: Registered, reading: Reading) -> None:
    """Deriving the verdict anew gives the recorded status, certificate, controls and repair."""
    record = recorded(entry)
    stored = next((v for v in record["verdicts"] if v["reading"] == reading.name), None)
    if stored is None:
        msg = f"{entry.claim.id}: the record has no reading {reading.name!r}; run `make audit`"
        raise CheckFails(msg)
    fresh = json.loads(json.dumps(verdicts.verdict(entry.claim, reading, stored_searches(record))))
    for part in fresh:
        if fresh[part] != stored.get(part):
            msg = (
                f"{entry.claim.id} [{reading.name}]: {part} is now {json.dumps(fresh[part])[:400]}, "
                f"recorded {json.dumps(stored.get(part))[:400]}; run `python -m theory check {entry.claim.id} --write`"
            )
            raise CheckFails(msg)


def certificate_rechecks(entry: Registered, reading: Reading) -> None:
    """The certificate, after a JSON round trip, earns the status again."""
    where = verdicts.context(entry.claim, reading)
    status, certificate = reading.evidence.establish(where)
    if (
        certificate is not None
        and recheck(reading.evidence, where, json.loads(json.dumps(certificate))) != status
    ):
        msg = f"{where.label}: the certificate earns another status than {status}"
        raise CheckFails(msg)


def counterexample_meets_every_hypothesis(entry: Registered, reading: Reading) -> None:
    """The counterexample (and the open one) meets every hypothesis."""
    for data in _counterexamples(reading):
        outcome, _ = evaluate(_text(reading), data)
        if outcome.broken_hypotheses:
            msg = f"{entry.claim.id} [{reading.name}]: {outcome.broken_hypotheses} fail on {json.dumps(data)}"
            raise CheckFails(msg)


def counterexample_breaks_the_conclusion(entry: Registered, reading: Reading) -> None:
    """The counterexample (and the open one) breaks a conclusion."""
    for data in _counterexamples(reading):
        outcome, _ = evaluate(_text(reading), data)
        if not outcome.broken_conclusions:
            msg = f"{entry.claim.id} [{reading.name}]: nothing fails on {json.dumps(data)}"
            raise CheckFails(msg)


def _counterexamples(reading: Reading) -> Iterator[Json]:
    if isinstance(reading.evidence, Counterexample) and not reading.evidence.witnesses:
        yield reading.evidence.instance
    if reading.open_instance is not None and reading.statement is not None:
        yield reading.open_instance


def _text(reading: Reading) -> Statement:
    if reading.statement is None:
        msg = f"{reading.name}: a counterexample needs a statement(k, x)"
        raise CheckFails(msg)
    return reading.statement


def repair_is_not_vacuous(entry: Registered, reading: Reading) -> None:
    """Some built or boundary instance meets the hypotheses of the repair and its conclusion holds there."""
    repair = reading.repair
    if repair is None or repair.statement is None:
        return
    where = verdicts.repair_context(entry.claim, reading)
    setting = where.instances()
    candidates: list[tuple[Json, Json]] = [(data, {}) for data in setting.boundary]
    candidates += [(data, dict(kit.witnesses)) for _, data, kit in verdicts.built_instances(setting)]
    candidates += [(repair.sharp, {})] if repair.sharp else []
    for data, witnesses in candidates:
        try:
            if evaluate(repair.statement, data, witnesses)[0].supports:
                return
        except Undecided:
            continue
    msg = f"{where.label}: no instance at hand meets its hypotheses"
    raise CheckFails(msg)


def controls_go_the_right_way(entry: Registered, reading: Reading) -> None:
    """There is a false control, refuted on its instance, which spares the claim; and a true one, not refuted."""
    kinds = [c.kind for c in reading.controls]
    if getattr(reading.evidence, "kind", "") == "open":
        return
    if "false" not in kinds or ("true" not in kinds and not reading.repair):
        msg = f"{entry.claim.id} [{reading.name}] needs a false and a true control; it has {kinds}"
        raise CheckFails(msg)
    verdicts.verdict(entry.claim, reading, {})


def record_is_current(entry: Registered, reading: Reading) -> None:
    """The record was made from the files that lie here now."""
    record = recorded(entry)
    if record["key"] != verdicts.key(entry, record["settings"]):
        msg = f"{entry.claim.id}: the record is older than its files; run `make audit`"
        raise CheckFails(msg)


CHECKS: tuple[Check, ...] = (
    built_instances_meet_the_hypotheses,
    boundary_instances_agree,
    certificate_rechecks,
    counterexample_meets_every_hypothesis,
    counterexample_breaks_the_conclusion,
    repair_is_not_vacuous,
    controls_go_the_right_way,
    verdict_is_the_recorded_one,
    record_is_current,
)
