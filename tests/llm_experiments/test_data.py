"""Data: splits, order, encoding, tasks, measures."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from llm_experiments import data, metrics
from llm_experiments.data import IGNORED, Encoding, Example, batch_indices, collate
from llm_experiments.errors import UserError
from llm_experiments.tasks import TASKS, bbc_fewshot, chain_sum, gsm_symbolic, sentiment
from llm_experiments.text import ByteTokenizer
from sims import assets

NEEDED = {
    "sentiment": ["snippets"],
    "bbc_fewshot": ["bbc"],
    "gsm_symbolic": ["reasoning-gym"],
    "chain_sum": [],
}


@pytest.fixture(params=list(NEEDED))
def task(request):
    if NEEDED[request.param]:
        assets.fetch(NEEDED[request.param])
    return TASKS[request.param]


def test_no_text_is_in_two_splits(task):
    seen = {}
    for name, examples in task.splits().items():
        if name.startswith("ood"):
            continue  # another corpus, which may quote the same sentence
        for example in examples:
            assert seen.setdefault(example.uid, name) == name
    assert len(seen) > 500


def test_splits_do_not_depend_on_the_size_of_training(task):
    small, large = task.splits(0, 10), task.splits(0, 40)
    assert {e.uid for e in small["train"]} < {e.uid for e in large["train"]}
    for name in small.keys() - {"train"}:
        assert small[name] == large[name]


def test_the_same_call_gives_the_same_data(task):
    assert data.digest(task.splits(0)) == data.digest(task.splits(0))
    assert data.digest(task.splits(0, 10)) != data.digest(task.splits(0, 11))


@pytest.mark.parametrize("size", [0, 10**6])
def test_impossible_sizes_are_refused(task, size):
    with pytest.raises(UserError, match="train_size"):
        task.splits(0, size)


def test_a_split_is_decided_by_the_text_alone():
    examples = [Example(f"text {index}", label=0) for index in range(400)]
    split = data.three_way(examples, 0.5, 0.2)
    again = data.three_way(reversed(examples), 0.5, 0.2)
    assert split == again
    counts = [len(part) for part in split]
    # binomial: five standard deviations
    for count, share in zip(counts, (0.5, 0.2, 0.3), strict=True):
        assert abs(count - 400 * share) < 5 * (400 * share * (1 - share)) ** 0.5
    twice = data.three_way([*examples, Example("Text  7", label=1)], 0.5, 0.2)
    assert twice == split  # the same text but for case and spaces


def test_sentiment_has_the_counted_snippets_with_their_scores():
    assets.fetch(["snippets"])
    counts = {domain: len(sentiment.read(domain)) for domain in sentiment.FILES}
    assert counts == {"movies": 10072, "amazon": 2985, "nyt": 2970, "tweets": 3432}
    for example in sentiment.read("movies"):
        assert example.label == (example.score > 0)
        assert 0.5 <= abs(example.score) <= 4


@pytest.mark.parametrize("k", [5, 10, 20, 50, 100, 200])
def test_bbc_is_balanced_and_nested(k):
    assets.fetch(["bbc"])
    splits = TASKS["bbc_fewshot"].splits(seed=3, train_size=k)
    counts = {name: np.bincount([e.label for e in part]).tolist() for name, part in splits.items()}
    assert counts == {"train": [k] * 5, "validation": [40] * 5, "test": [100] * 5}
    other = TASKS["bbc_fewshot"].splits(seed=4, train_size=k)
    assert other["test"] == splits["test"]
    assert other["train"] != splits["train"]


def test_bbc_has_its_five_classes():
    assets.fetch(["bbc"])
    assert [len(bbc_fewshot.read(name)) for name in bbc_fewshot.CLASSES] == [510, 386, 417, 511, 401]


def test_chain_sums_are_right_and_of_the_stated_shape():
    splits = TASKS["chain_sum"].splits()
    for name, examples in splits.items():
        for example in examples:
            terms = example.text.replace("- ", "+ -").split(" + ")
            assert sum(map(int, terms)) == int(example.answer)
            digits = {len(term.lstrip("-")) for term in terms}
            assert len(terms) == (3 if name == "near_3_terms" else 2)
            assert digits == {3} if name == "near_3_digits" else digits <= {1, 2}
    assert chain_sum.generate("x", 5, 2, (1,)) == chain_sum.generate("x", 5, 2, (1,))


def test_gsm_templates_are_split_and_solved():
    assets.fetch(["reasoning-gym"])
    used = [*gsm_symbolic.RANGES["train"], *gsm_symbolic.RANGES["near_templates"]]
    assert sorted([*used, *gsm_symbolic.RANGES["far_templates"]]) == list(range(100))
    near = {example.uid for example in gsm_symbolic.draws("near_templates", each=3)}
    train = {example.uid for example in gsm_symbolic.draws("train", each=3)}
    assert not near & train
    for template in set(range(100)) - gsm_symbolic.BROKEN:
        example = gsm_symbolic.generate(template, 0)
        stated = example.answer.rpartition("####")[2].strip()
        assert gsm_symbolic.last_number(example.answer) == stated.replace(",", "").removesuffix(".0")


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("so 3 apples", "3"),
        ("1,200 is it", "1200"),
        ("#### 7.50", "7.50"),
        ("2.0", "2"),
        ("-4", "-4"),
        ("", None),
    ],
)
def test_the_last_number_is_found(text, number):
    assert gsm_symbolic.last_number(text) == number


# --- order ---------------------------------------------------------------------------------------


def test_every_epoch_sees_every_example_once():
    seen = [index for step in range(6) for index in batch_indices(5, step, 15, 5)]
    assert sorted(seen[:15]) == sorted(seen[15:]) == list(range(15))
    assert seen[:15] != seen[15:]
    across = [index for step in range(5) for index in batch_indices(5, step, 15, 6)]
    assert across == seen  # an epoch's end inside a batch changes nothing


def test_the_order_is_the_same_everywhere():
    # written down once: another machine, Python or library must give the same order
    assert batch_indices(0, 0, 10, 10) == [8, 4, 2, 6, 0, 7, 5, 1, 9, 3]
    assert batch_indices(1, 0, 10, 10) != batch_indices(0, 0, 10, 10)


# --- encoding ------------------------------------------------------------------------------------


def test_only_the_answer_counts_for_a_decoder():
    encoding = Encoding(TASKS["chain_sum"], ByteTokenizer(), "decoder", 96)
    items = [encoding.item(Example("1 + 2", answer=" 3")), encoding.item(Example("10 + 20", answer=" 30"))]
    batch = collate(items, "decoder", ByteTokenizer.pad_id, torch.device("cpu"))
    prompt = bytes(batch.inputs["input_ids"][0, : items[0].answer_start].tolist()).decode()
    assert prompt == TASKS["chain_sum"].prompt.format(text="1 + 2")
    counted = batch.targets != IGNORED
    assert counted.sum(1).tolist() == [3, 4]  # " 3" and end; " 30" and end
    assert batch.targets[0][counted[0]].tolist() == [ord(" "), ord("3"), ByteTokenizer.end_id]
    # the target at a position is the token that follows it
    for row, item in enumerate(items):
        for place in counted[row].nonzero().flatten().tolist():
            assert batch.targets[row, place] == item.ids[place + 1]
    assert batch.inputs["attention_mask"].sum(1).tolist() == [len(item.ids) for item in items]


def test_an_encoder_keeps_the_closing_token_of_a_long_text():
    class Marked(ByteTokenizer):
        def encode(self, text, special=True):
            return [1, *text.encode(), 2]

    encoding = Encoding(TASKS["sentiment"], Marked(), "encoder", 8)
    assert encoding.item(Example("long enough text", label=1)).ids == (1, *b"long e", 2)


def test_a_decoder_reads_labels_and_keeps_the_end_of_the_prompt():
    encoding = Encoding(TASKS["sentiment"], ByteTokenizer(), "decoder", 48)
    item = encoding.item(Example("x" * 100, label=1))
    assert len(item.ids) == 48
    assert bytes(item.ids[: item.answer_start]).endswith(b"x\nSentiment:")
    assert bytes(item.ids[item.answer_start : -1]) == b" positive"
    assert encoding.deciding_token() == (1, [ord("n"), ord("p")])


def test_what_does_not_fit_is_refused():
    with pytest.raises(UserError, match="needs a decoder"):
        Encoding(TASKS["chain_sum"], ByteTokenizer(), "encoder", 64)
    short = Encoding(TASKS["chain_sum"], ByteTokenizer(), "decoder", 50)
    needed = len(TASKS["chain_sum"].prompt.format(text="1 + 2")) + len(" 3") + 1
    with pytest.raises(UserError, match=f"max_length 50 is {needed - 50} tokens too short"):
        short.item(Example("1 + 2", answer=" 3"))


# --- measures ------------------------------------------------------------------------------------


def test_rank_correlation_agrees_with_scipy():
    from scipy.stats import spearmanr

    rng = np.random.default_rng(0)
    first, second = rng.integers(0, 5, 60), rng.standard_normal(60)
    assert metrics.spearman(first, second) == pytest.approx(spearmanr(first, second).statistic, abs=1e-12)
    assert metrics.spearman(np.ones(4), np.arange(4)) is None


def test_classification_measures_on_a_case_done_by_hand():
    probabilities = np.array([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.7, 0.3]])
    measured = metrics.classification(np.log(probabilities), np.array([0, 1, 1, 0]), np.array([-2, 1, 3, -1]))
    assert measured["accuracy"] == 0.75
    assert measured["accuracy_recentred"] == 1.0  # the two largest margins are the two positives
    assert measured["log_loss"] == pytest.approx(-np.log([0.9, 0.4, 0.8, 0.7]).mean())
    assert measured["rho"] == pytest.approx(1.0)
    three = metrics.classification(np.log(np.full((2, 3), 1 / 3)), np.array([0, 2]), None)
    assert three == {"accuracy": 0.5, "log_loss": pytest.approx(np.log(3))}


def test_completion_measures_on_a_case_done_by_hand():
    measured = metrics.completion(np.array([1.0, 5.0]), np.array([2, 4]), np.array([True, False]))
    assert measured == {"exact_match": 0.5, "answer_loss": 1.0, "log_loss": 3.0}
