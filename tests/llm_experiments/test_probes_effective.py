"""Plain weights of a model in training: the same function, and training goes on as if nobody had looked."""

from __future__ import annotations

import pytest
import torch

from llm_experiments import methods
from llm_experiments.probes.effective import (
    base_model,
    base_weights,
    effective_weights,
    matrix_names,
    plain_model,
)
from llm_experiments.recipes.base import MethodError

MERGEABLE = [name for name in methods.names() if methods.get(name).mergeable is True]
# They train parameters that are no matrices of blocks: biases, norms, embeddings.
BEYOND = {"full", "galore", "lisa", "hybrid", "bitfit"}


def outputs(run, model):
    batch = run.learner.batch(run.splits["validation"], [0, 1, 2])
    with torch.no_grad():
        found = model(**batch.inputs)
    return found.logits if run.loaded.kind == "decoder" else found.last_hidden_state


def with_weights(model, weights):
    with torch.no_grad():
        for name, tensor in weights.items():
            model.get_parameter(name).copy_(tensor)
    return model


@pytest.mark.parametrize("method", MERGEABLE)
def test_plain_weights_of_a_model_in_training(method, run_of):
    """They compute what the model computes, and training goes on as if nobody had looked, bit for bit."""
    run, alone = run_of(method, steps=3), run_of(method, steps=3)
    base, weights = base_weights(run), effective_weights(run)
    assert list(weights) == list(base)
    # BitFit leaves every matrix alone; all others have changed some.
    assert any(not torch.equal(weights[name], base[name]) for name in base) == (method != "bitfit")
    now = outputs(run, run.learner.network)
    torch.testing.assert_close(outputs(run, plain_model(run)), now, rtol=1e-4, atol=1e-5)
    if method not in BEYOND:
        plain = with_weights(base_model(run), weights)
        torch.testing.assert_close(outputs(run, plain), now, rtol=1e-4, atol=1e-5)
    for number in (3, 4):
        assert run.step(number) == alone.step(number)
    ours, theirs = run.trainable(), alone.trainable()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("method", sorted(set(methods.names()) - set(MERGEABLE)))
def test_a_method_without_plain_weights_says_why(method, run_of):
    run = run_of(method, steps=1)
    with pytest.raises(MethodError, match=f"{method} has no plain weights: .+"):
        effective_weights(run)


@pytest.mark.parametrize("model", ["tiny_bert", "tiny_llama"])
def test_cached_layers_are_left_out(model, run_of):
    run = run_of("lora", steps=0, model=model, cached_lower=1)
    before = base_weights(run)
    assert before and all(".1." in name for name in before)
    assert before.keys() == effective_weights(run).keys()
    assert all(torch.equal(before[name], tensor) for name, tensor in effective_weights(run).items())


def test_before_the_method_is_on_the_model(run_of):
    run = run_of("lora", steps=None, model="tiny_bert", cached_lower=1)
    before = effective_weights(run)
    assert run.tuned is None
    run.prepare()
    assert before.keys() == base_weights(run).keys() == effective_weights(run).keys()
    assert matrix_names(run.loaded.model) == [f"encoder.layer.1.{n}" for n in _BERT]


_BERT = [
    "attention.self.query.weight",
    "attention.self.key.weight",
    "attention.self.value.weight",
    "attention.output.dense.weight",
    "intermediate.dense.weight",
    "output.dense.weight",
]
