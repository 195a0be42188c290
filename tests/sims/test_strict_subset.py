"""What LoRA's image misses, its dimension, and finite inputs."""

from __future__ import annotations

import json

import numpy as np
import pytest

from sims import parallel, present
from sims import strict_subset as subset
from theory.kits.exact import Exact
from theory.peft_vs_fft import image_size, thm_1_manifold
from theory.protocol import Instance


def test_one_and_two_processes_write_the_same_and_it_is_as_predicted(simulate):
    texts = [simulate(subset, ["--seeds", "64", "--jobs", jobs]) for jobs in ("1", "2")]
    assert texts[0] == texts[1]
    rows = json.loads(texts[0])["table"]
    assert present.worst_z(rows) < present.UNLIKELY_Z
    assert sum(row["z"] is not None for row in rows) >= 7
    counts = [row for row in rows if isinstance(row["predicted"], int)]
    assert len(counts) >= 31
    for row in counts:
        assert row["predicted"] == row["simulated"], (row["quantity"], row["setting"])
    fitted = [row for row in rows if row["quantity"].startswith(("squared distance", "share of diag"))]
    assert len(fitted) >= 12
    for row in fitted:
        assert row["simulated"] == pytest.approx(row["predicted"], rel=1e-3, abs=1e-9), row["setting"]


@pytest.mark.parametrize(("rank_B", "rank_A"), [(2, 2), (1, 2), (1, 1), (0, 2), (0, 0)])
def test_rank_of_the_derivative_is_exact_at_integer_points(rank_B, rank_A):
    """Factors of the stated ranks with integer entries, and exact elimination."""
    k = Exact()
    rng = np.random.default_rng(3)

    def integers(m, n):
        return k.mat([[int(v) for v in row] for row in rng.integers(-9, 10, (m, n))], (m, n))

    B = integers(4, 2) @ k.mat([[int(i == j < rank_B) for j in range(2)] for i in range(2)])
    A = k.mat([[int(i == j < rank_A) for j in range(2)] for i in range(2)]) @ integers(2, 3)
    assert k.rank(thm_1_manifold.jacobian(k, Instance(B=B, A=A))) == image_size.derivative_rank(
        4, 3, rank_B, rank_A
    )


def test_dimension_is_the_generic_rank():
    for m, n, r in [(3, 3, 1), (7, 4, 3), (5, 5, 5)]:
        assert image_size.derivative_rank(m, n, r, r) == image_size.dimension(m, n, r)
    assert image_size.dimension(5, 5, 5) == 25


def test_a_wrong_law_of_the_distance_would_be_noticed():
    d2 = subset.smallest(parallel.stream(0), 4096, 3)["d2"]
    assert abs(present.tested("", "", image_size.mean_distance2(3), d2)["z"]) < present.UNLIKELY_Z
    assert abs(present.tested("", "", image_size.mean_distance2(4), d2)["z"]) > present.UNLIKELY_Z


def test_rank_condition_counts_inputs_and_outputs():
    assert [image_size.reachable(N, 5, 2) for N in (1, 2, 3, 9)] == [True, True, False, False]
    assert image_size.reachable(9, 2, 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rows", "2"], "must be from 3 to 32"),
        (["--columns", "100"], "must be from 3 to 32"),
        (["--jobs", "0"], "jobs must be at least 1"),
    ],
)
def test_bad_input_is_one_line_and_exit_status_2(arguments, message, refused):
    assert message in refused(subset, arguments)


def test_help_teaches(capsys):
    with pytest.raises(SystemExit) as stop:
        subset.main(["--help"])
    text = capsys.readouterr().out
    assert stop.value.code == 0
    assert "null set" in text and "--seeds" in text and "--jobs" in text
