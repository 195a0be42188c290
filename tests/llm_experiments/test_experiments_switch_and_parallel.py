"""What switches leave behind, exponents of times, and one adapter for every example."""

import pytest
import torch

from llm_experiments.bench.serving import measure_serving
from llm_experiments.experiments.switch_and_parallel import exponent, leftovers


def test_subtracting_leaves_rounding_errors_and_copying_back_leaves_none():
    generator = torch.Generator().manual_seed(0)
    base = torch.randn(500, generator=generator)
    changes = [torch.randn(500, generator=generator) * (torch.arange(500) % 3 == k) for k in range(2)]
    rows = leftovers("S2FT", base, changes)
    assert {(row["format"], row["way"]) for row in rows} == {
        (f, w) for f in ("float32", "bfloat16", "float16") for w in ("subtract and add", "copy back")
    }
    for row in rows:
        if row["way"] == "copy back":
            assert row["entries changed"] == 0
            assert row["after 1000"] == 0
        else:
            assert 0 < row["entries changed"] <= 2 / 3  # channels of no adapter stay
            assert row["after 1000"] > 0


def test_exponent_of_a_power_law():
    assert exponent([{"d": d, "t": 3e-6 * d**1.7} for d in (64, 128, 512)], "t") == pytest.approx(1.7)


def test_both_forms_answer_every_example_by_its_own_adapter():
    for found in measure_serving((1, 5), d=48, rounds=2, device="cpu"):
        assert found.error < 1e-5
        assert len(found.lora) == len(found.s2ft) == len(found.tuner) == 2
