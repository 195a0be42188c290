"""Run the bank of lemmas: `python tests/theory/bank/bench.py [--only true --factor 10] [--draws] [--write] [NAME ...]`.

Every false lemma must be refuted with a re-checked certificate at the default budget, no true one ever, at ten
times the budget too. How hard the false ones are is counted, not claimed: a lemma *survives* if none of a
million Gaussian draws of its free parameters, at each of its sizes, is a counterexample in exact arithmetic.

With --write each outcome goes at once into the record bench/bank, and lemmas whose outcome is there already,
from the same sources and at least the same budget, are not run again: a long run may be stopped and resumed.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

from lemmas import BANK, Lemma

from reports.store import machine, read_record, record_path, write_record
from theory.evidence import evaluate
from theory.search import DEFAULT_BUDGET, falsify
from theory.search.certify import Certifier
from theory.search.points import gaussian
from theory.search.problem import Problem

Json = dict[str, Any]
DRAWS = 1_000_000
BATCH = 10_000
TRIED = 20  # clear violations of one batch that are decided exactly
SHOWN = ("bench.py", "cli.py", "loader.py", "template.py", "report.py")  # of theory/search: find nothing
TAGS = {
    "large": "need dimension >= 4 and rank >= 3",
    "tie": "need a tie or a rank drop",
    "narrow": "live in a narrow cone",
}


def survives_gaussian(lemma: Lemma, draws: int = DRAWS) -> bool:
    """Whether none of `draws` Gaussian draws at each size is a counterexample in exact arithmetic."""
    problem, rng = Problem(lemma.statement, lemma.setting, {}), np.random.default_rng(1)
    certifier = Certifier(lemma.statement, lemma.setting, {})
    for _ in range(draws // BATCH):
        for d in lemma.setting.dims:
            z = gaussian(rng, problem.shapes(d), BATCH)
            for i in np.flatnonzero(problem.score(d, z).clear)[:TRIED]:
                if certifier.breaks(next(problem.candidates(d, z[i]))):
                    return False
    return True


def sources() -> str:
    """A digest of what an outcome depends on: the search, the kits and the bank."""
    theory = Path(__file__).resolve().parents[3] / "theory"
    files = [f for f in sorted((theory / "search").glob("*.py")) if f.name not in SHOWN]
    files += [*sorted((theory / "kits").glob("*.py")), Path(__file__).with_name("lemmas.py")]
    return hashlib.sha256(b"".join(f.read_bytes() for f in files)).hexdigest()[:16]


def tried(lemma: Lemma, factor: int, jobs: int) -> tuple[Json, bool]:
    """(what a search said of a lemma, whether that is right)."""
    budget = DEFAULT_BUDGET * (factor if lemma.true else 1)
    start = time.perf_counter()
    report = falsify(lemma.statement, lemma.setting, budget=budget, jobs=jobs)
    row: Json = {
        "lemma": lemma.name,
        "true": lemma.true,
        "budget": budget,
        "evaluations": report.evaluations,
        "refuted by": None,
        "best ratio": (report.best or {}).get("ratio"),
        "seconds": round(time.perf_counter() - start, 2),
    }
    right = (report.found is None) == lemma.true and not report.errors
    if report.found:
        outcome, _ = evaluate(lemma.statement, report.found["instance"], report.found["witnesses"])
        right = right and outcome.is_counterexample
        row["refuted by"] = f"{report.found['stage']} {report.found['sizes']}"
    return row, right


class Record:
    """The outcomes by lemma, kept in the record bench/bank if wanted."""

    def __init__(self, write: bool) -> None:
        self.path, self.write = record_path("bench", "bank"), write
        self.rows = self.stored()

    def stored(self) -> dict[str, Json]:
        """The outcomes in the record."""
        if not self.write or not self.path.exists():
            return {}
        return {row["lemma"]: row for row in read_record(self.path)["table"]}

    def has(self, lemma: Lemma, factor: int, draws: bool) -> bool:
        """Whether the outcome is known, from these sources."""
        row = self.rows.get(lemma.name)
        if row is None or row["sources"] != sources():
            return False
        enough = row["budget"] >= DEFAULT_BUDGET * (factor if lemma.true else 1)
        return enough and not (draws and not lemma.true and row["survives"] is None)

    def add(self, row: Json) -> None:
        """Keep an outcome."""
        before = self.stored()  # read again: another run may have added to it
        known = before.get(row["lemma"], {})
        kept = known.get("survives") if known.get("sources") == sources() else None
        self.rows = {**self.rows, **before}
        self.rows[row["lemma"]] = {"survives": kept, **row, "sources": sources()}
        if self.write:
            now = sources()
            record = {
                "id": "bench/bank",
                "headline": headline(list(self.rows.values())),
                "settings": {"default budget": DEFAULT_BUDGET, "draws at each size": DRAWS},
                "machine": machine(),
                "outdated": sorted(n for n, r in self.rows.items() if r["sources"] != now),
                "table": [self.rows[n] for n in BANK if n in self.rows],
            }
            write_record(self.path, record)


def wrong(row: Json) -> bool:
    """Whether an outcome is not what it must be."""
    return bool(row["true"] == (row["refuted by"] is not None))


def headline(rows: list[Json]) -> str:
    """One sentence with the counts."""
    false, true = [r for r in rows if not r["true"]], [r for r in rows if r["true"]]
    slowest = max((r["seconds"] for r in false), default=0.0)
    large = [r for r in true if r["budget"] >= 10 * DEFAULT_BUDGET]
    said = (
        f"{sum(not wrong(r) for r in false)} of {len(false)} false lemmas refuted, the slowest in {slowest:.1f} s; "
        f"{sum(wrong(r) for r in true)} of {len(true)} true ones, {len(large)} of them at ten times the budget."
    )
    known = [r for r in false if r["survives"] is not None]
    if known:
        said += (
            f" {sum(r['survives'] for r in known)} of {len(known)} false ones survive {DRAWS} Gaussian draws."
        )
    return said


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", help="only these lemmas")
    parser.add_argument(
        "--factor", type=int, default=1, help="multiple of the default budget, for true lemmas"
    )
    parser.add_argument(
        "--draws", action="store_true", help="also count which survive a million Gaussian draws"
    )
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--only", choices=("true", "false"))
    parser.add_argument("--write", action="store_true", help="write the record, and resume from it")
    options = parser.parse_args()
    unknown = sorted(set(options.names) - set(BANK))
    if unknown:
        parser.error(f"no lemma named {', '.join(unknown)}")
    chosen = [b for b in BANK.values() if not options.names or b.name in options.names]
    chosen = [b for b in chosen if options.only in (None, str(b.true).lower())]
    record, failed = Record(options.write), []
    for lemma in chosen:
        if record.has(lemma, options.factor, options.draws):
            print(f"known  {lemma.name}")
            continue
        row, right = tried(lemma, options.factor, options.jobs)
        if options.draws and not lemma.true:
            row["survives"] = survives_gaussian(lemma)
        record.add(row)
        if not right:
            failed.append(lemma.name)
        how = row["refuted by"] or f"best {row['best ratio']}"
        lasting = " (survives Gaussian draws)" if row.get("survives") else ""
        print(
            f"{'ok   ' if right else 'WRONG'} {row['true']!s:5} {row['seconds']:7.2f} s {row['evaluations']:8d}  "
            f"{lemma.name}: {how}{lasting}",
            flush=True,
        )
    rows = [record.rows[b.name] for b in chosen]
    print(headline(rows))
    for tag, meaning in TAGS.items():
        print(f"{sum(tag in b.tags and not b.true for b in chosen)} {meaning}")
    sys.exit(bool(failed or any(wrong(row) for row in rows)))


if __name__ == "__main__":
    main()
