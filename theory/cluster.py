"""Run one function over many inputs: here, on several processes, or on a dask cluster.

The results come back in the order of the inputs, each as soon as it and those before it are done, and they are the
same wherever they were computed: a worker whose copy of this project differs is refused. A worker that is killed
loses nothing; the scheduler gives its inputs to another. Standard library at import; joblib and distributed are
imported when they are used.

    dask scheduler &                                  # prints its address
    dask worker tcp://HOST:8786 --nthreads 1 &        # one a core, in the same environment, on any machine
    python sims/ood_risk.py --scheduler tcp://HOST:8786
"""

from __future__ import annotations

import functools
import hashlib
import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

Input = TypeVar("Input")
Result = TypeVar("Result")

PACKAGES = ("theory", "sims")
PATIENCE = 10  # seconds in which a scheduler must answer
HELP = "Run on a dask cluster: the scheduler's address, such as tcp://HOST:8786 (extra `cluster`)"


class ClusterError(ValueError):
    """The cluster cannot be used; one line with the remedy."""


def run(
    function: Callable[[Input], Result], inputs: Sequence[Input], jobs: int = 1, scheduler: str | None = None
) -> Iterator[Result]:
    """Apply a function to every input; results in the order of the inputs.

    Args:
        function: Top-level, or a partial of one; sees one input.
        inputs: What it is applied to.
        jobs: Processes on this machine; not used with a scheduler.
        scheduler: Address of a dask scheduler.

    Raises:
        ClusterError: No scheduler answers, it has no workers, or a worker has other sources.
    """
    if scheduler is not None:
        yield from _on_cluster(function, inputs, scheduler)
    elif jobs == 1 or len(inputs) < 2:
        yield from map(function, inputs)
    else:
        from joblib import Parallel, delayed

        work = Parallel(n_jobs=jobs, backend="loky", return_as="generator")
        yield from work(delayed(function)(item) for item in inputs)


def _on_cluster(
    function: Callable[[Input], Result], inputs: Sequence[Input], address: str
) -> Iterator[Result]:
    try:
        from distributed import Client
    except ImportError:
        msg = "--scheduler needs the package distributed: pip install -e '.[cluster]'"
        raise ClusterError(msg) from None
    from joblib import Parallel, delayed, parallel_config

    client = _client(Client, address)
    try:
        if not client.scheduler_info()["workers"]:
            msg = f"the scheduler at {address} has no workers; start some with `dask worker {address} --nthreads 1`"
            raise ClusterError(msg)
        with parallel_config(backend="dask", client=client, wait_for_workers_timeout=PATIENCE):
            # one input a task: what a killed worker held is computed again, and no more
            work = Parallel(batch_size=1, return_as="generator")
            yield from work(delayed(_checked)(function, fingerprint(), item) for item in inputs)
    except ModuleNotFoundError as error:
        msg = (
            f"a worker at {address} cannot import {error.name}; start it in an environment with this project"
        )
        raise ClusterError(msg) from None
    finally:
        client.close()


def _client(kind: Any, address: str) -> Any:
    if not re.fullmatch(r"(\w+://)?[^\s/]+:\d+", address):
        msg = f"--scheduler must be an address such as tcp://HOST:8786; got {address!r}"
        raise ClusterError(msg)
    try:
        return kind(address, timeout=PATIENCE, set_as_default=False)
    except OSError:
        msg = f"no dask scheduler answers at {address}; start one with `dask scheduler`"
        raise ClusterError(msg) from None


def _checked(function: Callable[[Input], Result], expected: str, item: Input) -> Result:
    """On a worker: refuse to compute with other sources than those of the machine that asked."""
    if fingerprint() != expected:
        msg = "a worker has other sources of theory/ or sims/; update its copy of this project and restart it"
        raise ClusterError(msg)
    return function(item)


@functools.cache
def fingerprint() -> str:
    """A hash of the project's sources as this process finds them."""
    root = Path(__file__).resolve().parent.parent
    digest = hashlib.sha256()
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            digest.update(f"{path.relative_to(root).as_posix()}{os.linesep}".encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()
