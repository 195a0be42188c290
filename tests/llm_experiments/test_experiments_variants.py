"""Helpers of the rows on variants of LoRA: counting, ordering, comparing at equal loss, gradients inside and outside."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from llm_experiments.experiments.ablations import FACTORS, best, trend, usable
from llm_experiments.experiments.generalization_gap import ordered
from llm_experiments.experiments.intruders import correlation
from llm_experiments.experiments.loss_landscape import mean_rise
from llm_experiments.experiments.variants import METHODS, PAIRS, PRINTED, at_equal_loss, edges, spread
from llm_experiments.probes import full_gradient, intruder_sweep, pooled
from llm_experiments.probes.effective import effective_weights
from llm_experiments.probes.intruders import intruders
from llm_experiments.settings import Settings
from llm_experiments.train import Run

TINY = {"model": "tiny_bert", "task": "sentiment", "train_size": 12, "batch": 4, "steps": 3, "max_length": 16}
TINY |= {"eval_every": 0, "eval_items": 4, "final_items": 4, "budget": "15%", "splits": "train"}


def trained(method: str, **options) -> Run:
    run = Run(Settings(method, **TINY, options=options))
    run.train()
    return run


def test_every_method_has_its_printed_name_and_pairs_are_methods():
    assert set(PRINTED) == set(METHODS)
    assert {*PAIRS, *PAIRS.values()} <= set(METHODS)


def test_gaps_are_ordered_where_they_differ_clearly():
    gaps = {"low": [0.1, 0.11, 0.1], "high": [0.5, 0.52, 0.51], "noisy": [0.0, 0.9, 0.1]}
    assert ordered(gaps, {"low": 1.0, "high": 2.0, "noisy": 3.0}) == (1, 0, 0)
    assert ordered(gaps, {"low": 2.0, "high": 1.0, "noisy": 3.0}) == (0, 1, 0)
    assert ordered(gaps, {"low": 1.0, "high": 1.01, "noisy": 3.0}) == (0, 0, 1)
    assert ordered({m: v[:1] for m, v in gaps.items()}, dict.fromkeys(gaps, 1.0)) == (0, 0, 0), "one seed"


def test_values_at_equal_loss_are_taken_where_all_methods_get():
    curves = {"fast": [(1.0, 0.0), (0.5, 1.0), (0.0, 3.0)], "slow": [(1.0, 0.0), (0.6, 4.0)]}
    target, found = at_equal_loss(curves)
    assert target == 0.6
    assert found == {"fast": pytest.approx(0.8), "slow": 4.0}


def test_spread_is_the_standard_error():
    assert spread([1.0, 2.0, 3.0]) == pytest.approx(1 / math.sqrt(3))
    assert spread([1.0]) == 0


def test_rank_correlation_of_a_constant_is_zero():
    assert correlation([1, 2, 3], [4, 5, 6]) == pytest.approx(1)
    assert correlation([1, 2, 3], [5, 5, 5]) == 0


def test_best_and_usable_settings_pass_over_divergence():
    at = dict(zip(FACTORS, (0.5, 0.49, math.inf), strict=True))
    assert best(at) == 1.0
    assert usable(at) == 2


def test_a_trend_is_a_common_direction_of_all_chains():
    down, up, flat = [0.6, 0.5, 0.4], [0.4, 0.5, 0.6], [0.5, 0.505, 0.51]
    assert trend({"a": down, "b": down})[0] is False
    assert trend({"a": down, "b": up})[0] is True
    assert trend({"a": down, "b": flat})[0] is True
    assert trend({"a": [0.6, 0.4, 0.5], "b": down})[0] is True
    assert trend({"a": [0.6, math.inf], "b": down})[0] is None


def test_the_mean_rise_leaves_overflow_out():
    assert mean_rise(np.array([[1.0, 3.0], [np.inf, 2.0]]), 1.0) == pytest.approx(1.0)


def test_the_sweep_counts_what_the_definition_counts():
    run = trained("lora")
    probe = intruder_sweep.IntruderSweep(run, None)
    found, now = probe.measure(), effective_weights(run)
    for eps in (0.4, 0.6, 0.8):
        seen = [
            intruders(W0, now[name], [eps])[0] for name, W0 in probe.before.items() if (now[name] != W0).any()
        ]
        at = intruder_sweep.THRESHOLDS.index(eps)
        assert found["all"][at] == sum(one.printed for one in seen)
        assert found["top"][at] == sum(one.top for one in seen)
    assert found["changed"] == len(seen)
    assert found["all"] == sorted(found["all"]), "more vectors are far by a larger threshold"
    name, W0 = next(iter(probe.before.items()))
    assert found["norms"][name]["frobenius"] == pytest.approx(float((now[name] - W0).norm()), rel=1e-5)


def test_the_full_gradient_is_the_slope_of_the_loss():
    run = trained("asym_lora")
    loss, gradients = full_gradient.full_gradient(run)
    assert set(gradients) == set(effective_weights(run))
    # the gradient by B of W0 + s B A is s G A'
    run.optimizer.zero_grad()
    batch = run.learner.batch(run.splits["train"], list(range(12)))
    summed, count = run.learner.loss(batch)
    (summed / count).backward()
    assert float(summed.detach() / count) == pytest.approx(loss, rel=1e-5)
    for name, A in full_gradient.row_factors(run).items():
        layer = run.tuned.model.get_submodule("base_model.model." + name.removesuffix(".weight"))
        expected = layer.scaling["default"] * gradients[name] @ A.double().T
        torch.testing.assert_close(
            layer.lora_B["default"].weight.grad.double(), expected, rtol=1e-4, atol=1e-7
        )


def test_the_parts_of_the_gradient_add_up():
    generator = torch.Generator().manual_seed(0)
    G, A = (torch.randn(n, 9, generator=generator, dtype=torch.float64) for n in (5, 2))
    inside = full_gradient.inside_rows(G, A)
    P = A.T @ torch.linalg.inv(A @ A.T) @ A
    assert float(inside.square().sum()) == pytest.approx(float((G @ P).square().sum()))
    run = trained("asym_lora")
    found = full_gradient.FullGradient(run, None).measure()
    assert found["inside"] + found["outside"] == pytest.approx(found["square"], rel=1e-9)
    assert 0 < found["inside"] < found["outside"]


def test_full_tuning_has_no_rows_of_its_own():
    found = full_gradient.FullGradient(trained("full"), None).measure()
    assert found["inside"] is None and found["square"] > 0


def test_a_sparse_change_has_zeros_and_heavy_tails():
    sparse, full = (pooled.Histogram(trained(m), None).measure() for m in ("spft", "full"))
    assert full["zero"] < 0.01 < 0.5 < sparse["zero"] < 1
    assert sum(sparse["shares"]) + sparse["zero"] == pytest.approx(1, abs=1e-6)
    assert sparse["kurtosis"] > full["kurtosis"]


def test_bounds_get_the_numbers_of_the_run():
    run = trained("lora")
    found = pooled.BoundInputs(run, None).measure()
    assert found["one_link"] == run.tuned.counted()
    assert found["samples"] == 12 and found["bits"] == 32
    assert found["head"] == sum(p.numel() for p in run.learner.head.parameters())
    assert found["all"] > found["one_link"] + found["head"]


def test_curvature_is_that_of_the_training_loss():
    found = pooled.Curvature(trained("cla"), None).measure()
    assert found["examples"] == 12 and found["top"] > 0
    assert found["residual"] < found["top"]


def test_rates_at_the_edge_are_named():
    class Chosen:
        rates = {
            ("main", "lora", "1.4%"): {"bed": "main", "method": "lora", "at the edge": True},
            ("main", "s2ft_r", "1.4%"): {"bed": "main", "method": "s2ft_r", "at the edge": True},
            ("main", "full", "1.4%"): {"bed": "main", "method": "full", "at the edge": False},
            ("topics", "cla", "1.4%"): {"bed": "topics", "method": "cla", "at the edge": True},
        }

    assert edges(Chosen(), ["full", "lora", "cla", "s2ft_w_large"]) == ["lora", "s2ft_w_large"]
