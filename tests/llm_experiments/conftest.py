"""Tiny random models for the tests of this folder."""

from __future__ import annotations

import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification, LlamaConfig, LlamaForCausalLM

VOCABULARY = 64


def tiny_llama(key_value_heads: int = 4, **changes):
    torch.manual_seed(0)
    settings = {
        "vocab_size": VOCABULARY,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": key_value_heads,
        "max_position_embeddings": 64,
    }
    return LlamaForCausalLM(LlamaConfig(**{**settings, **changes})).eval()


def tiny_bert(**changes):
    torch.manual_seed(0)
    settings = {
        "vocab_size": VOCABULARY,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 64,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "initializer_range": 0.1,  # at the default 0.02 the logits hardly depend on the blocks
    }
    model = BertForSequenceClassification(BertConfig(**{**settings, **changes})).eval()
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):  # transformers starts biases at zero, where a lost bias would not be seen
            torch.nn.init.normal_(parameter, std=0.1)
    return model


MODELS = {
    "llama": tiny_llama,
    "llama_gqa": lambda **changes: tiny_llama(key_value_heads=2, **changes),
    "bert": tiny_bert,
}


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    """Matrices of these sizes only lose time to threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def _batch_for(model, seed: int = 0, size: int = 3, length: int = 7) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, VOCABULARY, (size, length), generator=generator)
    labels = torch.arange(size) % 2 if "Classification" in type(model).__name__ else ids
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}


@pytest.fixture
def batch_for():
    """`batch_for(model, seed=0)`: a batch of random tokens with labels that the model takes."""
    return _batch_for


@pytest.fixture
def build():
    """`build(name, **config)`: one tiny model by name; the same weights every time."""
    return lambda name, **changes: MODELS[name](**changes)


@pytest.fixture(params=list(MODELS))
def make_model(request):
    """A function that builds the same tiny model every time; runs the test once per model."""
    return MODELS[request.param]
