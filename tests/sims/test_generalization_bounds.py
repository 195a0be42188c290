"""Gaps known exactly: formulas against brute force, bounds that must hold seed by seed, the simulator's record."""

from __future__ import annotations

from fractions import Fraction
from itertools import product

import numpy as np
import pytest

from reports import store
from sims import bounded_network, generalization_bounds, present
from sims.bounded_network import ACTIVATIONS, METHODS, Cell, X
from theory.lora_variants import gap


def test_enumeration_by_counts_is_that_by_samples():
    """Every ordered sample of three atoms, one by one."""
    losses = [[Fraction(v, 4) for v in row] for row in ([0, 4, 2], [3, 1, 0], [2, 2, 2])]
    chances = [Fraction(1, 2), Fraction(1, 3), Fraction(1, 6)]

    def learner(counts):
        risks = [sum(c * v for c, v in zip(counts, row, strict=True)) for row in losses]
        return risks.index(min(risks))

    gap_there, taken = Fraction(0), [Fraction(0)] * 3
    for sample in product(range(3), repeat=4):
        chance = Fraction(1)
        for atom in sample:
            chance *= chances[atom]
        h = learner([sample.count(a) for a in range(3)])
        gap_there += chance * (gap.risk(losses[h], chances) - sum(losses[h][a] for a in sample) / 4)
        taken[h] += chance
    found, information = gap.enumerated(losses, chances, learner, 4)
    assert found == gap_there > 0
    assert information == pytest.approx(-sum(float(p) * np.log(float(p)) for p in taken if p))


@pytest.mark.parametrize("method", list(generalization_bounds.LEARNERS))
@pytest.mark.parametrize("samples", [2, 5])
def test_exact_gap_is_below_theorem_5_and_that_below_lemma_1(method, samples):
    losses, chances = generalization_bounds.ATOM_LOSSES, generalization_bounds.CHANCES
    assert sum(chances) == 1
    exact, information = gap.enumerated(
        losses, chances, lambda c: generalization_bounds.learn(method, c), samples
    )
    bits = gap.bits_bound(0.5, 2, len(generalization_bounds.LEARNERS[method]), samples)
    assert 0 < float(exact) < gap.information_bound(0.5, information, samples) < bits


def test_trained_numbers_are_those_of_table_1():
    shapes, r, k = ((8, 6), (2, 8)), 3, 4
    assert gap.trained_numbers("LoRA", shapes, r, k) == 3 * (14 + 10)
    assert gap.trained_numbers("CoLA", shapes, r, k) == 4 * 3 * (14 + 10)
    assert (
        gap.trained_numbers("Asym", shapes, r, k) == gap.trained_numbers("random-cLA", shapes, r, k) == 3 * 10
    )
    assert gap.trained_numbers("RAC", shapes, r, k) == gap.trained_numbers("c3LA", shapes, r, k) == 4 * 3 * 10
    assert gap.trained_numbers("full", shapes, r, k) == 48 + 16
    with pytest.raises(ValueError, match="method must be one of"):
        gap.trained_numbers("DoRA", shapes, r, k)


def test_least_squares_needs_enough_samples():
    assert gap.least_squares(2.0, 1, 4) == 2 * (1 / 4 + 1 / 2)
    with pytest.raises(ValueError, match="at least"):
        gap.least_squares(1.0, 3, 4)


@pytest.mark.parametrize("name", list(ACTIVATIONS))
def test_activations_have_their_slopes_and_constants(name):
    sigma = ACTIVATIONS[name]
    u = np.linspace(-3, 3, 61)
    slope = (sigma.value(u + 1e-6) - sigma.value(u - 1e-6)) / 2e-6
    np.testing.assert_allclose(sigma.slope(sigma.value(u)), slope, atol=1e-8)
    assert slope.max() == pytest.approx(sigma.lipschitz)


def test_population_gap_is_the_sum_over_inputs_and_labels():
    rng = np.random.default_rng(0)
    W, sigma = [rng.standard_normal((1, *shape)) for shape in bounded_network.SHAPES], ACTIVATIONS["tanh"]
    plus, minus = rng.integers(0, 3, (1, 256)), rng.integers(0, 3, (1, 256))
    chance = rng.uniform(size=(1, 256))
    true = seen = 0.0
    for i in range(256):
        f = (W[1][0] @ np.tanh(W[0][0] @ X[:, i]))[0]
        up, down = min(1, abs(f - 1) / 2), min(1, abs(f + 1) / 2)
        true += (chance[0, i] * up + (1 - chance[0, i]) * down) / 256
        seen += plus[0, i] * up + minus[0, i] * down
    expected = true - seen / (plus.sum() + minus.sum())
    assert bounded_network.gaps(W, sigma, plus, minus, chance)[0] == pytest.approx(expected)


def test_rounding_keeps_to_the_grid():
    values = bounded_network.rounded(np.random.default_rng(0).uniform(-3, 3, 20000))
    assert len(np.unique(values.round(9))) <= 2**bounded_network.BITS
    assert abs(values).max() == pytest.approx(bounded_network.LARGEST)


@pytest.mark.parametrize("name", ["full", "LoRA", "RAC", "c3LA"])
def test_training_lowers_the_error_and_cla_leaves_other_columns(name):
    cell = Cell(name, "logistic", 64, 40, 0, 0, 8)
    got = bounded_network.measure(cell)
    assert (got["gap"] != got["start"]).all() and got["gap"].mean() > got["start"].mean()
    rng = np.random.default_rng(1)
    W0 = [0.3 * rng.standard_normal((2, *shape)) for shape in bounded_network.SHAPES]
    plus = rng.integers(0, 2, (2, 256))
    tuned = bounded_network.tune(METHODS["cLA"], ACTIVATIONS["tanh"], W0, plus, 1 - plus, 20, rng)
    for before, after in zip(W0, tuned, strict=True):
        moved = np.abs(after - before).max(axis=(0, 1)) > bounded_network.LARGEST / 2**bounded_network.BITS
        assert not moved[bounded_network.RANK :].any()


@pytest.mark.parametrize("activation", list(ACTIVATIONS))
def test_repaired_theorem_1_holds_for_every_sample(activation):
    """|G(W0 + dW) - G(W0)| <= Phi_dW and the other branch, seed by seed, not only in the mean."""
    for method in ("full", "CoLA", "random-c3LA"):
        got = bounded_network.measure(Cell(method, activation, 16, 60, 0, 0, 32))
        phi = generalization_bounds.corrections(activation, got)
        assert (abs(got["gap"] - got["start"]) <= phi["w"]).all()
        assert (abs(got["gap"] - got["update"]) <= phi["d"]).all()


def test_looseness_is_told_only_of_a_clear_gap():
    rng = np.random.default_rng(0)
    noise, bound = rng.standard_normal(50) / 100, np.full(50, 1.0)
    row = generalization_bounds.bound_row(("tanh", "cLA", 9), "b", bound, noise - noise.mean() + 0.01)
    assert row["setting"] == "tanh; cLA, N = 9; 2.0 decades; vacuous"
    row = generalization_bounds.bound_row(("tanh", "cLA", 9), "b", bound / 2, noise - noise.mean())
    assert row["setting"] == "tanh; cLA, N = 9; gap not told from 0"
    row = generalization_bounds.bound_row(("tanh", "cLA", 9), "b", bound / 2, noise + 1)
    assert row["setting"].endswith("exceeded")


def test_quick_run(tmp_path, monkeypatch):
    """About 18 tested rows: |z| > 4.5 would have probability 1e-4."""
    monkeypatch.setenv(store.REPORTS_VARIABLE, str(tmp_path))
    generalization_bounds.main(["--quick", "--jobs", "1"])
    record = store.read_record(store.record_path("sims", "generalization_bounds-quick"))
    table = record["table"]
    assert present.worst_z(table) < present.UNLIKELY_Z
    assert sum(row["z"] is not None for row in table) >= 15
    bounds = [row for row in table if row["quantity"].startswith("bound") and "repaired" in row["quantity"]]
    assert bounds and all(row["predicted"] > row["simulated"] for row in bounds)
    assert len(record["figures"]) == 3


def test_one_and_two_processes_write_the_same(tmp_path, monkeypatch):
    monkeypatch.setenv(store.REPORTS_VARIABLE, str(tmp_path))
    path, texts = store.record_path("sims", "generalization_bounds-quick-custom"), []
    for jobs in ("1", "2"):
        generalization_bounds.main(["--quick", "--samples", "40", "--seeds", "40", "--jobs", jobs])
        texts.append(path.read_text(encoding="utf-8"))
    assert texts[0] == texts[1]


@pytest.mark.parametrize(
    "arguments",
    [
        ["--samples", "4"],
        ["--samples", "64,32"],
        ["--samples", "a"],
        ["--seeds", "1"],
        ["--jobs", "0"],
        ["--seed", "-1"],
    ],
)
def test_bad_input_is_one_line_and_exit_status_2(arguments, capsys, tmp_path, monkeypatch):
    monkeypatch.setenv(store.REPORTS_VARIABLE, str(tmp_path / "reports"))
    assert present.guarded(lambda: generalization_bounds.main(arguments)) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "reports").exists()
