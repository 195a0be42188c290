"""Run the whole bank and print what it shows: `python tests/theory/bank/bench.py [--factor 10] [NAME ...]`.

Every false lemma must be refuted with a re-checked certificate at the default budget, no true one ever. The
counts of hard ones are measured: which false lemmas survive a million Gaussian draws is tried here.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

from lemmas import BANK, Lemma

from theory.evidence import evaluate
from theory.search import DEFAULT_BUDGET, falsify
from theory.search.certify import Certifier
from theory.search.points import gaussian
from theory.search.problem import Problem

DRAWS = 1_000_000


def survives_gaussian(lemma: Lemma, draws: int = DRAWS) -> bool:
    """Whether none of the Gaussian draws, over all sizes, is a counterexample in exact arithmetic."""
    problem, rng = Problem(lemma.statement, lemma.setting, {}), np.random.default_rng(1)
    certifier = Certifier(lemma.statement, lemma.setting, {})
    dims = lemma.setting.dims
    for batch in range(draws // 10_000):
        d = dims[batch % len(dims)]
        z = gaussian(rng, problem.shapes(d), 10_000)
        for i in np.flatnonzero(problem.score(d, z).clear)[:20]:
            if certifier.breaks(next(problem.candidates(d, z[i]))):
                return False
    return True


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="only these lemmas")
    parser.add_argument(
        "--factor", type=int, default=1, help="multiple of the default budget, for true lemmas"
    )
    parser.add_argument(
        "--draws", action="store_true", help="also count which survive a million Gaussian draws"
    )
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--only", choices=("true", "false"))
    options = parser.parse_args()
    wrong, surviving, slowest = [], [], 0.0
    chosen = [b for b in BANK.values() if not options.names or b.name in options.names]
    chosen = [b for b in chosen if options.only in (None, str(b.true).lower())]
    for lemma in chosen:
        budget = DEFAULT_BUDGET * (options.factor if lemma.true else 1)
        start = time.perf_counter()
        report = falsify(lemma.statement, lemma.setting, budget=budget, jobs=options.jobs)
        seconds = time.perf_counter() - start
        right = (report.found is None) == lemma.true
        if report.found:
            outcome, _ = evaluate(lemma.statement, report.found["instance"], report.found["witnesses"])
            right = right and outcome.is_counterexample
            slowest = max(slowest, seconds)
        if not right:
            wrong.append(lemma.name)
        how = (
            f"{report.found['stage']} {report.found['sizes']}"
            if report.found
            else f"best {(report.best or {}).get('ratio')}"
        )
        if not lemma.true and options.draws and survives_gaussian(lemma):
            surviving.append(lemma.name)
        faults = f" faults {report.errors}" if report.errors else ""
        word = "ok   " if right else "WRONG"
        counts = f"{str(lemma.true):5} {seconds:6.2f} s {report.evaluations:8d}"
        print(f"{word} {counts}  {lemma.name}: {how}{faults}", flush=True)
    false = [b for b in chosen if not b.true]
    print(
        f"{len(false)} false, {len(chosen) - len(false)} true; wrong: {wrong or 'none'}; slowest refutation {slowest:.2f} s"
    )
    for tag, meaning in (
        ("large", "need dimension >= 4 and rank >= 3"),
        ("tie", "need a tie or a rank drop"),
        ("narrow", "live in a narrow cone"),
    ):
        print(f"{sum(tag in b.tags for b in false)} {meaning}")
    if options.draws:
        print(f"{len(surviving)} survive {DRAWS} Gaussian draws: {', '.join(surviving)}")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
