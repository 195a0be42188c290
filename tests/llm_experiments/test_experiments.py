"""Every experiment runs from prediction to record, and differences are judged as they should be."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from llm_experiments import experiments
from llm_experiments.__main__ import main
from llm_experiments.errors import UserError
from llm_experiments.experiments.lab import Lab, better_than_default
from llm_experiments.experiments.ood_forgetting import at_loss
from llm_experiments.experiments.row import Design, Prediction, Row, Sheet
from llm_experiments.experiments.statistics import (
    contrast,
    holm,
    items_interval,
    outcome,
    rank_correlation_interval,
)
from llm_experiments.experiments.tiers import RATE_FACTORS
from llm_experiments.experiments.trial import Trial, finished, perform, probed
from reports import store


@pytest.fixture(scope="session")
def smoke(tmp_path_factory):
    """One cache for all rows of a session, as on a command line: rows share trainings."""
    return tmp_path_factory.mktemp("experiments")


@pytest.fixture
def folders(smoke, monkeypatch):
    monkeypatch.setenv(store.REPORTS_VARIABLE, str(smoke / "reports"))
    return smoke


@pytest.mark.parametrize("name", experiments.NAMES)
def test_every_row_runs_in_smoke(name, folders, capsys):
    assert main(["run", name, "--tier", "smoke", "--jobs", "1"]) == 0
    record = store.read_record(store.record_path("llm", f"{name}/smoke"))
    row = experiments.get(name)
    assert [score["name"] for score in record["predictions"]] == [p.name for p in row.predictions]
    assert {score["outcome"] for score in record["predictions"]} <= {"agrees", "contradicts", "undecided"}
    assert record["predictions_digest"] == row.digest
    assert record["tables"] and record["figures"], "a reader gets a table and a figure"
    announced = capsys.readouterr().err.splitlines()[0]
    assert announced.startswith(f"{name}, smoke") and "processor time" in announced


@pytest.mark.parametrize("name", experiments.NAMES)
def test_every_row_says_what_it_predicts_and_from_where(name):
    from theory.registry import registered

    row = experiments.get(name)
    assert set(row.designs) == {"smoke", "cpu", "gpu"}
    assert len({p.name for p in row.predictions}) == len(row.predictions) >= 1
    for prediction in row.predictions:
        assert prediction.source
        assert bool(prediction.about) == bool(prediction.sign), prediction.name
        assert set(prediction.claims) <= set(registered()), prediction.name


def test_the_cpu_tier_stays_under_200_core_minutes():
    assert sum(experiments.get(name).designs["cpu"].seconds for name in experiments.NAMES) < 200 * 60


def test_a_finished_training_is_not_repeated_and_a_repeat_is_bitwise_the_same(folders):
    lab = Lab("smoke", jobs=1)
    trial = lab.trial("main", "s2ft_r", probes=("far", "spectra"), marks=(2,), keep="state", seed=7)
    first = lab.results([trial])[0].body
    stamp = (trial.folder / "result.json").stat().st_mtime_ns
    assert lab.results([trial])[0].body == first
    assert (trial.folder / "result.json").stat().st_mtime_ns == stamp
    perform(trial)
    again = finished(trial).body
    assert {k: v for k, v in again.items() if k != "cpu_seconds"} == {
        k: v for k, v in first.items() if k != "cpu_seconds"
    }


def test_a_probe_taken_later_finds_what_it_would_have_found_at_once(folders):
    lab = Lab("smoke", jobs=1)
    trial = lab.trial("main", "lora", probes=("spectra",), keep="state", seed=8)
    result = lab.results([trial])[0]
    assert probed(trial, "spectra") == result.probe("spectra")


def test_what_a_model_cannot_take_is_a_result_with_its_reason(folders):
    lab = Lab("smoke", jobs=1)
    result = lab.results([Trial(lab.settings("decoder", "bitfit"))])[0]
    assert "bias" in result.failure


def test_rates_are_chosen_by_validation_loss_on_one_grid(folders):
    lab = Lab("smoke", jobs=1)
    chosen = lab.choose_rates("main", ("lora", "s2ft_r", "s2ft_w:largest"))
    assert chosen["s2ft_w:largest"] == chosen["s2ft_r"], "selections share one choice"
    row = lab.rates["main", "lora", lab.bed().budget]
    assert row["chosen"] in {row["default rate"] * factor for factor in RATE_FACTORS}
    assert lab.settings("main", "lora").lr == row["chosen"]


def test_the_default_rate_stays_unless_validation_tells_another_one_apart():
    rng = np.random.default_rng(3)
    default = rng.normal(1.0, 0.5, 300)
    same = default - 0.001 + 0.1 * rng.normal(size=300)
    assert better_than_default({1e-3: same, 4e-3: default}, 4e-3) == 4e-3
    assert better_than_default({1e-3: default - 0.2, 4e-3: default}, 4e-3) == 1e-3, "a clear gain is taken"
    assert better_than_default({1e-3: same, 4e-3: None}, 4e-3) == 1e-3, "a default that diverged is not kept"
    assert better_than_default({1e-3: None, 4e-3: None}, 4e-3) == 4e-3


# --- judging ---------------------------------------------------------------------------------------


def test_a_clear_difference_agrees_or_contradicts_by_its_sign():
    rng = np.random.default_rng(0)
    base = rng.normal(size=(6, 300))
    better = base + 0.5 + 0.1 * rng.normal(size=(6, 300))
    found = contrast(list(better.mean(axis=1)), list(base.mean(axis=1)), (better, base))
    assert outcome(found, +1, found.p) == "agrees"
    assert outcome(found, -1, found.p) == "contradicts"


def test_seeds_that_disagree_or_items_that_disagree_leave_it_undecided():
    seeds = contrast([1.0, -1.0, 1.2, -0.9], [0.0] * 4)
    assert outcome(seeds, +1, seeds.p) == "undecided"
    each = np.tile([3.0, -2.9], (4, 20))  # the same in every seed, but not from item to item
    items = contrast(list(each.mean(axis=1) + [0, 1e-3, -1e-3, 0]), [0.0] * 4, (each, 0 * each))
    assert items.p < 0.05
    assert outcome(items, +1, items.p) == "undecided"


def test_one_seed_decides_nothing():
    found = contrast([1.0], [0.0])
    assert (found.seeds, outcome(found, +1, found.p)) == (None, "undecided")


def test_the_t_interval_covers_as_often_as_it_says():
    rng = np.random.default_rng(1)
    hits = 0
    for _ in range(2000):
        found = contrast(list(rng.normal(size=5)), [0.0] * 5)
        hits += abs(found.mean) <= found.seeds
    assert 0.935 < hits / 2000 < 0.965


def test_holm_is_monotone_and_bounded():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]


def test_intervals_over_items_hold_the_difference():
    rng = np.random.default_rng(2)
    truth = rng.normal(size=400)
    good, bad = (truth + noise * rng.normal(size=(3, 400)) for noise in (0.5, 3.0))
    low, high = rank_correlation_interval(good, bad, truth)
    assert 0 < low < high
    low, high = items_interval(good, good)
    assert low == high == 0


def test_forgetting_at_equal_loss_lies_between_the_marks():
    curve = [(1.0, 0.0), (0.6, 0.1), (0.2, 0.5)]
    assert at_loss(curve, 0.4) == pytest.approx(0.3)
    assert at_loss(curve, 1.0) == 0.0
    assert at_loss(curve, 0.2) == 0.5


# --- rows and sheets -------------------------------------------------------------------------------

TOY = Row(
    name="toy",
    source="nowhere",
    question="?",
    predictions=(Prediction("sign", "up", "nowhere", +1, about="a - b"), Prediction("fact", "so", "nowhere")),
    designs={"smoke": Design((), 1, 1)},
    run=lambda lab, sheet: None,
)


def test_a_sheet_wants_every_prediction_scored():
    sheet = Sheet(TOY, "smoke")
    sheet.fact("fact", True, "seen")
    with pytest.raises(ValueError, match="sign is missing"):
        sheet.body()
    sheet.score("sign", contrast([1.0, 1.1, 1.2], [0.0, 0.0, 0.0]))
    outcomes = [score["outcome"] for score in sheet.body()["predictions"]]
    assert outcomes == ["agrees", "agrees"]


def test_equality_needs_an_interval_inside_the_margin():
    found = contrast([0.001, -0.001, 0.0, 0.001], [0.0] * 4)
    for margin, verdict in ((0.1, "agrees"), (1e-4, "undecided")):
        sheet = Sheet(dataclasses.replace(TOY, predictions=TOY.predictions[1:]), "smoke")
        sheet.equal("fact", found, margin, "nats")
        assert sheet.body()["predictions"][0]["outcome"] == verdict


def test_changed_predictions_have_another_digest():
    changed = dataclasses.replace(TOY, predictions=(dataclasses.replace(TOY.predictions[0], sign=-1),))
    assert changed.digest != TOY.digest


# --- the command -----------------------------------------------------------------------------------


def test_a_plan_costs_nothing_and_says_what_it_would_cost(capsys):
    assert main(["run", "ood_forgetting", "--plan"]) == 0
    said = capsys.readouterr().err
    assert "6 seeds" in said and "processor time" in said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "ood_forgeting"], "did you mean ood_forgetting"),
        (["run", "all", "--tier", "huge"], "--tier must be one of smoke, cpu, gpu; got 'huge'"),
        (["run", "intruders", "--jobs", "-1"], "--jobs must not be negative; got -1"),
    ],
)
def test_bad_input_is_one_line(arguments, message, capsys):
    assert main(arguments) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ") and message in error


def test_the_list_shows_every_row(capsys):
    assert main(["run", "--list"]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in experiments.NAMES)


def test_an_unknown_row_is_a_user_error():
    with pytest.raises(UserError, match="known:"):
        experiments.get("qqqq")


def test_json_is_json(folders, capsys):
    assert main(["run", "robustness", "--tier", "smoke", "--jobs", "1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["id"] == "robustness/smoke"
