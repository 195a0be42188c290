"""The command line: exit statuses, JSON, one clear line for bad input."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CLAIM = "s2ft/lemma_f14_left"


def theory(*arguments: str, reports: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "COLUMNS": "200"}
    if reports:
        environment["PEFTPROOF_REPORTS"] = str(reports)
    command = [sys.executable, "-m", "theory", *arguments]
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=240, check=False
    )


@pytest.fixture
def reports(tmp_path: Path) -> Path:
    """A reports folder of its own that holds the committed record of one claim."""
    target = tmp_path / "records" / "claims" / f"{CLAIM}.json"
    target.parent.mkdir(parents=True)
    shutil.copy(ROOT / "reports" / "records" / "claims" / f"{CLAIM}.json", target)
    return tmp_path


def test_a_recorded_refutation_is_as_recorded(reports: Path) -> None:
    done = theory("check", CLAIM, "--json", reports=reports)
    assert done.returncode == 0, done.stdout + done.stderr
    row = json.loads(done.stdout)
    assert row["as_recorded"] and row["verdicts"][0]["status"] == "refuted"


def test_a_record_that_says_something_else_is_named_and_exits_1(reports: Path) -> None:
    from reports.store import digest_of

    path = reports / "records" / "claims" / f"{CLAIM}.json"
    record = json.loads(path.read_text())
    record["verdicts"][0]["repair"]["status"] = "proved_within"
    record["digest"] = digest_of(record)
    path.write_text(json.dumps(record))
    done = theory("check", CLAIM, reports=reports)
    assert done.returncode == 1
    assert "repair.status" in done.stdout


@pytest.mark.parametrize("damage", ["", "{", '{"a": 1}'])
def test_a_damaged_record_is_one_line_and_is_not_overwritten(damage: str, reports: Path) -> None:
    path = reports / "records" / "claims" / f"{CLAIM}.json"
    path.write_text(damage)
    done = theory("check", CLAIM, "--write", "--budget", "1", reports=reports)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1 and "Traceback" not in done.stderr
    assert path.read_text() == damage


def test_an_unknown_id_is_one_line_with_a_suggestion() -> None:
    done = theory("check", "s2ft/lemma_f14_lft")
    assert done.returncode == 2
    assert "did you mean" in done.stderr and done.stderr.count("\n") == 1


def test_an_unwritable_folder_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "records").write_text("a file where the folder should be")
    done = theory("check", CLAIM, "--write", "--budget", "1", reports=tmp_path)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1


def test_list_and_show_speak_of_the_record() -> None:
    listed = json.loads(theory("list", "f14_left", "--json").stdout)
    assert [row["status"] for row in listed] == ["refuted"]
    shown = theory("show", CLAIM)
    assert shown.returncode == 0 and "repair (proved)" in shown.stdout
    assert json.loads(theory("show", CLAIM, "--json").stdout)["id"] == CLAIM


def test_show_latex_prints_the_conclusion() -> None:
    done = theory("show", CLAIM, "--latex")
    assert done.returncode == 0 and r"\le" in done.stdout


@pytest.mark.parametrize("command", [[], ["check"], ["list"], ["show"], ["recheck"], ["falsify"], ["new"]])
def test_every_command_explains_itself(command: list[str]) -> None:
    done = theory(*command, "--help")
    assert done.returncode == 0 and "Usage" in done.stdout
