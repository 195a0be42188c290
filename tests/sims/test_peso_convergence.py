"""Who leaves the floor, and what the simulator of it rests on."""

from __future__ import annotations

import json

import numpy as np
import pytest

from sims import parallel, present
from sims import peso_convergence as peso
from theory.peso import descent


def test_one_and_two_processes_write_the_same_and_it_is_as_predicted(simulate):
    texts = [simulate(peso, ["--seeds", "40", "--jobs", jobs]) for jobs in ("1", "2")]
    assert texts[0] == texts[1]
    rows = json.loads(texts[0])["table"]
    assert present.worst_z(rows) < present.UNLIKELY_Z
    assert sum(row["z"] is not None for row in rows) >= 8
    broken = [row for row in rows if row["quantity"].startswith("runs ") and row["predicted"] == 0]
    assert len(broken) == 5 and all(row["simulated"] == 0 for row in broken)
    ends = {row["quantity"]: row["simulated"] for row in rows if row["setting"] == "GD, 600 steps, K = 10"}
    assert ends["final loss, LoRA"] == pytest.approx(100, abs=1e-6)
    assert ends["final loss, PESO-T without merging"] == pytest.approx(100, abs=1e-6)
    assert ends["final loss, PESO-R"] < 1e-6 and ends["final loss, full"] < 1e-6
    needed = {row["quantity"]: row for row in rows if row["quantity"].startswith("restarts needed")}
    peso_r = needed["restarts needed, PESO-R"]
    assert peso_r["predicted"] == peso_r["simulated"] == 2
    assert abs(needed["restarts needed, random restarts"]["simulated"] - 26) <= 4
    exact = [row for row in rows if "exact restarts" in row["quantity"]]
    assert len(exact) == 5
    assert all(row["simulated"] == pytest.approx(row["predicted"], abs=1e-8) for row in exact)


def test_a_wrong_contraction_would_be_noticed():
    """The control of the z rows: a share of 1/n too much."""
    losses = peso.random_restarts(parallel.stream(0), 256, "GD", 10, 0.0, 50)["losses"][:, -1]
    honest, false = 300.0, 300.0
    for _ in range(5):
        honest = descent.random_restart(honest, peso.RANK / peso.N, 10, peso.ETA, 0)
        false = descent.random_restart(false, (peso.RANK + 1) / peso.N, 10, peso.ETA, 0)
    assert abs(present.tested("", "", honest, losses)["z"]) < present.UNLIKELY_Z
    assert abs(present.tested("", "", false, losses)["z"]) > present.UNLIKELY_Z


def test_full_descent_with_noise_has_the_mean_of_the_formula():
    one = descent.full(300.0, 7, 0.1, 100, 0.5)
    loss = 300.0
    for _ in range(7):  # entry by entry: square times (1 - 2 eta)^2 plus eta^2 s^2
        loss = loss * 0.8**2 + 100 * (0.1 * 0.5) ** 2
    assert one == pytest.approx(loss)


def test_a_restart_keeps_the_iterate():
    """The anchor takes up the difference: the loss right after a restart is the loss before it."""
    short = peso.factored(parallel.stream(3), 5, "PESO-R", "GD", 10, 11)["losses"]
    assert np.all(np.diff(short[:, 9:], axis=1) < 0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--seeds", "1"], "seeds must be at least 2"),
        (["--restart-every", "7"], "must divide 600"),
        (["--noise", "nan"], "noise must satisfy"),
        (["--jobs", "none"], "invalid int value"),
    ],
)
def test_bad_input_is_one_line_and_exit_status_2(arguments, message, refused):
    assert message in refused(peso, arguments)
