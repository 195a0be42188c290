"""The benchmark counts what there is to count: products, storages, rounds. No test here looks at a clock."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys

import pytest
import torch
from torch import nn

from llm_experiments.__main__ import main
from llm_experiments.bench import lean, report, rounds, switching
from llm_experiments.bench.arms import ARMS, PAIRS, lora_parameters, s2ft_mix
from llm_experiments.bench.rounds import Measured, measure
from llm_experiments.bench.shapes import SHAPES, source
from llm_experiments.bench.statistics import paired_ratio, quartiles
from llm_experiments.bench.step import Step, flops, memory, storages
from reports import store

BATCH, LENGTH = 2, 8
TOKENS = BATCH * LENGTH
TINY = SHAPES["tiny"]
D, F, V, LAYERS = (TINY[k] for k in ("hidden_size", "intermediate_size", "vocab_size", "num_hidden_layers"))
HEADS = TINY["num_attention_heads"]


def step_of(arm: str, base: str = "plain", dtype: torch.dtype = torch.float32) -> Step:
    model = source("tiny", dtype).build()
    ids = torch.randint(V, (BATCH, LENGTH), generator=torch.Generator().manual_seed(0))
    return Step(ARMS[arm], model, base, ids)


# --- statistics ----------------------------------------------------------------------------------


def test_quartiles_interpolate_between_ordered_values():
    assert quartiles([4.0, 1.0, 2.0, 3.0, 5.0]) == (2.0, 3.0, 4.0)
    assert quartiles([1.0, 2.0]) == (1.25, 1.5, 1.75)
    assert quartiles([7.0]) == (7.0, 7.0, 7.0)
    with pytest.raises(ValueError, match="at least one"):
        quartiles([])


def test_a_ratio_is_paired_by_round_and_ignores_slow_rounds():
    slow = [1.0, 10.0, 1.0, 100.0, 1.0]
    over, under = [0.8 * s for s in slow], slow
    assert paired_ratio(over, under) == pytest.approx((0.8, 0.8, 0.8))
    # the ratio of the medians would be another number here
    over = [1.0, 2.0, 30.0]
    assert paired_ratio(over, [2.0, 1.0, 10.0])[1] == 2.0 != statistics.median(over) / 2.0
    with pytest.raises(ValueError, match="same rounds"):
        paired_ratio([1.0], [1.0, 2.0])


# --- arithmetic ----------------------------------------------------------------------------------


def products(arm: str, base: str = "plain") -> int:
    return flops(step_of(arm, base))["products"]


FORWARD = LAYERS * (4 * D * D + 3 * D * F) + D * V  # multiplications per token, forward


@pytest.mark.parametrize("base", ["plain", "lean"])
def test_products_of_floor_and_full_tuning_are_two_and_three_forward_passes(base):
    assert products("floor", base) == 2 * TOKENS * 2 * FORWARD
    assert products("full", base) == 2 * TOKENS * 3 * FORWARD


def test_attention_counts_two_products_forward_and_five_backward():
    per_product = 2 * BATCH * HEADS * LENGTH * LENGTH * (D // HEADS)
    assert flops(step_of("floor"))["attention"] == LAYERS * 7 * per_product
    # nothing below the first layer's output projection trains, so attention there needs no gradient
    assert flops(step_of("s2ft"))["attention"] == (2 * LAYERS + 5 * (LAYERS - 1)) * per_product


def test_s2ft_adds_its_slices_and_drops_what_lies_below_the_lowest():
    step = step_of("s2ft")
    slices = {n: p.numel() for n, p in step.core.named_parameters() if p.requires_grad}
    assert any("layers.0.mlp.down_proj" in name for name in slices)
    if any("layers.0.self_attn" in name for name in slices):
        below = 4 * D * D  # q, k, v lie below it, and o itself passes no gradient on
    else:
        below = 4 * D * D + 3 * D * F  # the lowest slice is in the first down projection
    assert flops(step)["products"] == 2 * TOKENS * (2 * FORWARD - below + sum(slices.values()))


def test_lora_adds_three_products_of_each_factor():
    step = step_of("lora")
    trained = sum(p.numel() for p in step.core.parameters() if p.requires_grad)
    assert trained == lora_parameters(source("tiny", torch.float32).build(), 3)
    below = 3 * D * D  # q, k, v of the first layer: nothing below them trains
    factors_below = 3 * 3 * D  # A of these
    expected = 2 * TOKENS * (2 * FORWARD - below + 3 * trained - factors_below)
    assert flops(step)["products"] == expected


# --- memory --------------------------------------------------------------------------------------


def test_a_view_counts_as_the_storage_behind_it():
    whole = torch.zeros(4, 100)
    assert storages([whole[:, :1], whole[0]]) == {whole.untyped_storage().data_ptr(): 1600}
    assert storages([torch.zeros(0)]) == {}


def kept(step: Step) -> int:
    return memory(step).activations // 4  # float32 numbers


@pytest.mark.parametrize("arm", list(ARMS))
@pytest.mark.parametrize("base", ["plain", "lean"])
def test_state_and_added_weights_are_those_of_the_trained_numbers(arm, base):
    step = step_of(arm, base)
    step()
    found, trained = memory(step), step.built.trainable
    assert found.gradients == 4 * trained
    assert found.optimizer == 8 * trained
    assert found.weights == 4 * (LAYERS * (4 * D * D + 3 * D * F + 2 * D) + 2 * V * D + D) + rotary(step)
    added = {"floor": 0, "full": 0}
    # a slice is a view of the weight: only its pretrained values (and their places) are added
    positions = 8 * sum(b.numel() for b in step.core.buffers() if b.dtype == torch.int64)
    assert found.added == added.get(arm, 4 * trained + extra(arm, trained) + positions)


def extra(arm: str, trained: int) -> int:
    """cLA's factor form keeps B and the pretrained columns."""
    return 4 * trained if arm == "cla_factor" else 0


def rotary(step: Step) -> int:
    return sum(b.untyped_storage().nbytes() for n, b in step.core.named_buffers() if "inv_freq" in n)


def test_s2ft_keeps_copied_slices_where_lora_keeps_whole_inputs():
    plain = {arm: kept(step_of(arm)) for arm in ("s2ft", "lora", "full", "floor", "dora")}
    assert plain["s2ft"] < plain["floor"] < plain["lora"] < plain["full"] < 2 * plain["lora"]
    assert plain["dora"] > plain["lora"]


def test_lean_code_keeps_the_sum_that_its_table_says():
    difference = kept(step_of("floor")) - kept(step_of("floor", "lean"))
    swiglu = LAYERS * TOKENS * F
    loss = TOKENS * V + 1 - TOKENS * D  # log-probabilities and total weight, against the state's gradient
    norms = 0
    assert abs(difference - (swiglu + loss + norms)) <= TOKENS * D + 2, (difference, swiglu, loss)


# --- the lean code is the same network -------------------------------------------------------------


@pytest.mark.parametrize("arm", ["full", "lora", "s2ft", "cla"])
def test_lean_code_computes_the_same_loss_and_gradients(arm):
    plain, thin = step_of(arm), step_of(arm, "lean")
    torch.testing.assert_close(thin.forward(), plain.forward(), rtol=1e-6, atol=1e-6)
    for step in (plain, thin):
        step.forward().backward()
    first = [p.grad for p in plain.core.parameters() if p.requires_grad]
    second = [p.grad for p in thin.core.parameters() if p.requires_grad]
    assert len(first) == len(second) > 0
    for a, b in zip(first, second, strict=True):
        torch.testing.assert_close(b, a, rtol=1e-4, atol=1e-7)


def test_norm_and_swiglu_have_the_right_gradients():
    norm = nn.Module()
    norm.weight, norm.variance_epsilon = nn.Parameter(torch.rand(6, dtype=torch.float64)), 1e-6
    x = torch.randn(3, 6)
    ours = lean.LeanNorm(norm)
    reference = torch.nn.functional.rms_norm(x.double(), (6,), norm.weight, 1e-6)
    torch.testing.assert_close(ours(x.double()), reference, rtol=1e-6, atol=1e-6)
    gate, up = (torch.randn(3, 5, dtype=torch.float64, requires_grad=True) for _ in range(2))
    assert torch.autograd.gradcheck(lean._SwiGlu.apply, (gate, up))


def test_chunked_loss_equals_cross_entropy_over_several_chunks(monkeypatch):
    monkeypatch.setattr(lean, "CHUNK", 3)
    states = torch.randn(8, 4, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(7, 4, dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([1, 2, -100, 0, 6, -100, 3, 3])
    ours = lean.chunked_loss(states, weight, labels)
    reference = torch.nn.functional.cross_entropy(states @ weight.T, labels)
    torch.testing.assert_close(ours.double(), reference, rtol=1e-5, atol=1e-6)
    for mine, theirs in zip(
        torch.autograd.grad(3 * ours, (states, weight)),
        torch.autograd.grad(3 * reference, (states, weight)),
        strict=True,
    ):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # torch, inside itself
def test_compiled_steps_equal_eager_ones(monkeypatch):
    """The whole graph is captured, slices that share storage with their weight included."""
    compile_ = torch.compile
    monkeypatch.setattr(
        torch, "compile", lambda f, **k: compile_(f, backend="aot_eager", fullgraph=True, **k)
    )
    for base in ("compiled", "lean+compiled"):
        eager, compiled = step_of("s2ft", base.replace("compiled", "plain")), step_of("s2ft", base)
        for _ in range(2):
            torch.testing.assert_close(compiled(), eager())
        for a, b in zip(eager.core.parameters(), compiled.core.parameters(), strict=True):
            torch.testing.assert_close(a, b)
    torch._dynamo.reset()


# --- arms ------------------------------------------------------------------------------------------


def test_the_mix_of_s2ft_is_the_published_share():
    chosen = s2ft_mix(_meta("anchor"), seed=0)["selected"]
    heads = sum(len(v) for k, v in chosen.items() if k.endswith("/heads"))
    channels = [len(v) for k, v in chosen.items() if k.endswith("/channels")]
    assert (heads, sum(channels), max(channels) - min(channels)) == (4, 220, 1)
    assert 64 * 512 * heads + 512 * sum(channels) == 243_712


def _meta(name: str) -> nn.Module:
    """A shape without numbers: selections only look at names and sizes."""
    from transformers import LlamaConfig, LlamaForCausalLM

    shape = SHAPES[name]
    with torch.device("meta"):
        return LlamaForCausalLM(LlamaConfig(**shape, num_key_value_heads=shape["num_attention_heads"]))


def test_the_mix_leaves_grouped_heads_alone_and_spends_what_lora_spends(build):
    model = build("llama_gqa")
    chosen = s2ft_mix(model, seed=0)["selected"]
    assert all(name.endswith("/channels") for name in chosen)
    spent = sum(len(v) for v in chosen.values()) * model.config.hidden_size
    assert 0 <= lora_parameters(model, 3) - spent < model.config.hidden_size


def test_shapes_have_the_sizes_that_their_names_say():
    assert sum(p.numel() for p in _meta("anchor").parameters()) == 29_499_904
    assert 1.0e9 < sum(p.numel() for p in _meta("1b").parameters()) < 1.1e9


def test_numbers_train_in_the_type_of_the_weights_but_for_the_arm_that_says_otherwise():
    for arm in ("lora", "s2ft", "cla", "lora_f32"):
        step = step_of(arm, dtype=torch.bfloat16)
        kinds = {p.dtype for p in step.core.parameters() if p.requires_grad}
        assert kinds == {torch.float32 if arm == "lora_f32" else torch.bfloat16}


# --- rounds and record -----------------------------------------------------------------------------


def test_every_round_takes_one_step_of_every_arm_in_changing_order(monkeypatch):
    taken = []
    timed = Step.timed

    def noted(self):
        taken.append((self.arm.name, self.base))
        return timed(self)

    monkeypatch.setattr(Step, "timed", noted)
    tiny = source("tiny", torch.float32)
    found = measure(
        tiny, ["lora", "s2ft", "full"], ["plain"], batch=1, length=4, rounds=6, device="cpu", seed=1
    )
    by_round = [tuple(taken[i : i + 3]) for i in range(0, 18, 3)]
    assert len(taken) == 18 and len({frozenset(r) for r in by_round}) == 1
    assert len(set(by_round)) > 1
    assert all(len(m.wall) == len(m.cpu) == 6 for m in found)


def test_no_arm_starts_after_the_time_and_three_rounds_are_made_at_least(monkeypatch):
    tiny = source("tiny", torch.float32)
    arguments = {"batch": 1, "length": 4, "rounds": 9, "device": "cpu"}
    late = measure(tiny, ["lora"], ["plain"], **arguments, until=0.0)
    assert [m.failed for m in late] == [rounds.TIME_IS_UP]
    clock = iter([0.0, *[2.0] * 100])
    monkeypatch.setattr(rounds.time, "monotonic", lambda: next(clock))
    (one,) = measure(tiny, ["lora"], ["plain"], **arguments, until=1.0)
    assert not one.failed and len(one.wall) == rounds.LEAST_ROUNDS


def test_an_arm_without_memory_is_named_and_the_others_go_on(monkeypatch):
    built = ARMS["lora"].build

    def full(model, seed):
        raise torch.OutOfMemoryError

    monkeypatch.setitem(ARMS, "full", type(ARMS["full"])("full", "-", full))
    tiny = source("tiny", torch.float32)
    found = measure(tiny, ["full", "lora"], ["plain"], batch=1, length=4, rounds=1, device="cpu")
    assert [(m.arm, m.failed) for m in found] == [("full", "out of memory"), ("lora", "")]
    assert report.arm_rows(found)[0]["step ms"] == "out of memory"
    assert all("full" not in row["ratio"] for row in report.ratio_rows(found))
    assert built is ARMS["lora"].build


def test_a_graph_that_does_not_compile_is_named_and_anything_else_is_raised(monkeypatch):
    def broken(step):
        msg = "no such kernel"
        raise RuntimeError(msg)

    monkeypatch.setattr(Step, "__call__", broken)
    tiny = source("tiny", torch.float32)
    arguments = {"batch": 1, "length": 4, "rounds": 1, "device": "cpu"}
    said = []
    (one,) = measure(tiny, ["lora"], ["compiled"], **arguments, say=said.append)
    assert one.failed == "torch.compile failed (RuntimeError)" and "no such kernel" in said[-1]
    with pytest.raises(RuntimeError, match="no such kernel"):
        measure(tiny, ["lora"], ["plain"], **arguments)


def test_other_base_code_is_compared_arm_by_arm():
    plain, thin = _fake("lora", [1.0, 2.0, 4.0]), _fake("lora", [0.5, 1.0, 2.0])
    thin.base = "lean"
    (row,) = report.base_rows([plain, thin])
    assert (row["ratio"], row["arm"], row["time"], row["memory"]) == ("lean / plain", "lora", 0.5, 1.0)


def _fake(arm: str, wall: list[float]) -> Measured:
    from llm_experiments.bench.step import Memory

    size = {"lora": 100, "s2ft": 74, "floor": 70}[arm] * report.MIB
    return Measured(arm, "plain", 10, wall, wall, {"products": 5, "attention": 1}, Memory(1, 0, 0, 0, size))


def test_targets_say_met_and_missed():
    found = [_fake("lora", [1.0, 1.0, 1.0]), _fake("s2ft", [0.7, 0.79, 0.9]), _fake("floor", [0.5, 0.5, 0.5])]
    ratios = report.ratio_rows(found)
    rows = {(r["ratio"], r["of"]): r for r in report.target_rows(ratios)}
    assert rows["s2ft / lora", "time"]["measured"] == 0.79
    assert rows["s2ft / lora", "time"]["outcome"] == "met in the median, not in the upper quartile"
    assert rows["s2ft / lora", "memory"]["outcome"] == "met"
    assert rows["s2ft / floor", "time"]["outcome"] == "missed"
    assert "s2ft / lora 0.79 (memory 0.74)" in report.headline(ratios, "here")


def test_pairs_name_arms():
    assert {name for pair in PAIRS for name in pair} <= set(ARMS)


# --- command ---------------------------------------------------------------------------------------


@pytest.fixture
def places(tmp_path, monkeypatch):
    monkeypatch.setenv("PEFTPROOF_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PEFTPROOF_REPORTS", str(tmp_path / "reports"))
    return tmp_path


SMALL = ["bench", "--model", "tiny", "--batch", "1", "--seq", "4", "--rounds", "2", "--threads", "1"]


def test_bench_prints_tables_and_leaves_a_record_with_the_processor(places, capsys):
    assert main([*SMALL, "--methods", "lora,s2ft", "--no-switching", "--no-resident"]) == 0
    shown = capsys.readouterr().out
    assert "Ratios, paired by round" in shown and "s2ft / lora" in shown
    path = store.record_path("bench", "training_step/tiny-batch1-seq4-float32-cpu")
    found = store.read_record(path)
    assert found["machine"]["processor"] and found["settings"]["rounds"] == 2
    assert {row["ratio"] for row in found["tables"]["Ratios, paired by round"]} == {"s2ft / lora"}
    assert len(found["rounds"]["s2ft plain"]["wall_ms"]) == 2
    assert store.run_path(path).is_file()


def test_bench_without_record_writes_nothing(places):
    assert (
        main(
            [*SMALL, "--methods", "lora", "--base", "plain", "--no-switching", "--no-resident", "--no-record"]
        )
        == 0
    )
    assert not (places / "reports").exists()


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--methods", "lora,nothing", "--methods must be among"),
        ("--base", "fat", "--base must be among"),
        ("--dtype", "float16", "--dtype must be among"),
        ("--rounds", "0", "--rounds must be at least 1"),
        ("--seq", "1", "--seq must be at least 2"),
        ("--device", "tpu", "--device must be cpu, cuda or cuda:N"),
        ("--model", "nowhere", "model must be one of"),
        ("--model", "tiny_bert", "decoder of the Llama family"),
        ("--methods", ",", "--methods must name at least one"),
    ],
)
def test_bad_input_is_one_line_and_exit_status_2(places, capsys, option, value, said):
    arguments = [
        *SMALL[:1],
        *[a for pair in zip(SMALL[1::2], SMALL[2::2], strict=True) if pair[0] != option for a in pair],
    ]
    assert main([*arguments, option, value]) == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert len(error) == 1 and said in error[0]


@pytest.mark.skipif(torch.cuda.is_available(), reason="about machines without a GPU; this one has one")
def test_a_missing_gpu_is_one_line(places, capsys):
    assert main([*SMALL, "--device", "cuda"]) == 2
    assert "device cuda is not there" in capsys.readouterr().err


def test_resident_memory_is_measured_in_a_process_of_its_own():
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "llm_experiments.bench.resident",
            "s2ft",
            "--model",
            "tiny",
            "--seq",
            "4",
            "--threads",
            "1",
        ],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    found = json.loads(done.stdout)
    assert found["built"] > 50 * report.MIB and found["over"] >= 0


# --- switching -------------------------------------------------------------------------------------


def test_all_forms_of_a_fuse_add_what_they_say():
    ways = switching.fuses(64, "cpu", torch.float64)
    for form in switching.FORMS:
        cells = dict(
            zip(
                ways[form].__code__.co_freevars,
                (c.cell_contents for c in ways[form].__closure__),
                strict=True,
            )
        )
        W = cells["W"]
        before = W.clone()
        ways[form]()
        change = W - before
        if form.startswith("lora"):
            torch.testing.assert_close(change, cells["B"] @ cells["A"])
        else:
            changed = change.abs().sum(1).nonzero()[:, 0]
            assert len(changed) == switching.CHANNELS
            torch.testing.assert_close(change[changed], cells["V"])


def test_adapters_of_a_switch_have_equal_bytes():
    d = 1024
    assert switching.RANK * 2 * d == switching.CHANNELS * d


def test_switching_has_a_row_for_every_size():
    table = switching.measure_switching([64, 96], rounds=2, device="cpu")
    assert [row["d"] for row in table] == [64, 96]
    assert all(row[form] > 0 for row in table for form in switching.FORMS)
