"""Exact derivatives against complex steps through the simulator's networks, and what their ranks must satisfy."""

from __future__ import annotations

import math

import numpy as np
import pytest

from sims import strict_subset
from theory.peft_vs_fft import finite_inputs, image_size, thm_1_functions

STEP = 1e-20


def floats(rows) -> np.ndarray:
    return np.array([[float(v) for v in row] for row in rows])


def moved(W: dict[str, np.ndarray], name: str, i: int, j: int) -> dict[str, np.ndarray]:
    """The weights, as one seed of the simulator, with a complex step in one entry."""
    out = {m: v.astype(complex)[None] for m, v in W.items()}
    out[name][0, i, j] += STEP * 1j
    return out


def test_attention_in_base_two_is_attention_with_log_two_in_the_queries():
    payload = thm_1_functions.network_ranks("attention")
    X = payload["inputs"][0]
    exact = finite_inputs.attention(payload["weights"], X)
    W = {name[1]: floats(rows) for name, rows in payload["weights"].items()}
    W["q"] = math.log(2) * W["q"]
    for name in "qkvo":
        shape = W[name].shape
        for entry, (i, j) in enumerate(np.ndindex(shape)):
            seen = strict_subset.head(moved(W, name, i, j), floats(X)[None, None]).imag.ravel() / STEP
            scale = math.log(2) if name == "k" else 1.0
            told = scale * np.array([float(v) for v in exact[f"W{name}"][entry]])
            assert seen == pytest.approx(told, rel=1e-9, abs=1e-12), (name, i, j)


def test_hidden_layer_away_from_kinks():
    payload = thm_1_functions.network_ranks("hidden layer")
    X = payload["inputs"][0]
    W = {name: floats(rows) for name, rows in payload["weights"].items()}
    exact = finite_inputs.hidden_layer(payload["weights"], X)

    def outputs(V):
        Z = V["W1"] @ floats(X)
        return (V["W2"] @ (Z * (Z > 0))).ravel()

    for name in W:
        for entry, (i, j) in enumerate(np.ndindex(W[name].shape)):
            step = np.zeros_like(W[name])
            step[i, j] = 1 / 1024  # outputs are linear in one entry until a kink: integers stay away from it
            difference = (outputs({**W, name: W[name] + step}) - outputs(W)) * 1024
            assert difference == pytest.approx([float(v) for v in exact[name][entry]])


def test_an_input_on_a_kink_is_refused():
    with pytest.raises(ValueError, match="W1 X must differ from zero"):
        finite_inputs.hidden_layer({"W1": [[1, -1]], "W2": [[1]]}, [[2], [2]])


@pytest.mark.parametrize("network", ["attention", "hidden layer"])
def test_factors_reach_no_more_than_weights_and_no_more_than_their_dimension(network):
    payload = thm_1_functions.network_ranks(network)
    most = thm_1_functions.most(network, 1)["LoRA or AdaLoRA, all matrices"]
    for row in payload["rows"]:
        assert row["LoRA"] <= min(row["full"], most) and row["full"] <= row["outputs"]
    payload["rows"][-1]["full"] += 1
    assert thm_1_functions.ranks_exceed(payload) is not None


def test_generic_ranks_of_the_simulator_bound_those_of_the_rational_point():
    rows = thm_1_functions.network_ranks("attention")["rows"]
    assert [row["full"] for row in rows] == [image_size.head_dimension(4, 3, 3, N) for N in (1, 2, 3)]
    assert all(row["LoRA"] <= image_size.head_dimension_lora(4, 3, 1) for row in rows)
