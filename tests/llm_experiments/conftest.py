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


_WORDS = ("plain", "sweet", "wet", "cold", "old", "kind")


def _toy_splits(seed: int, train_size: int):
    from llm_experiments.data import Example, three_way

    texts = [f"{a} {b}" for a in _WORDS for b in _WORDS]
    examples = [Example(f"{t} {'up' if label else 'down'}", label=label) for t in texts for label in (0, 1)]
    first, validation, test = three_way(examples, 0.5, 0.2)
    return {"train": first[:train_size], "validation": validation, "test": test}


@pytest.fixture
def run_of(monkeypatch):
    """`run_of(method, steps=0, **settings)`: a run on 24 short texts, `steps` steps in; None: not prepared."""
    from llm_experiments.data import Task
    from llm_experiments.settings import Settings
    from llm_experiments.tasks import TASKS
    from llm_experiments.train import Run

    toy = Task("words", "", "{text} is", "label_token", (), 24, 40, _toy_splits, labels=("down", "up"))
    monkeypatch.setitem(TASKS, toy.name, toy)
    # Every schedule acts within a few steps.
    often = ("cola", "rac_lora", "c3la", "random_c3la", "lisa", "peso_lora_r", "peso_lora_t")
    events = {name: {"every": 2} for name in often}
    events |= {"galore": {"gap": 2}, "adalora": {"total_step": 7, "init_r": 3}}

    def build(method: str, steps: int | None = 0, **changes) -> Run:
        model = "tiny_bert" if method == "bitfit" else "tiny_llama"
        chosen = {"method": method, "task": toy.name, "model": model, "steps": 8, "batch": 4, "lr": 1e-2}
        chosen |= {"budget": "10%", "options": events.get(method, {}), "head": "random"}
        run = Run(Settings(**{**chosen, **changes}))
        if steps is not None:
            run.prepare()
            for number in range(steps):
                run.step(number)
        return run

    return build
