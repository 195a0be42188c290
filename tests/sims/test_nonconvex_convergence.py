"""Chains of adapters: exact means against the claims' own texts, losses and steps against plain computations."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from reports import store
from sims import chains, nonconvex_convergence, parallel, present
from sims.chains import LOSSES, METHODS, Run
from theory.kits.exact import Exact
from theory.lora_variants import descent, rates
from theory.protocol import Instance


def blocks(kit, r, k):
    columns = [kit.cols(kit.eye(r * k), range(j * r, (j + 1) * r)) for j in range(k)]
    return [U @ U.T for U in columns]


@pytest.mark.parametrize(("number", "steps"), [(1, 3), (2, 1), (2, 2)])
def test_exact_means_are_those_of_the_claim(number, steps):
    """The recursion on E[V'V] against the claim's sum over every run of draws, in fractions."""
    kit = Exact()
    W, Q = (
        kit.mat([["1", "2", "-1", "3"]]),
        kit.mat([["1/2", "1/4", 0, 0], ["1/4", "1/2", 0, 0], [0, 0, 1, 0], [0, 0, 0, "1/3"]]),
    )
    x = Instance(W=W, Q=Q, gamma=kit.num("3/4"), draws=2, r=2, chains=number, steps=steps)  # fmt: skip
    means = rates.mean_squares(kit, W, Q, x.gamma, [blocks(kit, 2, 2)] * number, steps)
    assert len(means) == number * steps + 1
    assert sum(means[:-1]) == descent.squares(kit, x, W, number, False)
    assert sum(means) == descent.squares(kit, x, W, number, True)


def test_isotropic_mean_is_that_of_blocks():
    kit = Exact()
    W, gamma = kit.mat([["1", "2", "-1"]]), Fraction(2, 5)
    means = rates.mean_squares(kit, W, kit.eye(3), kit.num("2/5"), [blocks(kit, 1, 3)] * 3, 2)
    shape = rates.isotropic(Fraction(1, 3), gamma, 3, 2)
    assert [m / means[0] for m in means] == shape


def test_sharp_bound_is_attained_and_below_the_others():
    gamma, lam, T = Fraction(2, 5), Fraction(1, 3), 7
    mean = sum(rates.isotropic(lam, gamma, T, 1)[:-1]) / T  # of |grad L|^2 / |grad L(W_0)|^2, Delta = 1/2
    best = rates.best(Fraction(1, 2), lam, gamma, T)
    assert best == mean
    assert best < rates.sharp(Fraction(1, 2), lam, gamma, T) < rates.printed(Fraction(1, 2), lam, gamma, T)
    assert rates.loss_sharp(1, lam, gamma, 1, T) < rates.loss_printed(1, lam, gamma, 1, T)


@pytest.mark.parametrize("name", list(LOSSES))
def test_gradients_are_derivatives(name):
    problem = LOSSES[name].draw(3, parallel.stream(5))
    rng = np.random.default_rng(0)
    W = [w + 0.1 * rng.standard_normal(w.shape) for w in problem.start]
    D = [rng.standard_normal(w.shape) for w in W]
    h = 1e-5
    ends = [problem.value([w + s * h * d for w, d in zip(W, D, strict=True)]) for s in (1, -1)]
    slope = np.sum([(g * d).sum(axis=(1, 2)) for g, d in zip(problem.gradient(W), D, strict=True)], axis=0)
    np.testing.assert_allclose((ends[0] - ends[1]) / (2 * h), slope, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("name", [n for n, loss in LOSSES.items() if loss.smooth])
def test_losses_called_smooth_have_constant_one(name):
    problem = LOSSES[name].draw(200, parallel.stream(6))
    rng = np.random.default_rng(1)
    for size in (0.01, 1.0, 10.0):
        W = problem.start[0] + size * rng.standard_normal(problem.start[0].shape)
        D = size * rng.standard_normal(W.shape)
        turn = problem.gradient([W + D])[0] - problem.gradient([W])[0]
        assert (chains.square_norm([turn]) <= chains.square_norm([D]) * (1 + 1e-9)).all()


def test_cla_is_plain_descent_on_its_columns():
    run = Run("coupled quadratic", "cLA", 5, 8, 0, 0, 2)
    problem, gamma = run.problem(), LOSSES[run.loss].gamma
    W = problem.start[0].copy()
    for _ in range(5):
        G = problem.gradient([W])[0]
        W[:, :, :2] -= gamma * G[:, :, :2]
    np.testing.assert_allclose(
        chains.trajectory(run)["square"][:, -1], chains.square_norm(problem.gradient([W])), rtol=1e-12
    )


def test_lora_trains_factors_and_a_chain_merges_them():
    run = Run("quadratic", "CoLA", 4, 2, 0, 0, 3)
    problem, rng = run.problem(), run.stream()
    W, squares = problem.start[0], []
    for _ in range(2):
        A, B = rng.standard_normal((3, 2, 6)) / np.sqrt(6), np.zeros((3, 4, 2))
        for _ in range(2):
            G = problem.gradient([W + B @ A])[0]
            squares.append(chains.square_norm([G]))
            B, A = B - 0.5 * G @ A.swapaxes(1, 2), A - 0.5 * B.swapaxes(1, 2) @ G
        W = W + B @ A
    np.testing.assert_allclose(chains.trajectory(run)["square"][:, :4], np.stack(squares, 1), rtol=1e-12)


def test_gaussian_projectors_are_projectors_of_the_rank():
    H = chains.projector(METHODS["RAC"], 0, 50, 2, 6, parallel.stream(1))
    np.testing.assert_allclose(H @ H, H, atol=1e-9)
    np.testing.assert_allclose(np.einsum("bii->b", H), 2, atol=1e-9)


def test_bound_rows_tell_exceeded_from_kept():
    counts, found = np.array([1, 2]), np.array([[1.0, 2.0], [1.0, 2.2]])
    assert (
        nonconvex_convergence.bound_row("b", "s", np.ones((2, 2)), found, counts)["setting"]
        == "s; T = 2; exceeded"
    )
    kept = nonconvex_convergence.bound_row("b", "s", 3 * np.ones((2, 2)), found, counts)
    assert kept["setting"].endswith("kept")


def test_fitted_order_is_that_of_a_power():
    T = np.arange(1.0, nonconvex_convergence.STEPS + 1)
    curves = np.outer([1.0, 2.0, 5.0], T**-0.75)
    assert nonconvex_convergence.slope(curves, np.eye(3)) == pytest.approx([-0.75] * 3)


def test_quick_run(tmp_path, monkeypatch):
    """About 40 tested rows: |z| > 4.5 would have probability 3e-4. What the claims say is what the runs show."""
    monkeypatch.setenv(store.REPORTS_VARIABLE, str(tmp_path))
    nonconvex_convergence.main(["--quick", "--jobs", "1"])
    table = store.read_record(store.record_path("sims", "nonconvex_convergence-quick"))["table"]
    assert present.worst_z(table) < present.UNLIKELY_Z
    assert sum(row["z"] is not None for row in table) > 20
    other = [r for r in table if "T = " in r["setting"] and not r["quantity"].startswith("printed bound")]
    assert len(other) > 15 and all(r["setting"].endswith("kept") for r in other)
    printed = {
        r["setting"].split("; T")[0]: r["setting"] for r in table if r["quantity"].startswith("printed bound")
    }
    for fails in (
        "quadratic; Asym",
        "quadratic; RAC, 24 steps a chain",
        "last two columns; c3LA, 1 step a chain",
    ):
        assert printed[fails].endswith("exceeded")
    assert printed["quadratic; RAC, 1 step a chain"].endswith("kept")


def test_one_and_two_processes_write_the_same(tmp_path, monkeypatch):
    monkeypatch.setenv(store.REPORTS_VARIABLE, str(tmp_path))
    path, texts = store.record_path("sims", "nonconvex_convergence-custom"), []
    for jobs in ("1", "2"):
        nonconvex_convergence.main(["--seeds", "40", "--jobs", jobs])
        texts.append(path.read_text(encoding="utf-8"))
    assert texts[0] == texts[1]


@pytest.mark.parametrize(
    "arguments", [["--kept", "0"], ["--kept", "200"], ["--seeds", "1"], ["--jobs", "0"], ["--seed", "-1"]]
)
def test_bad_input_is_one_line_and_exit_status_2(arguments, capsys, tmp_path, monkeypatch):
    monkeypatch.setenv(store.REPORTS_VARIABLE, str(tmp_path / "reports"))
    assert present.guarded(lambda: nonconvex_convergence.main(arguments)) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "reports").exists()
