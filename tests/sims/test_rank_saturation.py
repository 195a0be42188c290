"""The curve of best losses over the rank, before and after training."""

from __future__ import annotations

import json

import numpy as np
import pytest

from sims import parallel, present
from sims import rank_saturation as saturation
from theory.kits.floats import Floats
from theory.peft_vs_fft import saturation as theory


@pytest.fixture(scope="module")
def small():
    """The Kronecker part for a few seeds."""
    return saturation.kronecker(parallel.stream(5), 6, 3.0, 1.0)


def test_one_and_two_processes_write_the_same_and_it_is_as_predicted(simulate):
    texts = [simulate(saturation, ["--seeds", "20", "--jobs", jobs]) for jobs in ("1", "2")]
    assert texts[0] == texts[1]
    rows = json.loads(texts[0])["table"]
    assert present.worst_z(rows) < present.UNLIKELY_Z
    counts = [row for row in rows if isinstance(row["predicted"], int) and isinstance(row["simulated"], int)]
    assert len(counts) >= 6
    for row in counts:
        assert row["predicted"] == row["simulated"], row["quantity"]
    rising = [row["simulated"] for row in rows if row["predicted"] is None]
    assert len(rising) == 2 and min(rising) > 10  # correlated coordinates do break the rule


def test_training_ends_at_the_prediction_and_never_below(small):
    assert np.all(small["trained"] >= small["E"] - 1e-9)
    assert np.all(small["trained"] - small["E"] < 1e-3 * small["E"][:, :1])


def test_gains_fall_only_because_of_the_structure():
    found = saturation.two_by_two(parallel.stream(1), 8)["losses"].min(axis=0)
    np.testing.assert_allclose(found, [4, 8 / 3, 0], atol=1e-6)
    assert found[1] - found[2] > found[0] - found[1]


def test_unwhitened_singular_values_would_be_noticed(small):
    """The control: the tail of M itself is not what training reaches."""
    k = Floats()
    _, M, _ = saturation.problems(parallel.stream(5), 6, 3.0, 1.0)
    eye = k.mat(np.eye(saturation.N))
    plain = theory.best_loss(k, eye, k.mat(M), eye, 2)
    assert np.all(plain > 1.5 * small["trained"][:, 2])


def test_best_coordinates_are_found_by_hand_too():
    got = saturation.sparse(parallel.stream(2), 5, 0.0)
    np.testing.assert_allclose(got["best"], got["told"], atol=1e-12)
    assert theory.critical_rank([4.0, 1.0, 0.1, 0.0], 0.05) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--condition", "100"], "1 <= condition <= 10"),
        (["--decay", "-1"], "0 <= decay <= 3"),
        (["--seeds", "1"], "seeds must be at least 2"),
    ],
)
def test_bad_input_is_one_line_and_exit_status_2(arguments, message, refused):
    assert message in refused(saturation, arguments)
