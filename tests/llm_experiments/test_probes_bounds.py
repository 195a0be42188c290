"""Bounds on numbers small enough to compute by hand, and on a run."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from llm_experiments.data import Item, Split
from llm_experiments.learner import Predictions
from llm_experiments.probes.bounds import (
    bound_values,
    clipped,
    largest_input,
    layer_norms,
    measured_gap,
    model_bounds,
    table,
    trained_numbers,
)
from theory.registry import claim_ids

SMALL = {"trained": 8, "total": 32, "samples": 1000, "bits": 2, "loss_range": 1.0, "input_norm": 0.5}
NORMS = [(2.0, 1.0), (3.0, 0.5)]


def test_every_bound_by_hand():
    found = bound_values(**SMALL, norms=NORMS, loss_lipschitz=2.0, start_gap=0.25)
    information = math.sqrt(2 * 0.25 * 2 * 8 * math.log(2) / 1000)
    start = 2 * 2 * 0.5 * (3 * 3.5 - 2 * 3)  # 2 Lip C (prod (w + d) - prod w)
    update = 2 * 2 * 0.5 * (3 * 3.5 - 1 * 0.5)
    expected = {
        "information": information,
        "table_1": information + update,
        "around_start": 0.25 + start,
        "start_printed": math.sqrt((3 * math.log(1000 / 0.05) + 8) / 1000) + start,
        "start_hoeffding": math.sqrt(math.log(1 / 0.05) / 2000) + start,
        "rate_full": math.sqrt(32 / 1000),
        "rate_tuned": math.sqrt(8 / 1000),
        "capacity_sharp": 3 * 3.5 / 6 - 1,
        "capacity_printed": (3 * 1 + 0.5) / 6,  # sum M^(N - k) phi_k over prod m_k
    }
    assert {name: bound.value for name, bound in found.items()} == pytest.approx(expected)
    assert {name for name, bound in found.items() if bound.vacuous} == {
        "table_1",
        "around_start",
        "start_printed",
        "start_hoeffding",
    }
    assert found["information"].applies.startswith("yes")
    assert all(bound.of == ("output" if "capacity" in name else "gap") for name, bound in found.items())


def test_an_untrained_model_moves_nothing():
    found = bound_values(**SMALL, norms=[(2.0, 0.0), (3.0, 0.0)])
    assert found["around_start"].value == found["capacity_sharp"].value == 0
    assert found["around_start"].log10 is None and not found["capacity_sharp"].vacuous
    assert found["table_1"].vacuous, "as printed it grows with the pretrained weights"


def test_values_beyond_floats_are_told():
    found = bound_values(**SMALL, norms=[(1e4, 1e3)] * 100)
    assert found["table_1"].vacuous and found["table_1"].value == math.inf
    assert math.isfinite(found["capacity_sharp"].log10)
    row = {row["name"]: row for row in table(found, 0.1)}
    assert row["table_1"]["overflow"] and row["table_1"]["log10"] is None
    assert row["information"]["decades"] == pytest.approx(math.log10(found["information"].value / 0.1))
    assert row["capacity_sharp"]["measured"] is None
    assert found["information"].decades(-0.1) is None


@pytest.mark.parametrize(
    ("changes", "words"), [({"samples": 0}, "samples must be positive"), ({"delta": 0.5}, "0 < delta < 1/2")]
)
def test_bad_numbers_are_refused(changes, words):
    with pytest.raises(ValueError, match=words):
        bound_values(**{**SMALL, "norms": NORMS, **changes})


def test_claims_exist():
    known = set(claim_ids())
    assert {bound.claim for bound in bound_values(**SMALL, norms=NORMS).values()} <= known


def test_the_clipped_loss_of_labels_and_answers():
    items = [Item((1,), 1, label, None, None) for label in (0, 1)]
    probabilities = np.log(np.array([[0.5, 0.5], [0.99, 0.01]]))
    assert clipped(Predictions({}, {"log_probs": probabilities}), Split(items)) == pytest.approx(
        [math.log(2), 2]
    )
    answers = {"answer_nats": np.array([3.0, 30.0]), "answer_tokens": np.array([3, 3])}
    assert clipped(Predictions({}, answers), Split(items), cap=4.0) == pytest.approx([1, 4])


@pytest.mark.parametrize("model", ["tiny_bert", "tiny_llama"])
def test_a_run(model, run_of):
    run, alone = (run_of("lora", steps=3, model=model, cached_lower=1) for _ in range(2))
    evaluation = run.evaluate(3, None)
    measured = measured_gap(run, evaluation)
    assert measured["gap"] == pytest.approx(measured["test"] - measured["train"])
    assert 0 <= measured["train"] <= 2 and measured["stderr"] > 0
    found = model_bounds(run, start_gap=0.1)
    assert found["information"].value > measured["gap"] + 3 * measured["stderr"]
    assert found["rate_tuned"].value < found["rate_full"].value
    assert len(table(found, measured["gap"])) == len(found)
    assert run.step(3) == alone.step(3)
    with pytest.raises(ValueError, match="test must be one of"):
        measured_gap(run, evaluation, test="elsewhere")


def test_norms_and_inputs(run_of):
    before, after = {"a": torch.diag(torch.tensor([3.0, 1.0]))}, {"a": torch.diag(torch.tensor([3.0, 5.0]))}
    assert layer_norms(before, after) == [pytest.approx((3.0, 4.0))]
    run = run_of("lora", steps=0, model="tiny_bert", cached_lower=1)
    states = run.splits["train"].states
    expected = max(float(states[i].norm(dim=1).max()) for i in range(run.train_count))
    assert largest_input(run) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("method", "sets"), [("lora", 1), ("cola", 2), ("peso_lora_r", 3), ("c3la", 2)])
def test_all_links_of_a_chain_are_counted(method, sets, run_of):
    """Three steps, a link of two: one has ended. Table 1 counts k r (m + n) numbers."""
    run = run_of(method, steps=3, budget="5%")
    assert trained_numbers(run) == sets * run.tuned.counted()
    assert trained_numbers(run_of("full", steps=0, options={"embeddings": False})) == run.tuned.blocks_total


def test_a_selection_by_the_data_is_told(run_of):
    run = run_of("s2ft_g:largest", steps=1)
    assert model_bounds(run)["information"].applies.startswith("no: training data chose")
