"""Performance estimation by PEPit: the worst mean squared gradient of block descent, as a number.

It finds; what certifies are exact multipliers (`theory.peso.pep_certificate`, `theory.peso.finite_time`) or exact
data of a smooth loss (`theory.lora_variants.thm_2_cyclic`).
"""

from __future__ import annotations

from typing import Any


def worst_mean_gradient(blocks: int, steps: int, gamma: float) -> float:
    """The largest mean over steps and draws of |grad f|^2 with f(W_0) - inf f <= 1, over all 1-smooth f.

    Args:
        blocks: Equally likely coordinate blocks, one drawn at each step.
        steps: Number of steps; the scenario tree has blocks^0 + ... + blocks^steps nodes.
        gamma: The step.
    """
    f, problem, partition = _smooth_loss(blocks)
    level: list[Any] = [problem.set_initial_point()]
    start, total = None, 0
    for depth in range(steps + 1):
        children = []
        for point in level:
            gradient, value = f.oracle(point)
            start = value if start is None else start
            problem.add_constraint(start - value + gradient**2 / 2 <= 1)  # the infimum of f may be start - 1
            if depth < steps:
                total = total + gradient**2 * (1 / len(level))
                children += [point - gamma * partition.get_block(gradient, b) for b in range(blocks)]
        level = children
    problem.set_performance_metric(total / steps)
    return float(problem.solve(verbose=0))


def worst_cyclic_gradient(blocks: int, steps: int, gamma: float) -> float:
    """The same for the blocks in the order 0, 1, ..., blocks - 1, 0, ...; the mean over W_0, ..., W_(steps-1)."""
    f, problem, partition = _smooth_loss(blocks)
    point, start, total = problem.set_initial_point(), None, 0
    for number in range(steps + 1):
        gradient, value = f.oracle(point)
        start = value if start is None else start
        problem.add_constraint(start - value + gradient**2 / 2 <= 1)
        if number < steps:
            total = total + gradient**2
            point = point - gamma * partition.get_block(gradient, number % blocks)
    problem.set_performance_metric(total / steps)
    return float(problem.solve(verbose=0))


def worst_tuned_part(blocks: int, steps: int, gamma: float) -> float:
    """The largest mean over T restarts of |P_k G_k|^2, restart k tuning block k mod `blocks` with the step gamma.

    Since |G_k|^2 = |P_k G_k|^2 + delta_k^2, it is the smallest first term of the finite-time form of PESO for
    restarts in that order, with f(W_0) - inf f <= 1 and a 1-smooth f.
    """
    f, problem, partition = _smooth_loss(blocks)
    point, start, total = problem.set_initial_point(), None, 0
    for number in range(steps + 1):
        gradient, value = f.oracle(point)
        start = value if start is None else start
        problem.add_constraint(start - value + gradient**2 / 2 <= 1)
        if number < steps:
            part = partition.get_block(gradient, number % blocks)
            total, point = total + part**2, point - gamma * part
    problem.set_performance_metric(total / steps)
    return float(problem.solve(verbose=0))


def _smooth_loss(blocks: int) -> tuple[Any, Any, Any]:
    """A 1-smooth loss, its problem and the partition of its weights."""
    from PEPit import PEP
    from PEPit.functions import SmoothFunction

    problem = PEP()
    return problem.declare_function(SmoothFunction, L=1.0), problem, problem.declare_block_partition(d=blocks)
