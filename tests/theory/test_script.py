"""A refutation can be pasted: a stand-alone program of at most 40 lines that runs on the standard library."""

from __future__ import annotations

import subprocess
import sys

import pytest

from theory import registry, script
from theory.evidence import Counterexample


def alone(text: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-I", "-S", "-c", text]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


REFUTED = [
    (entry.claim.id, reading.name)
    for entry in registry.registered().values()
    for reading in entry.claim.readings
    if isinstance(reading.evidence, Counterexample)
]


@pytest.mark.parametrize(("claim_id", "name"), REFUTED)
def test_each_refutation_runs_alone_or_says_why_not(claim_id: str, name: str) -> None:
    entry = registry.find(claim_id)
    try:
        text = script.program(entry, entry.claim.reading(name))
    except script.NoScript as reason:
        assert len(str(reason).splitlines()) == 1
        return
    assert len(text.splitlines()) <= script.LINES
    done = alone(text)
    assert done.returncode == 0, done.stderr


def test_the_program_fails_when_its_counterexample_is_altered() -> None:
    entry = registry.find("s2ft/lemma_f14_left")
    text = script.program(entry, entry.claim.readings[0])
    spoiled = text.replace('D = mat("1 0; 0 1")', 'D = mat("1 0; 0 0")')
    assert spoiled != text
    done = alone(spoiled)
    assert done.returncode != 0


def test_a_claim_that_is_not_refuted_gets_one_line_that_says_why() -> None:
    text = script.stand_alone(registry.find("s2ft/gain_equals_movement"))
    assert text.startswith("# no stand-alone program") and "\n" not in text
