"""The re-checker runs on the standard library alone and believes nothing that was altered."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from reports.store import digest_of, read_record, record_path, write_record
from theory import recheck, registry, verdicts

ROOT = Path(__file__).resolve().parents[2]
CLAIMS = ["s2ft/gain_equals_movement", "s2ft/lemma_f14_left", "s2ft/phase_law"]


def isolated(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-I", "-S", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)


def test_stored_records_recheck_without_any_installed_package() -> None:
    files = [str(record_path("claims", name)) for name in CLAIMS]
    done = isolated("theory/recheck.py", *files)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("holds") == len(CLAIMS)


def test_every_claim_module_imports_the_standard_library_only() -> None:
    program = (
        "import sys; sys.path.insert(0, '.'); from theory import registry; registry.registered();"
        "bad = {'numpy', 'scipy', 'flint', 'z3', 'torch', 'sympy', 'hypothesis'} & set(sys.modules); assert not bad, bad"
    )
    done = isolated("-c", program)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def altered(tmp_path: Path):
    """Write a record with one change, its digest made right again: only the certificate can tell."""

    def write(name: str, change) -> Path:
        record = read_record(record_path("claims", name))
        change(record)
        record["digest"] = digest_of(record)
        path = tmp_path / "records" / "claims" / f"{name}.json"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(record), encoding="utf-8")
        return path

    return write


def test_an_altered_entry_of_an_instance_fails(altered, capsys) -> None:
    def change(record) -> None:
        record["verdicts"][0]["certificate"]["instance"]["W"][0][0] = "1"  # an entry that nothing reads

    assert recheck.main([str(altered("s2ft/lemma_f14_left", change))]) == 1
    assert "altered" in capsys.readouterr().out


def test_a_status_that_the_certificate_does_not_earn_fails(altered, capsys) -> None:
    def change(record) -> None:
        record["verdicts"][0]["status"] = "proved"

    assert recheck.main([str(altered("s2ft/lemma_f14_left", change))]) == 1
    assert "earned refuted" in capsys.readouterr().out


def test_an_altered_normal_form_of_a_proof_fails(altered) -> None:
    def change(record) -> None:
        shown = record["verdicts"][0]["certificate"]["established"]
        shown[next(iter(shown))] = "equal normal forms: 0"

    assert recheck.main([str(altered("s2ft/gain_equals_movement", change))]) == 1


@pytest.mark.parametrize("text", ["", "{", "[]", '{"id": "x"}', '{"schema": 99, "digest": "", "id": "x"}'])
def test_what_is_no_record_is_refused_in_one_line(text: str, tmp_path: Path, capsys) -> None:
    path = tmp_path / "x.json"
    path.write_text(text, encoding="utf-8")
    assert recheck.main([str(path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_missing_file_and_no_file_are_bad_input(capsys) -> None:
    assert recheck.main(["nowhere.json"]) == 2
    assert recheck.main([]) == 2
    assert "usage" in capsys.readouterr().err


def test_a_record_made_twice_is_the_same(tmp_path: Path) -> None:
    entry = registry.find("s2ft/lemma_f14_left")
    settings = {"search_budget": 0, "seed": 0}
    paths = [tmp_path / d / "records" / "claims" / "s2ft" / "lemma_f14_left.json" for d in "ab"]
    for path in paths:
        write_record(path, verdicts.record(entry, {}, settings))
    assert paths[0].read_bytes() == paths[1].read_bytes()
