"""Far forgetting: nothing is forgotten at the start, and known outputs get known measures."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from llm_experiments.data import Item
from llm_experiments.probes import forgetting
from llm_experiments.probes.forgetting import Article, FarText, FarTextError, _ranks, _topic_probe, articles
from sims import assets

TOPICS = ("market", "film", "vote", "goal", "phone")


@pytest.fixture(autouse=True)
def few_articles(monkeypatch, tmp_path):
    """Thirty made-up articles of different lengths, and a cache of this test's own."""
    made = [
        Article(f"{TOPICS[i % 5]} {i}", f"the {TOPICS[i % 5]} of day {i} " * (1 + i % 7), i % 5)
        for i in range(30)
    ]
    monkeypatch.setattr(forgetting, "articles", lambda items=0: made[: items or len(made)])
    monkeypatch.setattr(forgetting.models, "cache_folder", lambda *parts: tmp_path.joinpath("cache", *parts))


@pytest.mark.parametrize("cached", [0, 1])
@pytest.mark.parametrize("model", ["tiny_bert", "tiny_llama"])
def test_nothing_is_forgotten_at_the_start_and_something_later(model, cached, run_of):
    run = run_of("full", steps=0, model=model, cached_lower=cached)
    far = FarText(run, items=20, length=24)
    first = far.measure()
    assert first == pytest.approx(far.base, abs=1e-6)
    moved = "drift" if model == "tiny_bert" else "kl"
    assert first[moved] == pytest.approx(0, abs=1e-6) and first["items"] == 20
    for number in range(4):
        run.step(number)
    assert far.measure()[moved] > 1e-4
    assert all(len(rows) == 20 for rows in far.each().values())


@pytest.mark.parametrize("method", ["lora", "s2ft_r", "spft", "cola", "peso_lora_r", "prefix"])
def test_measuring_leaves_the_training_alone(method, run_of):
    looked, alone = run_of(method, steps=1), run_of(method, steps=1)
    FarText(looked, items=10, length=16).measure()
    for number in (1, 2, 3):
        assert looked.step(number) == alone.step(number)


def test_before_the_method_is_on_the_model_it_is_the_base_model(run_of):
    run = run_of("lora", steps=None, model="tiny_bert", cached_lower=1)
    far = FarText(run, items=10)
    assert run.tuned is None and far.measure() == far.base
    run.prepare()
    assert far.measure() == pytest.approx(far.base, abs=1e-6)


def test_the_base_model_is_computed_once(run_of, monkeypatch):
    run = run_of("lora", steps=0, model="tiny_bert")
    first = FarText(run, items=10)
    monkeypatch.setattr(FarText, "_outputs", lambda self, learner: pytest.fail("computed again"))
    assert FarText(run, items=10).base == first.base


def test_the_loss_of_a_decoder_is_that_of_its_own_arithmetic(run_of):
    run = run_of("lora", steps=0)
    far = FarText(run, items=10, length=24)
    total, count, kept = 0.0, 0, []
    for item in far._splits["text"].items:
        ids = torch.tensor([item.ids])
        with torch.no_grad():
            logits = run.loaded.model(input_ids=ids).logits[0, :-1].log_softmax(1)
        total -= float(logits.gather(1, ids[0, 1:, None]).sum())
        count += ids.shape[1] - 1
        kept.append(logits[[len(logits) // 3, 2 * len(logits) // 3]])
    assert far.base["loss"] == pytest.approx(total / count, rel=1e-5)
    # Another model: its divergence from the base at the places that were kept.
    far._before["log_probs"] = torch.stack(kept).log_softmax(-1).numpy() * 0 - np.log(kept[0].shape[1])
    expected = float((-torch.stack(kept) - np.log(kept[0].shape[1])).mean())
    assert far.measure()["kl"] == pytest.approx(expected, rel=1e-4)


def test_ranks_and_probe_on_known_states():
    similar = torch.tensor([[3.0, 1.0, 2.0], [5.0, 4.0, 4.5], [2.0, 1.0, 2.0]])
    assert _ranks(similar).tolist() == [1, 3, 2]
    topics = torch.arange(40) // 8  # every topic in every fold
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(40, 6, generator=generator, dtype=torch.float64)
    apart = torch.eye(6, dtype=torch.float64)[topics] * 20 + noise
    assert _topic_probe(apart, topics).mean() == 1
    assert _topic_probe(noise, topics).mean() < 0.6


def test_long_texts_are_cut_and_keep_an_encoders_closing_token(run_of):
    run = run_of("lora", steps=None, model="tiny_bert")
    far = FarText(run, items=10, length=8)
    assert all(isinstance(item, Item) and len(item.ids) <= 8 for item in far._splits["body"].items)
    whole = [run.loaded.tokenizer.encode(article.body) for article in far.articles]
    assert [item.ids[-1] for item in far._splits["body"].items] == [ids[-1] for ids in whole]


def test_too_few_items_are_refused(run_of):
    with pytest.raises(FarTextError, match="items must be at least 10"):
        FarText(run_of("lora", steps=None, model="tiny_bert"), items=4)


@pytest.mark.skipif(not assets.is_present("bbc"), reason="the BBC articles are not fetched (make ready)")
def test_the_real_articles_are_distinct_and_nested():
    every, few = articles(), articles(50)
    assert every[:50] == few and len(every) > 2000
    assert len({a.body for a in every}) == len({a.title for a in every}) == len(every)
    assert {a.topic for a in few} == {0, 1, 2, 3, 4}
    with pytest.raises(FarTextError, match="items must satisfy"):
        articles(10**6)
