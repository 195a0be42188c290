"""`advise`: the quadratic model against brute force, memory against a count, and the command itself."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from llm_experiments import models
from llm_experiments.__main__ import main
from llm_experiments.advise import cost, images, reach, sample
from llm_experiments.advise.command import ranked, size
from llm_experiments.methods import Budget

TEXTS = [
    "the cat sat on the mat",
    "a dog ran in the park",
    "we read books at night",
    "rain fell on the roof",
] * 2


@pytest.fixture
def texts(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("\n".join(TEXTS), encoding="utf-8")
    return path


@pytest.fixture
def labelled(tmp_path):
    path = tmp_path / "labelled.jsonl"
    rows = [{"text": ("ab " if i % 2 else "yz ") * 4 + text, "label": i % 2} for i, text in enumerate(TEXTS)]
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def llama():
    loaded = models.load("tiny_llama")
    examples = [sample.Example(text) for text in TEXTS]
    return loaded, sample.encode(loaded, examples, 24, 1000)


# --- the quadratic model -------------------------------------------------------------------------


def _layer(n: int = 5, m: int = 7) -> tuple[reach.Layer, torch.Tensor, torch.Tensor]:
    torch.manual_seed(3)
    G, X = torch.randn(n, m, dtype=torch.float64), torch.randn(40, m, dtype=torch.float64)
    Sigma = X.T @ X / 40
    return reach._whitened([G, G], reach._roots(Sigma), 1.0), G, Sigma


def _damped(Sigma: torch.Tensor) -> torch.Tensor:
    return Sigma + reach.DAMPING * Sigma.trace() / len(Sigma) * torch.eye(len(Sigma), dtype=Sigma.dtype)


def _gain_by_descent(G: torch.Tensor, Sigma: torch.Tensor, make, *parameters: torch.Tensor) -> float:
    """Twice the best decrease of `<G, D> + tr(D Sigma D') / 2` over `D = make()`, by L-BFGS."""
    optimizer = torch.optim.LBFGS(
        parameters, max_iter=2000, line_search_fn="strong_wolfe", tolerance_grad=1e-10, tolerance_change=1e-15
    )

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        D = make()
        value = (G * D).sum() + (D @ Sigma * D).sum() / 2
        value.backward()
        return value

    optimizer.step(closure)
    return -2 * float(closure().detach())


def _free(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, requires_grad=True)


def test_gain_of_all_weights_is_what_descent_finds():
    layer, G, Sigma = _layer()
    D = _free(5, 7)
    assert _gain_by_descent(G, _damped(Sigma), lambda: D, D) == pytest.approx(layer.whole, rel=1e-8)


def test_gain_of_a_rank_is_what_descent_on_two_factors_finds():
    layer, G, Sigma = _layer()
    for r in (1, 2, 4):
        B, A = _free(5, r), _free(r, 7)
        found = _gain_by_descent(G, _damped(Sigma), lambda B=B, A=A: B @ A, B, A)
        assert found == pytest.approx(float(layer.by_rank(r)[-1]), rel=1e-6)


def test_gain_of_columns_rows_and_a_frozen_factor_is_what_descent_finds():
    layer, G, Sigma = _layer()
    columns, rows, A = torch.tensor([1, 4]), torch.tensor([0, 3]), torch.randn(2, 7, dtype=torch.float64)
    B = _free(5, 2)
    E = torch.eye(7, dtype=torch.float64)[columns]
    assert _gain_by_descent(G, _damped(Sigma), lambda: B @ E, B) == pytest.approx(
        layer.of_columns(columns), rel=1e-8
    )
    B = _free(5, 2)
    assert _gain_by_descent(G, _damped(Sigma), lambda: B @ A, B) == pytest.approx(
        layer.of_directions(A), rel=1e-8
    )
    V = _free(2, 7)
    E = torch.eye(5, dtype=torch.float64)[:, rows]
    assert _gain_by_descent(G, _damped(Sigma), lambda: E @ V, V) == pytest.approx(
        layer.of_rows(rows), rel=1e-8
    )


def test_noise_alone_gains_nothing_on_the_other_half():
    torch.manual_seed(0)
    gains = []
    for _ in range(200):
        first, second = torch.randn(2, 6, 8, dtype=torch.float64)
        gains.append(float(reach.Layer((first, second), torch.eye(8, dtype=torch.float64)).by_rank(6)[1]))
    mean, spread = torch.tensor(gains).mean(), torch.tensor(gains).std() / len(gains) ** 0.5
    assert abs(float(mean / spread)) < 4  # false alarm once in 16,000
    inside = reach.Layer((first, first), torch.eye(8, dtype=torch.float64)).by_rank(6)[1]
    assert float(inside) > 20  # what a measure on the same half would have claimed


def test_critical_rank_finds_a_planted_rank():
    torch.manual_seed(1)
    planted = torch.randn(12, 3, dtype=torch.float64) @ torch.randn(3, 10, dtype=torch.float64)
    noisy = [planted + 0.05 * torch.randn(12, 10, dtype=torch.float64) for _ in range(2)]
    layer = reach.Layer((noisy[0], noisy[1]), torch.eye(10, dtype=torch.float64))
    assert reach.critical_rank({"only": layer}, share=0.99).rank == 3


def test_gradients_are_those_of_the_loss(llama):
    loaded, encoded = llama
    layers = reach.measured(loaded.model, encoded)
    assert len(layers) == 14  # seven linear layers in each of two blocks
    name = "model.layers.1.mlp.down_proj"
    weight = loaded.model.get_submodule(name).weight.requires_grad_(True)
    total, counted = 0.0, 0
    for i in encoded.halves()[0]:
        inputs, targets = encoded.batch([i])
        total = total + encoded.loss(loaded.model, inputs, targets)
        counted += int((targets != sample.IGNORED).sum())
    (gradient,) = torch.autograd.grad(total / counted, weight)
    weight.requires_grad_(False)
    layer = layers[name]
    unwhitened = layer.halves[0] @ layer.root  # the gradient times one number, the root of the curvature
    cosine = nn.functional.cosine_similarity(unwhitened.flatten(), gradient.double().flatten(), dim=0)
    assert float(cosine) == pytest.approx(1, abs=1e-6)


def test_reach_grows_with_the_budget_up_to_all(llama):
    loaded, encoded = llama
    layers = reach.measured(loaded.model, encoded)

    def share(name: str, budget: float) -> float:
        return images.reach(images.known(name), loaded.model, Budget.ratio(budget), layers).share

    assert share("full", 0.1) == pytest.approx(1)
    assert 0 < share("cla", 0.05) < share("cla", 0.3) < 1
    assert share("lora", 0.05) > share("cla", 0.05)
    assert images.reach(images.known("ia3"), loaded.model, Budget.ratio(0.1), layers).share is None


# --- memory --------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["full", "lora", "s2ft_r"])
def test_memory_of_a_batch_is_the_line_through_two_batches(llama, method):
    loaded, encoded = llama
    weights = cost.held(loaded.model)
    tuned = images.put_on(images.known(method), loaded.model, Budget.ratio(0.1))
    counted = cost.measured(tuned, encoded, weights, 24, steps=0)
    direct = cost._activations(tuned, encoded, 5, 24)
    assert counted.fixed + 5 * counted.per_example == pytest.approx(direct, rel=0.01)
    assert counted.gradients == 4 * counted.trains
    assert counted.moments == pytest.approx(8 * counted.trains, rel=0.01)
    fitting = counted.largest_batch(counted.total(7))
    assert fitting == 7 and counted.total(fitting + 1) > counted.total(7)


# --- the command ---------------------------------------------------------------------------------


def advise(*more: object) -> list[str]:
    return ["advise", "--steps", "1", "--batch", "2", "--length", "24", *map(str, more)]


def test_a_decoder_gets_a_ranked_table_with_evidence(texts, tmp_path, capsys):
    page = tmp_path / "advice.md"
    given = advise("--model", "tiny_llama", "--task-sample", texts, "--budget", "10%", "--out", page)
    assert main(given) == 0
    shown = capsys.readouterr().out
    assert "Critical rank:" in shown and "peft_vs_fft/thm_3_critical_rank (" in shown
    assert "Unknown:" in shown and "Accuracy after training" in shown
    assert page.read_text("utf-8").startswith("# Which method?\n")
    assert "| 1 | full | 100% |" in page.read_text("utf-8")


def test_an_encoder_with_labels_gets_json(labelled, capsys):
    given = advise("--model", "tiny_bert", "--task-sample", labelled, "--budget", "20%", "--json", "--switch")
    assert main([*given, "--method", "lora", "--method", "full"]) == 0
    advice = json.loads(capsys.readouterr().out)
    assert [row["method"] for row in advice["methods"]] == ["lora", "full"]
    assert advice["methods"][1]["obstacles"] == ["leaves a whole model for every task"]
    assert 0 < advice["methods"][0]["reach"] < 1.5


def test_both_halves_hold_every_class_even_when_classes_alternate(labelled):
    encoded = sample.encode(models.load("tiny_bert"), sample.read(labelled), 24, 1000)
    assert [{encoded.targets[i] for i in half} for half in encoded.halves()] == [{0, 1}, {0, 1}]


def test_a_memory_too_small_is_an_obstacle_with_its_reason(texts, capsys):
    given = advise("--model", "tiny_llama", "--task-sample", texts, "--memory", "300KiB", "--json")
    assert main([*given, "--method", "full"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["methods"]
    assert row["obstacles"] == ["does not fit the memory"] and row["seconds"] is None


def test_order_follows_the_preference():
    rows = [
        {
            "method": "a",
            "reach": 0.9,
            "bytes": 9,
            "seconds": 9,
            "fits": True,
            "mergeable": True,
            "switchable": True,
        },
        {
            "method": "b",
            "reach": 0.5,
            "bytes": 1,
            "seconds": 9,
            "fits": True,
            "mergeable": "no",
            "switchable": True,
        },
        {
            "method": "c",
            "reach": None,
            "bytes": 5,
            "seconds": 1,
            "fits": True,
            "mergeable": True,
            "switchable": True,
        },
    ]
    needs = {"merge": False, "switch": False}
    for prefer, order in (("reach", "abc"), ("memory", "bca"), ("time", "cab")):
        assert "".join(row["method"] for row in ranked(rows, needs, prefer)) == order
    assert "".join(row["method"] for row in ranked(rows, {"merge": True, "switch": False}, "memory")) == "cab"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--memory", "lots"], "--memory must be a size such as 8GiB or 500MB; got 'lots'"),
        (["--batch", "0"], "--batch must be at least 1; got 0"),
        (["--method", "lorra"], "there is no method 'lorra'; did you mean lora"),
        (["--prefer", "beauty"], "--prefer must be one of reach, memory, time; got 'beauty'"),
        (["--model", "nowhere"], "model must be one of"),
        (["--budget", "much"], "budget"),
        (["--task-sample", "absent.txt"], "--task-sample absent.txt cannot be read"),
        (["--model", "tiny_bert"], "is an encoder, and without labels it has no loss"),
    ],
)
def test_bad_input_is_one_line(texts, capsys, given, said):
    defaults = [] if "--model" in given else ["--model", "tiny_llama"]
    defaults += [] if "--task-sample" in given else ["--task-sample", str(texts)]
    assert main(["advise", *defaults, *given]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1


@pytest.mark.parametrize("line", ["no json", '{"label": 1}', '{"text": ""}', '{"text": "a", "answer": 3}'])
def test_a_bad_line_of_the_sample_is_named(tmp_path, capsys, line):
    path = tmp_path / "bad.jsonl"
    path.write_text('{"text": "fine"}\n' + line + "\n", encoding="utf-8")
    assert main(["advise", "--model", "tiny_llama", "--task-sample", str(path)]) == 2
    assert "bad.jsonl: line 2" in capsys.readouterr().err


def test_answers_alone_count_where_there_are_some():
    loaded = models.load("tiny_llama")
    encoded = sample.encode(loaded, [sample.Example("ab", answer="cd")] * 4, 24, 1000)
    ids, targets = encoded.ids[0], encoded.targets[0]
    assert bytes(ids[:4]) == b"abcd"
    # the last token of the question predicts the first of the answer
    assert targets == [sample.IGNORED, ord("c"), ord("d"), 257, sample.IGNORED]


def test_sizes_are_read():
    assert (size("8GiB"), size("500MB"), size("1.5 kib"), size("77")) == (2**33, 5 * 10**8, 1536, 77)
