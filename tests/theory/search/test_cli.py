"""The commands falsify and new: exit statuses, certificates, faults named with their line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from theory.search import cli

GOOD = """
from theory.protocol import Instance

DIMS = [{"n": 1}, {"n": 2}]

def free(d):
    return {"A": (d["n"], d["n"]), "B": (d["n"], d["n"])}

def build(k, t, d):
    return Instance(A=t.A, B=t.B)

def statement(k, x):
    k.claim("commute", k.eq(x.A @ x.B, x.B @ x.A))
"""


@pytest.fixture
def run():
    app = typer.Typer()
    cli.register(app)

    def invoke(*arguments: str):
        return CliRunner().invoke(app, [str(a) for a in arguments])

    return invoke


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "stranger.py"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_stranger_s_false_lemma_is_refuted(run, tmp_path):
    result = run("falsify", written(tmp_path, GOOD), "--json", "--jobs", "1")
    assert result.exit_code == 1, result.output
    report = json.loads(result.stdout)
    assert report["found"]["sizes"] == {"n": 2}
    assert report["found"]["breaks"] == ["commute"]


def test_a_true_lemma_ends_with_zero_and_the_template_is_one(run, tmp_path):
    path = tmp_path / "mine.py"
    assert run("new", path).exit_code == 0
    result = run("falsify", path, "--budget", "3000", "--jobs", "1")
    assert result.exit_code == 0, result.output
    assert "no counterexample in" in result.output
    assert run("new", path).exit_code == 2  # never overwrites


def test_a_claim_of_the_project_can_be_searched_by_its_reading(run):
    import theory.s2ft.lemma_f14_left as claim

    result = run(
        "falsify", claim.__file__, "--reading", "as printed]", "--budget", "4000", "--jobs", "1", "--json"
    )
    assert result.exit_code == 1, result.output


def test_the_report_can_be_written_to_a_file(run, tmp_path):
    out = tmp_path / "report.json"
    run("falsify", written(tmp_path, GOOD), "--out", out, "--jobs", "1")
    assert json.loads(out.read_text(encoding="utf-8"))["found"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("def free(d:\n", "line 1"),
        ("import nothing_of_that_name\n", "line 1: ModuleNotFoundError"),
        ("DIMS = [{}]\n", "free, build, statement missing"),
        (GOOD.replace('[{"n": 1}, {"n": 2}]', "3"), "DIMS must be a list of dicts"),
        (GOOD.replace("x.B @ x.A)", "x.C @ x.A)"), "line 13: AttributeError: the instance has no 'C'"),
        (GOOD.replace('(d["n"], d["n"]), "B"', '(d["n"],), "B"'), "must map names to shapes"),
        (GOOD.replace("    k.claim", "    pass  # k.claim"), "makes no claim"),
        ("raise SystemExit(5)\n", "line 1: SystemExit: 5"),
    ],
)
def test_a_faulty_file_is_one_line_on_standard_error(run, tmp_path, text, said):
    result = run("falsify", written(tmp_path, text))
    assert result.exit_code == 2
    assert said in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert "Traceback" not in result.output


def test_a_missing_file_and_an_unknown_reading_are_bad_input(run, tmp_path):
    assert run("falsify", tmp_path / "none.py").exit_code == 2
    result = run("falsify", written(tmp_path, GOOD), "--reading", "nothing")
    assert result.exit_code == 2
    assert "no statement named like" in result.stderr


def test_an_interrupted_search_prints_what_it_has_and_ends_with_three(run, tmp_path):
    text = GOOD.replace("def statement(k, x):", "calls = []\n\ndef statement(k, x):\n    calls.append(1)")
    text = text.replace("x.A @ x.B, x.B @ x.A", "x.A + x.B, x.B + x.A")
    text += "    if len(calls) > 100:\n        raise KeyboardInterrupt\n"
    result = run("falsify", written(tmp_path, text), "--jobs", "1", "--json")
    assert result.exit_code == 3
    report = json.loads(result.stdout)
    assert report["interrupted"]
    assert report["evaluations"] > 0


@pytest.mark.slow
def test_the_benchmarks_print_ratios_and_leave_a_record(run, tmp_path, monkeypatch):
    monkeypatch.setenv("PEFTPROOF_REPORTS", str(tmp_path))
    result = run("bench")
    assert result.exit_code == 0, result.output
    record = json.loads((tmp_path / "records" / "bench" / "theory.json").read_text(encoding="utf-8"))
    assert {row["task"] for row in record["exact"]} == {"projector", "rank", "inverse"}
    assert "times faster" in result.output


def test_the_default_budget_is_the_search_s_own():
    from inspect import signature

    from theory.search import DEFAULT_BUDGET

    assert signature(cli.falsify).parameters["budget"].default == DEFAULT_BUDGET
