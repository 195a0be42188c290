"""Shifts of gradient, weights and inputs, and the formulas below them."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy.optimize import minimize

from sims import parallel, perturbation, present
from theory.kits.floats import Floats
from theory.peft_vs_fft import shifts


def test_one_and_two_processes_write_the_same_and_it_is_as_predicted(simulate):
    texts = [simulate(perturbation, ["--seeds", "60", "--jobs", jobs]) for jobs in ("1", "2")]
    assert texts[0] == texts[1]
    rows = json.loads(texts[0])["table"]
    assert present.worst_z(rows) < present.UNLIKELY_Z
    assert sum(row["z"] is not None for row in rows) >= 13
    counts = [row for row in rows if isinstance(row["predicted"], int) and isinstance(row["simulated"], int)]
    assert len(counts) >= 12
    for row in counts:
        assert row["predicted"] == row["simulated"], row["quantity"]
    exact = [
        row for row in rows if row["quantity"].startswith(("dL_peft", "the same", "worst loss", "largest"))
    ]
    assert len(exact) >= 16
    for row in exact:
        assert row["simulated"] == pytest.approx(row["predicted"], rel=1e-6, abs=1e-8), row["quantity"]


@pytest.fixture(scope="module")
def problem():
    """One quadratic and a subspace."""
    H, P, best = perturbation.problems(parallel.stream(4), 3, 6, 2, 10.0)
    return H, P, (H @ best[..., None])[..., 0]


def test_conjugate_gradients_minimise(problem):
    H, P, b = problem
    full, peft = perturbation.tuned(H, P, b)
    np.testing.assert_allclose(full, np.linalg.solve(H, b[..., None])[..., 0])
    inside = [p @ np.linalg.solve(p.T @ h @ p, p.T @ v) for h, p, v in zip(H, P, b, strict=True)]
    np.testing.assert_allclose(peft, inside)


def test_worst_frozen_shift_is_the_best_that_optimisation_finds(problem):
    H, _, g = problem
    values, V = np.linalg.eigh(H)
    turned = (np.swapaxes(V, 1, 2) @ g[..., None])[..., 0]
    ours = shifts.worst_frozen(
        values,
        turned,
        0.7,
        lambda a: a.sum(axis=-1, keepdims=True),
        lambda a: a.max(axis=-1, keepdims=True),
        np.sqrt,
    )[0, 0]

    def negative(v):
        e = 0.7 * v / np.linalg.norm(v)
        return -(g[0] @ e + e @ H[0] @ e / 2)

    rng = np.random.default_rng(0)
    found = max(-minimize(negative, rng.standard_normal(6)).fun for _ in range(5))
    assert ours == pytest.approx(found, rel=1e-8)


def test_the_printed_form_would_be_noticed(problem):
    """The control: with eps' P (P'HP)^+ P' eps as the larger form the gap has the wrong sign."""
    H, P, _ = problem
    k = Floats()
    eps = parallel.stream(9).standard_normal((3, 6, 1))
    gap = shifts.reoptimised_gap(k, k.mat(H), k.mat(P), k.mat(eps))
    C = np.linalg.inv(H) - P @ np.linalg.inv(np.swapaxes(P, 1, 2) @ H @ P) @ np.swapaxes(P, 1, 2)
    printed = -np.einsum("bij,bjk,bik->b", np.swapaxes(eps, 1, 2), C, np.swapaxes(eps, 1, 2)) / 2
    np.testing.assert_allclose(gap, -printed)
    assert np.all(gap > 0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--tuned", "12"], "1 <= tuned < dims"),
        (["--dims", "500"], "dims <= 100"),
        (["--condition", "1"], "1 < condition"),
        (["--seed", "-1"], "seed must be at least 0"),
    ],
)
def test_bad_input_is_one_line_and_exit_status_2(arguments, message, refused):
    assert message in refused(perturbation, arguments)
