"""The simulator's command line, its record, and that neither depends on the number of processes."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from reports import store
from sims import ood_report, ood_risk, ood_sections, parallel, present
from sims.networks import Task
from sims.ood_sections import Run

FAST = [
    "--seeds",
    "12",
    "--steps",
    "60",
    "--widths",
    "6,6,6",
    "--tuned",
    "1",
    "--rank",
    "2",
    "--residual-rank",
    "2",
]


@pytest.fixture
def reports(tmp_path, monkeypatch):
    monkeypatch.setenv(store.REPORTS_VARIABLE, str(tmp_path / "reports"))
    return tmp_path / "reports"


def only_record(reports):
    (path,) = [p for p in (reports / "records" / "sims").glob("*.json") if not p.name.endswith(".run.json")]
    return path


def run(arguments):
    return present.guarded(
        lambda: ood_risk.main(arguments), refused=(ood_risk.BadSetting, ood_risk.assets.AssetError)
    )


def test_same_seed_same_record_on_one_and_two_processes(reports):
    texts = []
    for jobs in ("1", "2"):
        assert run([*FAST, "--seeds", "150", "--jobs", jobs]) == 0
        texts.append(only_record(reports).read_text(encoding="utf-8"))
    assert texts[0] == texts[1]


def test_another_seed_gives_another_record(reports):
    run(FAST)
    first = json.loads(only_record(reports).read_text(encoding="utf-8"))
    run([*FAST, "--seed", "1"])
    names = sorted(p.name for p in (reports / "records" / "sims").glob("*.json") if ".run." not in p.name)
    assert len(names) == 2
    second = next(
        json.loads((reports / "records" / "sims" / n).read_text(encoding="utf-8"))
        for n in names
        if first["id"] not in n
    )
    assert [row["simulated"] for row in first["table"]] != [row["simulated"] for row in second["table"]]


def test_blocks_follow_from_the_problem_alone():
    one = ood_sections.blocks(Run(seeds=150, jobs=1), Task(), 1)
    two = ood_sections.blocks(Run(seeds=150, jobs=2), Task(), 1)
    assert [(b.index, b.size, b.part) for b in one] == [(b.index, b.size, b.part) for b in two]
    assert sum(b.size for b in one) == 150 and len(one) > 1
    assert parallel.block_sizes(5, 10**9) == [1] * 5


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    """The parts of the quick run with fewer seeds and steps, made once; written and read as a record."""
    run = Run(seeds=96, steps=(300, 2000))
    path = tmp_path_factory.mktemp("reports") / "records" / "sims" / "ood_risk-quick.json"
    store.write_record(path, ood_report.record("ood_risk-quick", run, Task(), quick=True, variants=False))
    return store.read_record(path)


def test_exact_means_lie_within_their_standard_errors(quick):
    """False-alarm rate: about 7e-6 for each of some 30 rows, were the seeds not fixed."""
    z = [row["z"] for row in quick["table"] if row["z"] is not None]
    assert len(z) > 20
    assert max(map(abs, z)) < present.UNLIKELY_Z
    assert 0.3 < np.sqrt(np.mean(np.square(z))) < 2  # and they do scatter as standard normals


def test_gradient_descent_reaches_the_closed_form_and_theory_names_the_winner(quick):
    rows = {(row["quantity"], row["setting"]): row for row in quick["table"]}
    for method in ("full", "LoRA", "S2FT"):
        row = rows[f"E_i({method})", "2000 steps"]
        assert row["simulated"] == pytest.approx(row["predicted"], abs=1e-6)
    told = [
        row
        for row in quick["table"]
        if row["quantity"] in ("winners predicted", "cells on the predicted side")
    ]
    assert len(told) == 2
    assert all(row["predicted"] == row["simulated"] > 50 for row in told)


def test_record_has_its_figures_and_no_bound_marked_repaired_is_broken(quick):
    names = {figure["name"] for figure in quick["figures"]}
    assert {"phase", "crossover", "samples", "training", "bounds-channels", "bounds-residual_rank"} <= names
    repaired = [b for b in quick["bounds"] if "repaired" in b["form"]]
    assert len(repaired) == 10
    assert not any(b["broken"] for b in repaired)


def test_phase_diagram_changes_colour_on_the_predicted_lines(quick):
    (figure,) = [f for f in quick["figures"] if f["name"] == "phase"]
    ratios, t = np.array(figure["y"]["values"]), np.array(figure["x"]["values"])
    z = np.array(figure["z"]["values"])
    far = np.abs(np.outer(ratios - 1, 1 - 2 * t)) > 0.1
    assert far.sum() > 20
    assert (np.sign(z) == np.sign(np.outer(ratios - 1, 1 - 2 * t)))[far].all()


def test_wrong_law_would_be_noticed():
    """The control of the z rows: gain and movement of S2FT changed by 5%."""
    got = ood_sections.compute(ood_sections.population, Run(seeds=192, steps=(1000,)), Task(), 1)
    task = replace(Task(), alignment=0.0)
    honest = ood_report.winner_rows(task, got)[0]
    got["S2FT.movement"] = 1.1 * got["S2FT.movement"]
    false = ood_report.winner_rows(task, got)[0]
    assert abs(honest["z"]) < present.UNLIKELY_Z < abs(false["z"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--seeds", "1"], "seeds must be at least 2"),
        (["--jobs", "0"], "jobs must be at least 1"),
        (["--steps", "0"], "steps must be at least 1"),
        (["--seed", "-1"], "seed must be at least 0"),
        (["--rank", "99"], "rank must satisfy 1 <= rank <= 16; got 99"),
        (["--rank", "0"], "rank must satisfy"),
        (["--widths", "16,x"], "must be sizes with commas between"),
        (["--noise", "nan"], "noise must satisfy"),
        (["--seeds", "many"], "invalid int value"),
        (["--unreachable", "0.5", "--seeds", "4"], "unreachable must be 0"),
        (["--weights", "bert"], "invalid choice"),
        (["--weights", "minilm", "--encoder-layer", "6"], "0 <= encoder-layer <= 5; got 6"),
        (["--weights", "minilm", "--rank", "0"], "rank must satisfy"),
        (["--weights", "minilm", "--decay", "1"], "decay has no effect with --weights minilm"),
        (["--encoder-layer", "2"], "encoder-layer has no effect with --weights random"),
    ],
)
def test_bad_input_is_one_line_and_exit_status_2(arguments, message, capsys, reports):
    try:
        status = run(arguments)
    except SystemExit as stop:
        status = stop.code
    captured = capsys.readouterr()
    assert status == 2
    assert message in captured.err and captured.err.count("\n") == 1
    assert not reports.exists()


def test_missing_weights_name_the_command(capsys, reports, monkeypatch, tmp_path):
    monkeypatch.setenv("PEFTPROOF_CACHE", str(tmp_path / "empty"))
    assert run(["--weights", "minilm"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "assets.py fetch" in error


def test_cuda_is_refused_where_there_is_none(capsys, reports):
    torch = pytest.importorskip("torch", reason="torch comes with the extra 'sim'")
    if torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    assert run(["--device", "cuda"]) == 2
    assert "use --device cpu" in capsys.readouterr().err


@pytest.mark.gpu
def test_cuda_gives_what_the_cpu_gives():
    torch = pytest.importorskip("torch", reason="torch comes with the extra 'sim'")
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    small = Run(seeds=20, steps=(100, 500))
    task = Task()
    cpu, gpu = (
        ood_sections.compute(ood_sections.population, replace(small, device=d), task, 1)
        for d in ("cpu", "cuda")
    )
    np.testing.assert_allclose(gpu["LoRA.curve"], cpu["LoRA.curve"], atol=1e-9)


def test_interruption_leaves_no_record(reports, capsys, monkeypatch):
    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(ood_risk.ood_report, "record", interrupted)
    assert run(["--quick"]) == 3
    assert not reports.exists()


def test_custom_settings_have_names_of_their_own():
    name = {
        tuple(a): ood_risk.record_name(ood_risk.parser().parse_args(a))
        for a in ([], ["--quick"], ["--jobs", "7"], ["--decay", "1"])
    }
    assert name[()] == name["--jobs", "7"] == "ood_risk"
    assert name["--quick",] == "ood_risk-quick"
    assert name["--decay", "1"].startswith("ood_risk-") and name["--decay", "1"] != "ood_risk-quick"


def test_numbers_of_a_record_hide_rounding_and_refuse_what_is_not_finite():
    assert present.number(1e-17) == 0.0
    assert present.number(float("nan")) is None and present.number(math.inf) is None
    assert present.number(np.int64(3)) == 3 and present.number(1 / 3) == 0.333333333333


def test_help_teaches(capsys):
    with pytest.raises(SystemExit) as stop:
        ood_risk.main(["--help"])
    text = capsys.readouterr().out
    assert stop.value.code == 0
    assert "Bo = W + t D + Z" in text and "--weights minilm" in text
