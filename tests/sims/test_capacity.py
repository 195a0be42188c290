"""The capacity bound in its readings, beside the movement of networks."""

from __future__ import annotations

import json
from fractions import Fraction

import numpy as np
import pytest

from sims import capacity, parallel, present
from theory.peft_vs_fft import capacity as theory


def test_one_and_two_processes_write_the_same_and_it_is_as_predicted(simulate):
    texts = [simulate(capacity, ["--seeds", "64", "--jobs", jobs]) for jobs in ("1", "2")]
    assert texts[0] == texts[1]
    rows = json.loads(texts[0])["table"]
    assert present.worst_z(rows) < present.UNLIKELY_Z
    assert sum(row["z"] is not None for row in rows) >= 10
    counts = [row for row in rows if isinstance(row["predicted"], int)]
    assert len(counts) >= 28
    for row in counts:
        assert row["predicted"] == row["simulated"], (row["quantity"], row["setting"])
    failing = [row for row in counts if "printed" in row["quantity"]]
    assert any(row["simulated"] == 0 for row in failing) and any(row["simulated"] > 0 for row in failing)


def test_two_layers_of_one_weight_are_those_of_the_claim():
    """w1 = w2 = p1 = p2 = x = 1: the output moves by 3, the sharp form says so, the printed one says 2."""
    ones = [Fraction(1)] * 2
    assert theory.sharp(Fraction(1), ones, ones, Fraction(1)) == 3
    assert theory.printed(Fraction(1), Fraction(1), ones, ones) == 2
    assert theory.printed(Fraction(1), Fraction(1), ones, [Fraction(1), Fraction(2)]) == 3


def test_later_layers_do_not_weigh_more_in_the_bound_when_norms_exceed_one():
    first, last = (theory.printed(2, 1, phi, [1, 1, 1]) for phi in ((1, 0, 0), (0, 0, 1)))
    assert (first, last) == (4, 1)


def test_mean_square_is_the_sum_of_its_parts_to_first_order():
    every = theory.mean_square(5, 1.0, 1e-6, 1.0)
    assert every == pytest.approx(5 * theory.mean_square_of_layer(5, 1.0, 1e-6, 1.0), rel=1e-4)


def test_a_wrong_depth_would_be_noticed():
    got = capacity.gaussian(parallel.stream(0), 1024, 4, 16, 0.04)["all"]
    assert abs(present.tested("", "", theory.mean_square(4, 1.0, 0.04, 1.0), got)["z"]) < present.UNLIKELY_Z
    assert abs(present.tested("", "", theory.mean_square(5, 1.0, 0.04, 1.0), got)["z"]) > present.UNLIKELY_Z


@pytest.mark.parametrize("kind", ["aligned", "random"])
def test_networks_have_the_norms_they_are_said_to_have(kind):
    weights, changes, x = capacity.network(parallel.stream(1), 3, kind, 2, 6, 2.0, 0.3)
    np.testing.assert_allclose(np.linalg.norm(np.stack(weights), 2, axis=(2, 3)), 2.0)
    np.testing.assert_allclose(np.linalg.norm(np.stack(changes), 2, axis=(2, 3)), 0.3)
    np.testing.assert_allclose(np.linalg.norm(x, axis=1), 1.0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--width", "1"], "2 <= width <= 256"),
        (["--size", "nan"], "0.001 <= size"),
        (["--seeds", "1"], "seeds must be at least 2"),
    ],
)
def test_bad_input_is_one_line_and_exit_status_2(arguments, message, refused):
    assert message in refused(capacity, arguments)
