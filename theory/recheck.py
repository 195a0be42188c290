"""Decide stored certificates again: ``python -I -S theory/recheck.py FILE ...``.

Uses the standard library and this project's trusted files alone: no search, no floats, nothing installed.
For every record it evaluates the certificates of the verdicts and of the repairs, and compares the status
that each earns with the recorded one. Exit status 0: all as recorded; 1: a certificate fails or the status
differs; 2: a file is not a readable record.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # under -I -S nothing is installed: the checkout itself is the path
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from reports.store import RecordError, read_record  # noqa: E402
from theory import registry  # noqa: E402
from theory.claim import Json  # noqa: E402
from theory.evidence import CheckFails, Context, recheck  # noqa: E402
from theory.protocol import BadWitness, NotHere, Undecided  # noqa: E402
from theory.verdicts import context, repair_context  # noqa: E402

FAILURES = (CheckFails, BadWitness, Undecided, NotHere, ValueError, KeyError, TypeError, ArithmeticError)


def check_record(record: Json) -> list[str]:
    """Re-check every certificate of a claim's record; returns one complaint per failure."""
    complaints: list[str | None] = []
    claim = registry.find(record["id"]).claim
    for stored in record["verdicts"]:
        label = f"{claim.id} [{stored['reading']}]"
        try:
            reading = claim.reading(stored["reading"])
        except KeyError:
            complaints.append(f"{label}: the claim's file has no such reading")
            continue
        complaints.append(_check_part(label, reading.evidence, stored, context(claim, reading)))
        if stored.get("repair") and reading.repair:
            where = repair_context(claim, reading)
            complaints.append(
                _check_part(f"{label}, repaired", reading.repair.evidence, stored["repair"], where)
            )
    return [complaint for complaint in complaints if complaint]


def _check_part(name: str, evidence: Any, part: Json, where: Context) -> str | None:
    certificate = part["certificate"]
    if certificate is None:
        if part["status"] in ("supported", "undecided"):
            return None
        return f"{name}: {part['status']} without a certificate"
    try:
        earned = recheck(evidence, where, certificate)
    except FAILURES as error:
        return f"{name}: {error}"
    return None if earned == part["status"] else f"{name}: recorded {part['status']}, earned {earned}"


def main(files: list[str]) -> int:
    """Re-check records; prints one line each."""
    if not files:
        print("usage: python -I -S theory/recheck.py RECORD.json ...", file=sys.stderr)
        return 2
    worst = 0
    for name in files:
        try:
            record = read_record(Path(name))
            complaints = check_record(record)
        except (RecordError, registry.UnknownClaim) as error:
            print(error, file=sys.stderr)
            return 2
        except KeyError as error:
            print(f"{name}: the record has no field {error}", file=sys.stderr)
            return 2
        for complaint in complaints:
            print(f"FAILS {complaint}")
        if not complaints:
            held = ", ".join(f"{v['reading']}: {v['status']}" for v in record["verdicts"])
            print(f"holds {record['id']}  {held}")
        worst = max(worst, int(bool(complaints)))
    return worst


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
