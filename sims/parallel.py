"""Run blocks of seeds on several processes, here or on a cluster; the outcome does not depend on how many there are.

A block's seeds, size and random stream follow from the problem alone, each process uses one BLAS thread, and
the blocks come back in order. So one process and eight write the same record.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

import numpy as np

from sims import present
from theory import cluster

Array = np.ndarray
Block = TypeVar("Block")
Result = TypeVar("Result")

CACHE = 1 << 19  # bytes that a block's arrays may fill: the second-level cache of one core
LARGEST = 64  # seeds in a block; more gains nothing


def block_sizes(seeds: int, floats_per_seed: int) -> list[int]:
    """Sizes of the blocks that hold `seeds` seeds of so many float64 numbers each, cache by cache."""
    size = max(1, min(LARGEST, CACHE // (8 * floats_per_seed)))
    return [min(size, seeds - first) for first in range(0, seeds, size)]


def stream(*key: int) -> np.random.Generator:
    """The random stream of a block: a function of its key alone."""
    return np.random.default_rng(list(key))


def run(function: Callable[[Block], Result], blocks: Sequence[Block], jobs: int) -> list[Result]:
    """Apply a function to every block on `jobs` processes, or on the cluster that the command names.

    Results come in the order of the blocks.
    """
    return list(cluster.run(partial(_alone, function), blocks, jobs, present.scheduler()))


def _alone(function: Callable[[Block], Result], block: Block) -> Result:
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):
        return function(block)


def joined(results: Sequence[dict[str, Any]]) -> dict[str, Array]:
    """The blocks' arrays put end to end along the seeds, name by name."""
    return {name: np.concatenate([np.asarray(r[name]) for r in results]) for name in results[0]}
