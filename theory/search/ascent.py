"""Adversarial ascent without derivatives, many starts in one batch.

`climb` is an evolution with one child and a step size per start: cheap, robust, good at leaving bad regions.
`adapt` is evolution with an adapted covariance (CMA), several independent populations in one batch: it follows
the narrow ridges and cones in which the violations of sharp inequalities live. Both minimise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

Array = Any
Objective = Callable[[Array], Array]


def climb(
    f: Objective, z: Array, rng: Any, rounds: int, step: float = 0.5, groups: Sequence[slice] = ()
) -> tuple[Array, Array]:
    """(1+1)-evolution of every row of z: (points, values) after `rounds` rounds.

    A child differs in a share of the coordinates, in a single one by a step of its own size (the way from a
    sparse point to another), or in the scale of one group of coordinates (a ratio may grow without bound
    with the scale of one parameter).
    """
    values = f(z)
    steps = np.full(len(z), step)
    for _ in range(rounds):
        share = rng.choice([0.0, 0.2, 0.5, 1.0], (len(z), 1))
        moves = (rng.random(z.shape) < share) * rng.standard_normal(z.shape)
        trial = z + steps[:, None] * moves * (np.abs(z).mean(axis=1, keepdims=True) + 0.1)
        for row in np.flatnonzero(share[:, 0] == 0.0):
            if groups and rng.random() < 0.5:
                trial[row, groups[int(rng.integers(len(groups)))]] *= 2.0 ** rng.standard_normal()
            else:
                used = np.flatnonzero(trial[row]) if rng.random() < 0.7 else np.zeros(0, dtype=int)
                i = int(rng.choice(used)) if len(used) else int(rng.integers(z.shape[1]))
                kept = rng.choice([0.0, 1.0]) if rng.random() < 0.5 else rng.standard_normal()
                trial[row, i] = kept * trial[row, i] + rng.choice([0.0, 1.0]) * rng.standard_normal()
        new = f(trial)
        better = new < values
        z = np.where(better[:, None], trial, z)
        values = np.where(better, new, values)
        steps = np.clip(np.where(better, steps * 1.6, steps * 0.85), 1e-7, 4.0)
    return z, values


def adapt(f: Objective, starts: Array, rng: Any, evaluations: int, step: float = 0.3) -> tuple[Array, Array]:
    """Evolution with adapted covariance from each row of `starts`: (best points, best values).

    Source of the update rules: N. Hansen, "The CMA evolution strategy: a tutorial", arXiv:1604.00772.
    """
    runs, n = starts.shape
    children = 4 + int(3 * np.log(max(n, 2))) + 4
    parents = children // 2
    weights = np.log(parents + 0.5) - np.log(np.arange(1, parents + 1))
    weights /= weights.sum()
    mass = 1 / (weights**2).sum()
    c_sigma = (mass + 2) / (n + mass + 5)
    damping = 1 + c_sigma + 2 * max(0.0, np.sqrt((mass - 1) / (n + 1)) - 1)
    c_path = (4 + mass / n) / (n + 4 + 2 * mass / n)
    c_one = 2 / ((n + 1.3) ** 2 + mass)
    c_rank = min(1 - c_one, 2 * (mass - 2 + 1 / mass) / ((n + 2) ** 2 + mass))
    expected = np.sqrt(n) * (1 - 1 / (4 * n) + 1 / (21 * n * n))
    mean = starts.copy()
    sigma = step * (np.abs(starts).mean(axis=1) + 0.05)
    C = np.broadcast_to(np.eye(n), (runs, n, n)).copy()
    path, path_sigma = np.zeros((runs, n)), np.zeros((runs, n))
    best, best_values = starts.copy(), f(starts)
    lazy = max(1, int(1 / (10 * n * (c_one + c_rank))))
    B, scale = C.copy(), np.ones((runs, n))
    for generation in range(max(1, evaluations // (runs * children))):
        if generation % lazy == 0:
            C = (C + np.swapaxes(C, 1, 2)) / 2
            values, B = np.linalg.eigh(C)
            scale = np.sqrt(np.clip(values, 1e-20, 1e20))
        draws = rng.standard_normal((runs, children, n))
        steps = (draws * scale[:, None]) @ np.swapaxes(B, 1, 2)
        points = mean[:, None] + sigma[:, None, None] * steps
        scores = f(points.reshape(-1, n)).reshape(runs, children)
        order = np.argsort(scores, axis=1, kind="stable")[:, :parents]
        first = order[:, 0]
        lead = scores[np.arange(runs), first]
        better = lead < best_values
        best[better] = points[better, first[better]]
        best_values = np.where(better, lead, best_values)
        chosen = np.take_along_axis(steps, order[:, :, None], axis=1)
        shift = np.einsum("p,rpn->rn", weights, chosen)
        mean = mean + sigma[:, None] * shift
        whitened = np.einsum("rnm,rm->rn", B, np.einsum("rmn,rm->rn", B, shift) / scale)
        path_sigma = (1 - c_sigma) * path_sigma + np.sqrt(c_sigma * (2 - c_sigma) * mass) * whitened
        length = np.linalg.norm(path_sigma, axis=1)
        calm = length / np.sqrt(1 - (1 - c_sigma) ** (2 * generation + 2)) < (1.4 + 2 / (n + 1)) * expected
        path = (1 - c_path) * path + (calm * np.sqrt(c_path * (2 - c_path) * mass))[:, None] * shift
        C = (1 - c_one - c_rank) * C + c_one * path[:, :, None] * path[:, None]
        C = C + c_rank * np.einsum("p,rpn,rpm->rnm", weights, chosen, chosen)
        sigma = np.clip(
            sigma * np.exp(np.clip(c_sigma / damping * (length / expected - 1), -1, 1)), 1e-12, 1e6
        )
    return best, best_values
