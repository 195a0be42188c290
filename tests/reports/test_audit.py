"""The audit: goes on where it ended, believes only what this checkout computed, names every difference."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from reports.audit import audit, parse_budget, select
from reports.items import Item, find_items
from reports.store import RecordError, read_record, record_path, write_record

ALL = [
    "claims/toy/c1.json",
    "claims/toy/c2.json",
    "claims/toy/c3.json",
    "sims/coin-weights-real.json",
    "sims/coin.json",
]


def _start(project: Any) -> subprocess.Popen[bytes]:
    """Start an audit of the project in a process of its own."""
    code = "import sys, pathlib, reports.audit as a; sys.exit(a.audit('none', 2, None, pathlib.Path()))"
    return subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=project.root,
        stdout=subprocess.DEVNULL,
        # tests may run in the background, where a shell has Ctrl-C ignored, and children inherit that
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def _wait_for(condition: Any, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.02)


def test_a_complete_audit_makes_every_record_and_page(
    project: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert audit("none", 2, root=project.root) == 0
    said = capsys.readouterr().out
    assert "complete: 5 items" in said and "proved: The square is convex" in said
    assert sorted(project.records()) == ALL
    assert "square is convex" in (project.root / "out" / "index.md").read_text()
    assert (project.root / "out" / "sims" / "coin.md").exists()


def test_a_second_audit_computes_nothing(project: Any, capsys: pytest.CaptureFixture[str]) -> None:
    audit("none", 2, root=project.root)
    times = {p: p.stat().st_mtime_ns for p in (project.root / "out").rglob("*") if p.is_file()}
    capsys.readouterr()
    assert audit("none", 2, root=project.root) == 0
    assert "5 items, 5 computed by this checkout before" in capsys.readouterr().out
    assert {p: p.stat().st_mtime_ns for p in (project.root / "out").rglob("*") if p.is_file()} == times


def test_records_that_were_only_committed_do_not_count(
    project: Any, claim: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("c1", "c2", "c3"):
        write_record(record_path("claims", f"toy/{name}"), claim | {"id": f"toy/{name}"})
    assert audit("none", 2, root=project.root) == 0
    assert "5 items, 0 computed by this checkout before" in capsys.readouterr().out


def test_only_changed_items_are_computed_again(project: Any, capsys: pytest.CaptureFixture[str]) -> None:
    audit("none", 2, root=project.root)
    with (project.toy / "c2.py").open("a") as file:
        file.write("# a comment\n")
    capsys.readouterr()
    assert audit("none", 2, root=project.root) == 0
    said = capsys.readouterr().out
    assert "5 items, 4 computed" in said and "] toy/c2" in said and "] toy/c1" not in said


def test_a_shared_module_changes_every_key_that_rests_on_it(
    project: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    audit("none", 2, root=project.root)
    with (project.root / "theory" / "__init__.py").open("a") as file:
        file.write("# a comment\n")
    capsys.readouterr()
    audit("none", 2, root=project.root)
    # the simulator imports nothing of theory, so its two runs stand
    assert "5 items, 2 computed by this checkout before" in capsys.readouterr().out


def test_a_record_that_is_gone_is_made_again(project: Any) -> None:
    audit("none", 2, root=project.root)
    before = project.records()
    record_path("claims", "toy/c2").unlink()
    assert audit("none", 2, root=project.root) == 0
    assert project.records() == before


def test_no_budget_starts_nothing(project: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert audit("0", 2, root=project.root) == 0
    assert "5 of 5 items remain" in capsys.readouterr().out
    assert project.records() == {}


def test_the_budget_decides_only_what_is_started(project: Any, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("c1", "c2", "c3"):
        project.write_claim(name, sleep=0.6)
    assert audit("0.3s", 1, only="toy/", root=project.root) == 0
    assert "2 of 3 items remain" in capsys.readouterr().out
    assert len(project.records()) == 1  # the started one was let finish
    assert audit("none", 1, only="toy/", root=project.root) == 0
    assert len(project.records()) == 3


def test_killed_at_any_moment_nothing_is_lost_and_the_records_are_the_same(project: Any) -> None:
    audit("none", 2, root=project.root)
    undisturbed = project.records()
    shutil.rmtree(project.root / "out")
    shutil.rmtree(project.root / ".cache")
    (project.root / "out").mkdir()
    for name, sleep in (("c1", 0.0), ("c2", 1.0), ("c3", 1.0)):
        project.write_claim(name, sleep=sleep)
    kept = project.root / ".cache" / "audit" / "items"
    first = _start(project)
    _wait_for(lambda: kept.exists() and any(p.suffix == ".json" for p in kept.iterdir()))
    first.send_signal(signal.SIGKILL)
    assert first.wait() == -signal.SIGKILL
    finished = project.records()
    assert finished and set(finished) < set(undisturbed)
    assert audit("none", 2, root=project.root) == 0
    assert project.records() == undisturbed
    assert [p for p in project.root.rglob("*.tmp") if "running" not in p.parts] == []


def test_two_audits_at_once_do_not_disturb_each_other(project: Any) -> None:
    for name in ("c1", "c2", "c3"):
        project.write_claim(name, sleep=0.2)
    both = [_start(project), _start(project)]
    assert [process.wait() for process in both] == [0, 0]
    assert sorted(project.records()) == ALL
    for name in ALL:
        read_record(project.root / "out" / "records" / name)
    assert audit("none", 2, root=project.root) == 0


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_it_keeps_what_is_finished(project: Any, how: signal.Signals) -> None:
    project.write_claim("c1")
    for name in ("c2", "c3"):
        project.write_claim(name, sleep=60)
    process = _start(project)
    _wait_for(lambda: {"claims/toy/c1.json", "sims/coin.json"} <= set(project.records()))

    process.send_signal(how)
    assert process.wait(30) == 3
    assert "claims/toy/c1.json" in project.records()


def test_a_difference_from_the_first_audit_is_named_without_git(
    project: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    audit("none", 2, root=project.root)
    shutil.rmtree(project.root / ".cache")
    project.write_claim("c2", status="proved_within")
    capsys.readouterr()
    assert audit("none", 2, root=project.root) == 1
    said = capsys.readouterr().out
    assert 'DIFFERENT    claims/toy/c2.json: verdicts[0].status: "proved" -> "proved_within"' in said
    assert "complete: 5 items, 1 differences" in said


def _git(project: Any, *words: str) -> None:
    who = ["-c", "user.name=someone", "-c", "user.email=someone@example.org"]
    subprocess.run(["git", "-C", str(project.root), *who, *words], check=True, capture_output=True)


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_in_a_git_checkout_the_committed_records_are_the_baseline(
    project: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    audit("none", 2, root=project.root)
    _git(project, "init", "-q")
    _git(project, "add", "out", "theory", "sims")
    _git(project, "commit", "-q", "-m", "records")
    project.write_claim("c2", status="proved_within")
    project.write_claim("c9")
    capsys.readouterr()
    assert audit("none", 2, root=project.root) == 1
    said = capsys.readouterr().out
    assert "claims/toy/c2.json: verdicts[0].status" in said
    assert "information  records not committed yet: 1 (claims/toy/c9.json)" in said
    _git(project, "add", "out")
    _git(project, "commit", "-q", "-m", "records again")
    assert audit("none", 2, root=project.root) == 0


def test_a_search_that_went_another_way_is_shown_and_does_not_fail(
    project: Any, claim: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    audit("none", 2, root=project.root)
    shutil.rmtree(project.root / ".cache")
    evidence = claim["verdicts"][0]["evidence"]
    project.write_claim("c1", evidence=evidence | {"search": {"tried": 101, "best_ratio": 0.5}})
    capsys.readouterr()
    assert audit("none", 2, root=project.root) == 0
    assert "information  claims/toy/c1.json: verdicts[0].evidence.search.tried" in capsys.readouterr().out


def test_a_failed_item_is_named_with_its_last_line(project: Any, capsys: pytest.CaptureFixture[str]) -> None:
    project.write_claim("c2", complaint="the certificate fails")
    assert audit("none", 2, root=project.root) == 1
    said = capsys.readouterr().out
    assert "FAILED       toy/c2: exit 1: the certificate fails" in said
    assert "not complete: 4 of 5 items, 1 failed" in said


def test_an_item_that_writes_nothing_has_failed(project: Any, capsys: pytest.CaptureFixture[str]) -> None:
    (project.root / "sims" / "coin.py").write_text("AUDIT = [[]]\n")
    assert audit("none", 2, root=project.root) == 1
    assert "sims/coin: ended well but wrote no record" in capsys.readouterr().out


def test_two_items_that_write_one_record_are_named(project: Any, capsys: pytest.CaptureFixture[str]) -> None:
    file = project.root / "sims" / "coin.py"
    (project.root / "sims" / "medal.py").write_text(
        file.read_text().replace("AUDIT =", "AUDIT = [[]]\nOTHER =")
    )
    assert audit("none", 1, root=project.root) == 1
    assert "sims/medal: writes sims/coin.json, which sims/coin writes too" in capsys.readouterr().out


def test_the_number_of_processes_changes_no_record(project: Any) -> None:
    audit("none", 1, root=project.root)
    one = project.records()
    shutil.rmtree(project.root / ".cache")
    shutil.rmtree(project.root / "out")
    (project.root / "out").mkdir()
    audit("none", 3, root=project.root)
    assert project.records() == one


def test_a_broken_record_stops_the_audit_before_it_starts(
    project: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    path = record_path("claims", "toy/c1")
    path.parent.mkdir(parents=True)
    path.write_text('{"schema": 1')
    assert audit("none", 2, root=project.root) == 2
    error = capsys.readouterr().err.strip()
    assert "truncated" in error and str(path) in error and "\n" not in error
    assert path.read_text() == '{"schema": 1' and list(project.records()) == ["claims/toy/c1.json"]


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ({"budget": "soon"}, "budget must look like"),
        ({"jobs": 0}, "jobs must be at least 1"),
        ({"only": "nothing like this"}, "no item matches"),
    ],
)
def test_bad_input_is_one_line(
    project: Any, capsys: pytest.CaptureFixture[str], arguments: dict[str, Any], word: str
) -> None:
    assert audit(**{"jobs": 1, **arguments}, root=project.root) == 2
    error = capsys.readouterr().err.strip()
    assert word in error and "\n" not in error


def test_a_cache_that_cannot_be_written_is_one_line(project: Any, capsys: pytest.CaptureFixture[str]) -> None:
    (project.root / ".cache").write_text("a file where a folder belongs\n")
    assert audit("none", 1, root=project.root) == 2
    error = capsys.readouterr().err.strip()
    assert ".cache" in error and "\n" not in error


def test_claims_that_cannot_be_listed_are_one_line(project: Any, capsys: pytest.CaptureFixture[str]) -> None:
    (project.root / "theory" / "registry.py").write_text("raise ValueError('two claims share an id')\n")
    assert audit("none", 1, root=project.root) == 2
    assert "two claims share an id" in capsys.readouterr().err


def test_the_first_item_is_a_claim_and_kinds_are_mixed(project: Any) -> None:
    from reports.cache import Cache, in_order

    items = in_order(find_items(project.root), Cache(project.root / ".cache", project.root))
    assert [item.kind for item in items] == ["claims", "sims", "claims", "claims", "sims"]


def test_a_simulator_must_declare_its_runs_as_texts(project: Any) -> None:
    (project.root / "sims" / "coin.py").write_text("AUDIT = [['--seeds', 3]]\n")
    with pytest.raises(RecordError, match="list of lists of texts"):
        find_items(project.root)


def test_items_are_chosen_by_part_or_pattern(project: Any) -> None:
    items = find_items(project.root)
    assert len(select(items, "coin")) == 2
    assert [item.name for item in select(items, "toy/c[12]")] == ["toy/c1", "toy/c2"]
    assert len(select(items, None)) == 5


def test_budgets_are_read() -> None:
    assert [parse_budget(text) for text in ("90s", "15m", "2h", "7", "none")] == [90, 900, 7200, 7, None]


def test_every_item_of_this_checkout_has_a_source() -> None:
    from reports.cache import Cache
    from reports.items import checkout

    cache = Cache(Path(os.devnull), checkout())
    items = find_items(checkout())
    assert len({item.name for item in items}) == len(items)
    assert all(len(cache.key(item)) == 64 for item in items)


def test_a_long_item_is_left_when_the_budget_cannot_hold_it(tmp_path: Any) -> None:
    from reports.audit import _next
    from reports.cache import Cache

    cache = Cache(tmp_path, tmp_path)
    long = Item("llm run long", "llm", (), (), expected=900.0)
    short = Item("llm run short", "llm", (), (), expected=100.0)
    waiting = [(long, "a"), (short, "b")]
    now = time.monotonic()
    assert _next(waiting, cache, None) == 0, "without a limit everything is started"
    assert _next(waiting, cache, now + 1000) == 0
    assert _next(waiting, cache, now + 300) == 1, "the shorter one behind it still fits"
    assert _next(waiting, cache, now + 80) is None
