"""The real encoder's forward pass against transformers, its moments, and the simulation on a stand-in block."""

from __future__ import annotations

import numpy as np
import pytest

from reports import store
from sims import assets, encoder, ood_encoder
from sims.encoder import FeedForward, Source
from sims.ood_sections import Run

LAYER = 1
TEXTS = [
    "a real charmer of a film",
    "an awful , awful , awful waste of two hours",
    "it has a heart and a mind",
]


@pytest.fixture(scope="module")
def weights():
    return {name: array.astype(np.float64) for name, array in encoder._weights(assets.path("minilm")).items()}


def test_forward_pass_is_that_of_transformers(weights):
    torch = pytest.importorskip("torch", reason="torch and transformers come with the extra 'llm'")
    transformers = pytest.importorskip("transformers", reason="transformers comes with the extra 'llm'")
    model = transformers.AutoModel.from_pretrained(assets.path("minilm")).double().eval()
    seen = {}
    block = model.encoder.layer[LAYER]
    block.intermediate.register_forward_pre_hook(lambda module, inputs: seen.update(x=inputs[0]))
    block.output.dense.register_forward_hook(lambda module, inputs, output: seen.update(y=output))
    for ids in encoder._token_batches(assets.path("minilm"), TEXTS):
        with torch.no_grad():
            model(torch.as_tensor(ids))
        x = encoder._inputs(weights, ids, LAYER)
        y, _ = encoder._block(weights, LAYER, x)
        for ours, theirs in ((x, seen["x"]), (y, seen["y"])):
            np.testing.assert_allclose(ours, theirs[:, 1:-1].reshape(ours.shape).numpy(), atol=1e-9)


def test_slope_is_the_mean_derivative(weights):
    x = np.random.default_rng(0).standard_normal((5, 384))
    _, slope = encoder._block(weights, LAYER, x)
    W1, b1, _, _ = encoder._feed_forward(weights, LAYER)
    z = x @ W1.T + b1
    np.testing.assert_allclose(
        slope, ((encoder._gelu(z + 1e-6) - encoder._gelu(z - 1e-6)) / 2e-6).mean(0), atol=1e-8
    )


def test_token_batches_hold_every_text_once_without_padding():
    batches = encoder._token_batches(assets.path("minilm"), TEXTS)
    assert sum(len(batch) for batch in batches) == len(TEXTS)
    assert all((batch[:, 0] == 101).all() and (batch[:, -1] == 102).all() for batch in batches)


def test_moments_are_least_squares_and_leave_uncorrelated_noise():
    rng = np.random.default_rng(1)
    x, y = rng.standard_normal((60, 4)) + 3, rng.standard_normal((60, 2)) - 5
    got = encoder._moments(x, y, np.ones(3))
    design = np.column_stack([x, np.ones(60)])
    solution, *_ = np.linalg.lstsq(design, y, rcond=None)
    np.testing.assert_allclose(got["B"], solution[:4].T)
    left = y - design @ solution
    np.testing.assert_allclose(got["noise"], left.T @ left / 60)


def stand_in(d=10, hidden=24, tokens=400):
    """A small random block in place of the encoder's, with real moments of its own."""
    rng = np.random.default_rng(2)
    W1, W2 = rng.standard_normal((hidden, d)), rng.standard_normal((d, hidden)) / 5
    sources = {}
    for i, name in enumerate(encoder.SOURCES):
        x = rng.standard_normal((tokens, d)) + 0.2 * i
        x -= x.mean(axis=1, keepdims=True)  # one direction without variance, as layer normalisation leaves
        z = x @ W1.T
        got = encoder._moments(x, encoder._gelu(z) @ W2.T, (z > 0).mean(0))
        sources[name] = Source(int(got.pop("tokens")), **got)
    return FeedForward(W1, W2, sources)


def test_simulation_on_a_stand_in_block_agrees_with_its_closed_forms(monkeypatch, tmp_path):
    monkeypatch.setattr(encoder, "load", lambda layer: stand_in())
    record = ood_encoder.record("ood_risk-test", Run(steps=(1000, 20000)), 0, 2, quick=True)
    store.validate(record, tmp_path / "records" / "sims" / "ood_risk-test.json")
    rows = [row for row in record["table"] if row["quantity"].startswith(("E_i(", "E_o(", "movement"))]
    ends = [row for row in rows if row["z"] is None]
    assert len(ends) == 5 + 5 + 3 * 5
    for row in ends:
        assert row["simulated"] == pytest.approx(row["predicted"], abs=2e-3)
    z = [row["z"] for row in record["table"] if row["z"] is not None]
    assert len(z) == 6 and max(map(abs, z)) < 4.5
    told = [row for row in record["table"] if "predicted" in row["quantity"]]
    assert told and all(row["simulated"] == row["predicted"] > 0 for row in told)


def test_layer_drops_the_direction_without_variance():
    layer = ood_encoder.Layer(stand_in())
    assert layer.D.shape == (10, 9)
    assert np.linalg.eigvalsh(layer.Sig)[0] > 1e-6
