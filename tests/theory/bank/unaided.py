"""Find the counterexamples of our own claims again, unaided: `python tests/theory/bank/unaided.py [TEXT ...]`.

Every refuted reading whose evidence is an authored counterexample is searched from its claim file with all authored
instances left out (the setting's boundary instances and the counterexample itself). A reading that is not refuted
so, at the default budget, is named: there the counterexample took a person.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from dataclasses import replace

from theory import registry
from theory.claim import Setting
from theory.evidence import Counterexample, evaluate
from theory.protocol import Statement
from theory.search import DEFAULT_BUDGET, falsify

SMALL = 10_000  # tried first: most fall at once


def refuted_readings(parts: list[str]) -> Iterator[tuple[str, Statement, Setting]]:
    """(name, text, setting without authored instances) of each reading refuted by a counterexample."""
    for claim_id in registry.claim_ids():
        claim = registry.find(claim_id).claim
        for reading in claim.readings:
            setting, name = claim.setting_of(reading), f"{claim.id} [{reading.name}]"
            if (
                not isinstance(reading.evidence, Counterexample)
                or reading.statement is None
                or setting is None
            ):
                continue
            if not parts or any(part in name for part in parts):
                yield name, reading.statement, replace(setting, boundary=())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", help="only readings whose name contains one of these")
    parser.add_argument("--budget", type=int, default=DEFAULT_BUDGET)
    parser.add_argument("--jobs", type=int, default=1)
    options = parser.parse_args()
    total, missed = 0, []
    for name, statement, setting in refuted_readings(options.parts):
        total += 1
        start = time.perf_counter()
        for budget in dict.fromkeys((min(SMALL, options.budget), options.budget)):
            report = falsify(statement, setting, budget=budget, jobs=options.jobs, outside=True)
            if report.found:
                break
        if report.found:
            outcome, _ = evaluate(statement, report.found["instance"], report.found["witnesses"])
            assert outcome.is_counterexample, name
            how = f"{report.found['stage']} {report.found['sizes']}"
        else:
            missed.append(name)
            how = f"NOT FOUND, best {(report.best or {}).get('ratio')}"
        for note in report.notes:
            how += f"; a note: outside {note['outside']}"
        print(f"{time.perf_counter() - start:7.1f} s {report.evaluations:8d}  {name}: {how}", flush=True)
    print(f"{total - len(missed)} of {total} found unaided; not found: {missed or 'none'}")


if __name__ == "__main__":
    main()
