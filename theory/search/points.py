"""Where to look: samplers of the free parameters, each (rng, shapes, count) -> an array (count, total).

Every sampler draws the kind of each parameter independently of the others: the small and structured points
of one parameter meet the dense points of another.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np

from theory.instances import Shapes, count

Array = Any


def boundary(shapes: Shapes) -> Array:
    """Zeros, ones, identities, exchanges, each parameter zero in turn; (points, total)."""
    kinds: tuple[Callable[[int, int], Array], ...] = (
        lambda m, n: np.zeros((m, n)),
        lambda m, n: np.eye(m, n),
        lambda m, n: np.ones((m, n)),
        lambda m, n: np.eye(m, n)[::-1],
        lambda m, n: np.eye(m, n, k=1),
    )
    names = list(shapes)
    rows = []
    if len(names) <= 4:
        rows += [
            [kind(*shapes[n]) for kind, n in zip(choice, names, strict=True)]
            for choice in product(kinds, repeat=len(names))
        ]
    else:
        for kind in kinds:
            rows.append([kind(*shapes[n]) for n in names])
            for j in range(len(names)):
                for other in kinds:
                    rows.append([(other if i == j else kind)(*shapes[n]) for i, n in enumerate(names)])
    return np.array([np.concatenate([p.ravel() for p in r]) if r else np.zeros(0) for r in rows]).reshape(
        len(rows), count(shapes)
    )


def small(rng: Any, shapes: Shapes, total: int) -> Array:
    """Small integers; each parameter zero, identity-like, diagonal, sparse, a signed permutation or dense."""
    parts = [np.zeros((total, 0))]
    for m, n in shapes.values():
        kind = rng.integers(0, 7, (total, 1, 1))
        G = rng.integers(-2, 3, (total, m, n))
        E = np.eye(m, n)
        wide = rng.integers(-5, 6, (total, m, n))
        order = np.argsort(rng.random((total, n)), axis=1)
        permuted = np.broadcast_to(E, (total, m, n))[np.arange(total)[:, None], :, order].swapaxes(1, 2)
        Z = np.select(
            [kind == 0, kind == 1, kind == 2, kind == 3, kind == 4, kind == 5],
            [
                0 * G,
                0 * G + E,
                G * E,
                G * (rng.random((total, m, n)) < 0.35),
                permuted * np.sign(G + 0.5),
                wide,
            ],
            G,
        )
        parts.append(Z.reshape(total, -1).astype(float))
    return np.concatenate(parts, axis=1)


def gaussian(rng: Any, shapes: Shapes, total: int) -> Array:
    """Standard normal parameters."""
    return rng.standard_normal((total, count(shapes)))


def _low_rank(rng: Any, b: int, m: int, n: int, _: Array) -> Array:
    r = max(1, int(rng.integers(1, max(2, min(m, n)))))
    return (rng.integers(-2, 3, (b, m, r)) @ rng.integers(-2, 3, (b, r, n))).astype(float)


def _block(rng: Any, b: int, m: int, n: int, _: Array) -> Array:
    G = rng.standard_normal((b, m, n))
    i, j = int(rng.integers(0, m + 1)), int(rng.integers(0, n + 1))
    mask = np.zeros((m, n))
    mask[:i, :j] = 1
    mask[i:, j:] = 1
    return G * mask


FAMILIES: dict[str, Callable[..., Array]] = {
    "dense": lambda rng, b, m, n, s: rng.standard_normal((b, m, n)),
    "low rank": _low_rank,
    "sparse": lambda rng, b, m, n, s: rng.standard_normal((b, m, n)) * (rng.random((b, m, n)) < 0.4),
    "ill-conditioned": lambda rng, b, m, n, s: (
        rng.standard_normal((b, m, n)) * 10.0 ** rng.uniform(-3, 3, (b, 1, n))
    ),
    "repeated": lambda rng, b, m, n, s: (
        np.eye(m, n) * rng.integers(0, 4, (b, 1, 1))
        + (rng.random((b, m, n)) < 0.15) * rng.integers(-1, 2, (b, m, n))
    ),
    "nearly repeated": lambda rng, b, m, n, s: (
        np.eye(m, n) * rng.uniform(0.2, 2, (b, 1, 1))
        + 10.0 ** rng.uniform(-5, -1, (b, 1, 1)) * rng.standard_normal((b, m, n))
    ),
    "aligned": lambda rng, b, m, n, s: (
        s(m, n) + 10.0 ** rng.uniform(-4, 0, (b, 1, 1)) * rng.standard_normal((b, m, n))
    ),
    "cancelling": lambda rng, b, m, n, s: (
        -s(m, n) + 10.0 ** rng.uniform(-4, 0, (b, 1, 1)) * rng.standard_normal((b, m, n))
    ),
    "scales": lambda rng, b, m, n, s: rng.standard_normal((b, m, n)) * 10.0 ** rng.uniform(-2, 2, (b, 1, 1)),
    "block": _block,
    "diagonal": lambda rng, b, m, n, s: np.eye(m, n) * rng.uniform(-2, 2, (b, 1, n)),
    "triangular": lambda rng, b, m, n, s: np.triu(rng.standard_normal((b, m, n)), k=int(rng.integers(0, 2))),
    "non-negative": lambda rng, b, m, n, s: rng.random((b, m, n)) ** 3,
    "circulant": lambda rng, b, m, n, s: rng.standard_normal((b, max(m, n)))[
        :, (np.arange(n) - np.arange(m)[:, None]) % max(m, n)
    ],
}


def families(rng: Any, shapes: Shapes, total: int) -> Array:
    """Structured real points: for each run of 32 a family is drawn, for each parameter or for all alike."""
    kinds, rows = list(FAMILIES), []
    for start in range(0, total, 32):
        b = min(32, total - start)
        side = max((max(s) for s in shapes.values()), default=1)
        base = rng.standard_normal((b, side, side))
        common = kinds[int(rng.integers(len(kinds)))] if rng.random() < 0.5 else None
        parts = [np.zeros((b, 0))]
        for m, n in shapes.values():
            kind = common or kinds[int(rng.integers(len(kinds)))]
            block = (
                FAMILIES[kind](rng, b, m, n, lambda i, j, base=base: base[:, :i, :j])
                if m * n
                else np.zeros((b, 0))
            )
            parts.append(np.asarray(block, dtype=float).reshape(b, -1))
        rows.append(np.concatenate(parts, axis=1))
    return np.concatenate(rows) if rows else np.zeros((0, count(shapes)))
