"""Performance estimation by PEPit: the worst mean squared gradient of randomised block descent, as a number.

It finds; what certifies is the exact identity of `theory.peso.pep_certificate`.
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
    from PEPit import PEP
    from PEPit.functions import SmoothFunction

    problem = PEP()
    f = problem.declare_function(SmoothFunction, L=1.0)
    partition = problem.declare_block_partition(d=blocks)
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
