"""The executable algorithms against loops that build A and B as the pseudocode does."""

from __future__ import annotations

from fractions import Fraction

import pytest

from theory import instances
from theory.kits.exact import Exact
from theory.lora_variants.chains import counters, printed_starts, repaired_starts, run

GRID = [(T, k) for T in range(1, 9) for k in range(1, T + 1)]


def by_hand(steps: int, length: int, offsets: list[int], width: int) -> list[list[Fraction]]:
    """Models of Algorithm 3 with r = 1 on one row, loss |w|^2 / 2, gamma = 1/3, alpha / r = 2, shift by `offsets`."""
    base, c, b = [Fraction(j + 1) for j in range(width)], 0, Fraction(0)
    models = []
    for t in range(1, steps + 1):
        if t % length == 0:
            base[offsets[c]] += 2 * b
            c, b = c + 1, Fraction(0)
        gradient = base[offsets[c]] + 2 * b
        b -= Fraction(2, 3) * gradient
        models.append([w + (2 * b if j == offsets[c] else 0) for j, w in enumerate(base)])
    return models


@pytest.mark.parametrize(("steps", "chains"), GRID)
def test_the_run_is_the_pseudocode(steps: int, chains: int) -> None:
    starts = printed_starts(steps, chains)
    width = 1 + len(starts)
    kit = Exact()
    x = instances.load(
        kit,
        {
            "W": [[str(j + 1) for j in range(width)]],
            "Q": [[str(int(i == j)) for j in range(width)] for i in range(width)],
            "gamma": "1/3",
            "scale": "2",
            "r": 1,
            "steps": steps,
            "offsets": list(range(width)),
        },
    )
    models = [kit.data(after)[0] for _, after, _ in run(kit, x, starts)]
    assert models == by_hand(steps, steps // chains, list(range(width)), width)


@pytest.mark.parametrize(("steps", "chains"), GRID)
def test_repaired_chains_are_k_and_none_is_short(steps: int, chains: int) -> None:
    counts = counters(steps, repaired_starts(steps, chains))
    assert sorted(set(counts)) == list(range(chains))
    assert min(counts.count(c) for c in range(chains)) == steps // chains


def test_more_chains_than_steps_start_nothing() -> None:
    assert printed_starts(1, 2) == repaired_starts(1, 2) == []
