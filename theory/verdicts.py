"""From a claim to its record: check the evidence, run the controls, measure the tightness.

`verdict` derives everything anew except the search, which is handed in: the audit searches, a proof-check
reads what the audit found. Nothing here needs more than the standard library unless the evidence does.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping

from reports import sources
from reports.store import SCHEMA
from theory import instances
from theory.claim import Claim, Control, Json, Reading, Repair, Setting
from theory.evidence import CheckFails, Context, Counterexample, evaluate
from theory.kits import reals
from theory.kits.exact import Exact
from theory.protocol import BadWitness, Statement, Undecided
from theory.registry import ROOT, Registered

# (label, statement, setting, changes) -> what a search reports: {"found": certificate or None, ...}
Searcher = Callable[[str, Statement, Setting, Json], Json]
Searches = Mapping[str, Json]


def context(claim: Claim, reading: Reading) -> Context:
    """What the evidence of a reading speaks about."""
    return Context(f"{claim.id} [{reading.name}]", reading.statement, claim.setting_of(reading))


def repair_context(claim: Claim, reading: Reading) -> Context:
    """What the evidence of a reading's repair speaks about."""
    repair = reading.repair
    if repair is None:
        msg = f"{claim.id} [{reading.name}] has no repair"
        raise CheckFails(msg)
    return Context(
        f"{claim.id} [{reading.name}, repaired]",
        repair.statement,
        repair.setting or claim.setting_of(reading),
    )


def verdict(claim: Claim, reading: Reading, searches: Searches) -> Json:
    """The verdict of one reading, as it stands in the record.

    Args:
        claim: The claim.
        reading: One of its readings.
        searches: Search reports by "<reading>", "<reading>, repaired", "<reading>, <variant of a control>".

    Raises:
        CheckFails: The evidence does not hold, a control goes the wrong way, or a search refutes what the
            evidence is meant to prove.
    """
    status, certificate = reading.evidence.establish(context(claim, reading))
    search = searches.get(reading.name)
    if search and search.get("found") and status != "refuted":
        msg = f"{claim.id} [{reading.name}]: a search refutes it: {json.dumps(search['found'])}"
        raise CheckFails(msg)
    evidence = {
        "kind": reading.evidence.kind,
        "instances": _instances(reading),
        "search": search,
        "reason": getattr(reading.evidence, "reason", None) or None,
    }
    return {
        "reading": reading.name,
        "sentence": reading.sentence or claim.sentence,
        "status": status,
        "scope": reading.scope or None,
        "vacuous": reading.vacuous,
        "evidence": evidence,
        "certificate": certificate,
        "tightness": _tightness(reading),
        "controls": [_control(claim, reading, c, searches) for c in reading.controls],
        "repair": _repair(claim, reading, searches) if reading.repair else None,
        "unused_hypotheses": list(reading.unused),
    }


def _instances(reading: Reading) -> Json:
    shown: Json = {}
    if isinstance(reading.evidence, Counterexample):
        shown["counterexample"] = dict(reading.evidence.instance)
    if reading.open_instance is not None:
        shown["open counterexample"] = dict(reading.open_instance)
    if reading.sharp is not None:
        shown["sharp"] = dict(reading.sharp)
    return shown


def ratio(statement: Statement, instance: Json) -> str | None:
    """The exact left/right ratio of the first scalar conclusion on an instance; "unbounded" over zero."""
    _, kit = evaluate(statement, instance)
    for left, right in kit.sides.values():
        if reals.sign(right) == 0:
            return "unbounded" if reals.sign(left) > 0 else None
        return reals.text(left / right)
    return None


def _tightness(reading: Reading) -> Json | None:
    instance = reading.sharp
    if instance is None and isinstance(reading.evidence, Counterexample):
        instance = reading.evidence.instance
    if instance is None or reading.statement is None:
        return None
    return {
        "ratio": ratio(reading.statement, instance),
        "sharp": dict(reading.sharp) if reading.sharp else None,
    }


def changes_of(control: Control) -> Json:
    """The changes of a control as keyword arguments of a kit's run; nothing that changes nothing."""
    changes: Json = {}
    if control.tighten != "0":
        changes = {"tighten": control.tighten, "only": control.only}
    if control.drop:
        changes["drop"] = tuple(control.drop)
    return changes


def breaks(statement: Statement, instance: Json, witnesses: Json) -> bool:
    """Whether an instance refutes a statement; not if the statement speaks of objects that it lacks."""
    try:
        outcome, _ = evaluate(statement, instance, witnesses)
    except AttributeError as error:
        if "the instance has no" not in str(error):
            raise
        return False
    return bool(outcome.is_counterexample)


def run_control(claim: Claim, reading: Reading, control: Control) -> tuple[bool, bool]:
    """(whether the changed claim is refuted on the control's instance, whether the claim itself is)."""
    if control.check is not None:
        return control.check(), bool(control.spares and control.spares())
    statement = control.statement or reading.statement
    if statement is None or control.instance is None:
        msg = f"{claim.id} [{reading.name}]: the control {control.variant!r} needs an instance"
        raise CheckFails(msg)
    changes = changes_of(control)
    changed, _ = evaluate(statement, control.instance, control.witnesses, **changes)
    itself = reading.statement is not None and breaks(reading.statement, control.instance, control.witnesses)
    return changed.is_counterexample, itself


def _control(claim: Claim, reading: Reading, control: Control, searches: Searches) -> Json:
    label = f"{claim.id} [{reading.name}]: the {control.kind} control {control.variant!r}"
    if control.kind == "true":
        search = searches.get(f"{reading.name}, {control.variant}")
        refuted = bool(search and search.get("found"))
        if control.check is not None:
            refuted = refuted or control.check()
        elif control.instance is not None:
            refuted = refuted or run_control(claim, reading, control)[0]
        if refuted:
            msg = f"{label} is refuted"
            raise CheckFails(msg)
        return {"variant": control.variant, "kind": "true", "refuted": False, "search": search}
    try:
        refuted, itself = run_control(claim, reading, control)
    except (Undecided, BadWitness) as error:
        msg = f"{label} is not decided: {error}"
        raise CheckFails(msg) from error
    if not refuted:
        msg = f"{label} is not refuted on its instance"
        raise CheckFails(msg)
    if itself and not isinstance(reading.evidence, Counterexample):
        msg = f"{label}: its instance refutes the claim itself"
        raise CheckFails(msg)
    return {"variant": control.variant, "kind": "false", "refuted": True}


def _repair(claim: Claim, reading: Reading, searches: Searches) -> Json:
    repair, where = reading.repair, repair_context(claim, reading)
    assert repair is not None
    status, certificate = repair.evidence.establish(where)
    search = searches.get(f"{reading.name}, repaired")
    if search and search.get("found"):
        msg = f"{where.label}: a search refutes the repair: {json.dumps(search['found'])}"
        raise CheckFails(msg)
    if repair.statement is not None and isinstance(reading.evidence, Counterexample):
        if breaks(repair.statement, reading.evidence.instance, reading.evidence.witnesses):
            msg = f"{where.label}: the counterexample breaks the repair too"
            raise CheckFails(msg)
    return {
        "statement": repair.sentence,
        "status": status,
        "scope": where.label,
        "certificate": certificate,
        "search": search,
        "reason": getattr(repair.evidence, "reason", None) or None,
        "ratio": ratio(repair.statement, repair.sharp) if repair.statement and repair.sharp else None,
        "necessary": {name: _necessary(repair, where, name, dict(x)) for name, x in repair.necessary.items()},
    }


def _necessary(repair: Repair, where: Context, hypothesis: str, instance: Json) -> Json:
    """Check that without the added hypothesis the repaired conclusion fails on the instance."""
    outcome, _ = evaluate(where.text(), instance, drop=(hypothesis,))
    if not outcome.is_counterexample:
        msg = f"{where.label}: {hypothesis!r} is not shown necessary by its instance: {outcome}"
        raise CheckFails(msg)
    return instance


def key(entry: Registered, settings: Json) -> str:
    """What the record depends on: the claim's file, the modules it imports, settings, schema."""
    files = sources.hashes(sources.closure([entry.path], ROOT.parent), ROOT.parent)
    text = json.dumps({"files": files, "settings": settings, "schema": SCHEMA}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def record(entry: Registered, searches: Searches, settings: Json) -> Json:
    """The claim's record, ready for `reports.store.write_record`."""
    claim = entry.claim
    return {
        "key": key(entry, settings),
        "id": claim.id,
        "source": {"paper": claim.source.paper, "place": claim.source.place},
        "paper_version": claim.source.version,
        "statement": claim.sentence,
        "latex": _latex(claim),
        "defect": claim.defect,
        "uses": list(claim.uses),
        "headline": claim.headline,
        "verdicts": [verdict(claim, reading, searches) for reading in claim.readings],
        "settings": settings,
    }


def _latex(claim: Claim) -> Json | None:
    """The text of each reading as LaTeX, where it lies in the protocol."""
    from theory.kits.latex import to_latex

    shown = {}
    for reading in claim.readings:
        setting = claim.setting_of(reading)
        if reading.statement is not None and setting is not None:
            shown[reading.name] = to_latex(reading.statement, setting)
    return shown or None


def search_all(claim: Claim, search: Searcher) -> dict[str, Json]:
    """Search every reading, repair and true control that lies in the protocol."""
    found: dict[str, Json] = {}
    for reading in claim.readings:
        setting = claim.setting_of(reading)
        if reading.statement is not None and setting is not None:
            found[reading.name] = search(f"{claim.id} [{reading.name}]", reading.statement, setting, {})
        if reading.repair and reading.repair.statement:
            where = repair_context(claim, reading)
            found[f"{reading.name}, repaired"] = search(where.label, where.text(), where.instances(), {})
        for control in reading.controls:
            if control.kind == "true" and control.check is None and setting is not None:
                statement = control.statement or reading.statement
                if statement is None or (reading.repair and statement is reading.repair.statement):
                    continue
                label = f"{reading.name}, {control.variant}"
                found[label] = search(f"{claim.id} [{label}]", statement, setting, changes_of(control))
    return found


def built_instances(setting: Setting, per_size: int = 2) -> list[tuple[Json, Json, Exact]]:
    """(sizes, instance as JSON, kit) at small integer parameters of every size; fixed, not random."""
    made = []
    for d in setting.dims:
        d = dict(d)
        shapes = setting.free(d)
        total = instances.count(shapes)
        for number in range(per_size):
            values = [((7 * i + 3 * number + i * i) % 5) - 2 for i in range(total)]
            kit = Exact()
            x = setting.build(kit, instances.parameters(kit, shapes, values), d)
            made.append((d, instances.dump(kit, x), kit))
    return made
