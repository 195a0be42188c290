"""Records on disk: what is written is read back, and nothing else is believed."""

from __future__ import annotations

import json
import multiprocessing
import os
import platform
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from reports import store
from reports.store import RecordError, read_record, record_path, write_record

Record = dict[str, Any]


@pytest.fixture
def path(out: Path) -> Path:
    return record_path("claims", "toy/square_is_convex")


def test_a_record_is_read_back_as_written(path: Path, claim: Record) -> None:
    write_record(path, claim)
    read = read_record(path)
    assert {n: v for n, v in read.items() if n not in ("schema", "digest")} == claim
    assert read["schema"] == store.SCHEMA
    assert read["digest"] == store.digest_of(read)


def test_writing_what_was_read_changes_no_byte(path: Path, claim: Record) -> None:
    write_record(path, claim)
    before = path.read_bytes()
    write_record(path, read_record(path))
    assert path.read_bytes() == before


def test_records_of_simulations_are_read_back(out: Path, simulation: Record) -> None:
    path = record_path("sims", "coin")
    write_record(path, simulation)
    assert read_record(path)["table"] == simulation["table"]


def test_importing_the_store_needs_the_standard_library_alone() -> None:
    root = Path(store.__file__).parents[1]
    code = f"import sys; sys.path.insert(0, {str(root)!r}); import reports.store"
    subprocess.run([sys.executable, "-I", "-S", "-c", code], check=True)


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _binary(path: Path) -> None:
    path.write_bytes(b"\xff\xfe\x00")


def _foreign(path: Path) -> None:
    path.write_text('{"name": "package", "version": "1.0"}')


def _a_list(path: Path) -> None:
    path.write_text("[1, 2]")


def _newer(path: Path) -> None:
    record = json.loads(path.read_text()) | {"schema": store.SCHEMA + 1}
    path.write_text(json.dumps(record | {"digest": store.digest_of(record)}))


def _edited(path: Path) -> None:
    path.write_text(path.read_text().replace('"proved"', '"refuted"'))


def _not_a_number(path: Path) -> None:
    path.write_text(path.read_text().replace('"seed": 0', '"seed": NaN'))


def _renamed(path: Path) -> None:
    record = json.loads(path.read_text()) | {"id": "toy/another"}
    path.write_text(json.dumps(record | {"digest": store.digest_of(record)}))


CORRUPTIONS = [
    (_truncate, "truncated"),
    (_empty, "truncated"),
    (_binary, "not UTF-8"),
    (_foreign, "foreign"),
    (_a_list, "foreign"),
    (_newer, "newer"),
    (_edited, "edited by hand"),
    (_not_a_number, "NaN"),
    (_renamed, "id must be"),
]


@pytest.mark.parametrize(("corrupt", "word"), CORRUPTIONS, ids=[c.__name__[1:] for c, _ in CORRUPTIONS])
def test_a_corrupted_record_is_named_and_never_overwritten(
    path: Path, claim: Record, corrupt: Any, word: str
) -> None:
    write_record(path, claim)
    corrupt(path)
    left = path.read_bytes()
    for action in (lambda: read_record(path), lambda: write_record(path, claim)):
        with pytest.raises(RecordError) as caught:
            action()
        message = str(caught.value)
        assert word in message and str(path) in message and "\n" not in message
    assert path.read_bytes() == left


def test_a_missing_record_is_named(path: Path) -> None:
    with pytest.raises(RecordError, match="cannot be read"):
        read_record(path)


def _set(record: Record, place: list[Any], value: Any) -> None:
    for step in place[:-1]:
        record = record[step]
    record[place[-1]] = value


INVALID = [
    (["verdicts"], [], "at least one reading"),
    (["headline"], None, "headline must be str"),
    (["uses"], [1], "claim ids"),
    (["verdicts", 0, "status"], "true", "status must be one of"),
    (["verdicts", 0, "certificate"], None, "certificate is missing"),
    (["verdicts", 0, "controls"], [{"variant": "x", "kind": "maybe", "refuted": True}], "true or false"),
    (["verdicts", 0, "repair"], {"statement": "x"}, "repair.status is missing"),
    (["settings", "x"], float("nan"), "finite"),
    (["settings", "x"], float("inf"), "finite"),
    (["settings", "x"], 1j, "complex"),
    (["settings", "x"], Fraction(1, 2), '"p/q"'),
    (["settings", "x"], {1: 2}, "text keys"),
    (["settings", "file"], "see /home/someone/data.json", "absolute path"),
    (["settings", "file"], "C:\\Users\\someone", "absolute path"),
    (["settings", "hostname"], "x", "times and machines"),
    (["settings", "seconds"], 3.0, "times and machines"),
    (["schema"], 99, "schema must be"),
]


@pytest.mark.parametrize(("place", "value", "word"), INVALID, ids=[f"{p[-1]}-{w}" for p, _, w in INVALID])
def test_an_invalid_record_is_not_written(
    path: Path, claim: Record, place: list[Any], value: Any, word: str
) -> None:
    _set(claim, place, value)
    with pytest.raises(RecordError) as caught:
        write_record(path, claim)
    assert word in str(caught.value) and "\n" not in str(caught.value)
    assert not path.exists()


def test_the_name_of_the_machine_is_refused(
    path: Path, claim: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platform, "node", lambda: "node-17.example")
    claim["settings"]["note"] = "made on node-17.example"
    with pytest.raises(RecordError, match="name of this machine"):
        write_record(path, claim)


def test_latex_and_fractions_are_not_taken_for_paths(path: Path, claim: Record) -> None:
    claim["settings"]["note"] = r"S:\mathbb{R} 1/2 a/b \frac{x}/run/ and/or"
    write_record(path, claim)


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write everywhere")
def test_an_unwritable_folder_is_named(path: Path, claim: Record, out: Path) -> None:
    out.chmod(0o500)
    with pytest.raises(RecordError, match="cannot be written"):
        write_record(path, claim)


def test_a_file_in_the_place_of_a_folder_is_named(path: Path, claim: Record, out: Path) -> None:
    (out / "records").write_text("")
    with pytest.raises(RecordError, match="cannot be written"):
        write_record(path, claim)


def test_names_that_leave_the_folder_are_refused(out: Path) -> None:
    for kind, name in (("claims", "../x"), ("claims", "/x"), ("other", "x"), ("claims", "")):
        with pytest.raises(RecordError):
            record_path(kind, name)


def _write_many(path: Path, record: Record, times: int) -> None:
    for _ in range(times):
        write_record(path, record)


def test_two_writers_never_leave_a_broken_record(path: Path, claim: Record) -> None:
    claim["settings"]["rows"] = [[str(i * j) for i in range(30)] for j in range(30)]
    others = [claim | {"headline": text} for text in ("first", "second")]
    write_record(path, claim)
    spawn = multiprocessing.get_context("spawn")
    writers = [spawn.Process(target=_write_many, args=(path, record, 50)) for record in others]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        read_record(path)
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    assert read_record(path)["headline"] in ("first", "second")
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_a_writer_killed_at_any_moment_leaves_a_whole_record(path: Path, claim: Record) -> None:
    claim["settings"]["rows"] = [[str(i * j) for i in range(30)] for j in range(30)]
    write_record(path, claim)
    before = read_record(path)
    spawn = multiprocessing.get_context("spawn")
    for pause in (0.0, 0.003, 0.01):
        writer = spawn.Process(target=_write_many, args=(path, claim | {"headline": "other"}, 10**6))
        writer.start()
        while writer.is_alive() and read_record(path) == before:
            time.sleep(0.001)
        time.sleep(pause)
        writer.kill()
        writer.join()
        assert read_record(path)["headline"] == "other"
        write_record(path, claim)
    assert list(store.iter_record_paths()) == [path]


def test_the_sidecar_names_versions_and_no_machine(path: Path, claim: Record) -> None:
    write_record(path, claim)
    store.write_run(path, 1.5)
    run = json.loads(store.run_path(path).read_text())
    assert run["seconds"] == 1.5 and run["cores"] >= 1 and run["packages"]["numpy"]
    assert platform.node() not in store.run_path(path).read_text() or len(platform.node()) < 4
    assert list(store.iter_record_paths()) == [path]


def test_matrices_keep_their_rows_on_a_line() -> None:
    matrix = [[str(i) for i in range(12)] for _ in range(12)]
    lines = store.pretty({"A": matrix}).splitlines()
    assert sum(line.count("[") == 1 and line.rstrip(",").endswith("]") for line in lines) >= 12
    assert json.loads("\n".join(lines)) == {"A": matrix}
