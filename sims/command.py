"""The command line, the seeds and the record that the smaller simulators share.

A simulator says what it measures for a number of seeds with a random stream; options, blocks of seeds on several
processes, the record's name and the record itself are the same for all of them and stand here.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from sims import parallel
from sims.present import BadInput, Parser, Row, numbers, save

Array = np.ndarray
Measure = Callable[..., dict[str, Array]]


def parser(name: str, text: str | None, seeds: int, quick: int) -> argparse.ArgumentParser:
    """The options that all these simulators have.

    Args:
        name: The simulator's file name without ending.
        text: Its module docstring, shown by --help.
        seeds: Default number of seeds.
        quick: The same with --quick.
    """
    p = Parser(
        prog=f"python sims/{name}.py", description=text, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("--quick", action="store_true", help="fewer seeds, done in seconds")
    p.add_argument(
        "--seeds", type=int, metavar="N", help=f"draws of each part (default {seeds}, quick {quick})"
    )
    p.add_argument("--seed", type=int, default=0, metavar="N", help="first number of all random streams")
    p.add_argument(
        "--jobs", type=int, default=os.cpu_count() or 1, metavar="N", help="processes (default: all cores)"
    )
    p.set_defaults(simulator=name, usual=(seeds, quick))
    return p


@dataclass(frozen=True)
class Run:
    """A checked command.

    Attributes:
        id: Name of the record: the simulator's, "-quick", and a digest of any other settings.
        quick: Whether --quick was given.
        seeds: Draws of each part.
        seed: First number of all random streams.
        jobs: Processes.
        options: The simulator's own options.
        started: Monotonic clock at the start, in seconds.
    """

    id: str
    quick: bool
    seeds: int
    seed: int
    jobs: int
    options: argparse.Namespace
    started: float


def read(p: argparse.ArgumentParser, arguments: list[str] | None) -> Run:
    """The command that the arguments give.

    Raises:
        BadInput: A number is too small; one line with the least value.
    """
    options, plain = p.parse_args(arguments), vars(p.parse_args([]))
    for name, least in (("seeds", 2), ("seed", 0), ("jobs", 1)):
        value = getattr(options, name)
        if value is not None and value < least:
            msg = f"{name} must be at least {least}; got {value}"
            raise BadInput(msg)
    other = {
        n: v
        for n, v in sorted(vars(options).items())
        if n not in ("quick", "jobs", "usual") and v != plain[n]
    }
    name = options.simulator + ("-quick" if options.quick else "")
    if other:  # settings of one's own get a name of their own, so that they never replace the record kept
        name += "-" + hashlib.sha256(repr(other).encode()).hexdigest()[:8]
    seeds = options.usual[options.quick] if options.seeds is None else options.seeds
    return Run(name, options.quick, seeds, options.seed, options.jobs, options, time.monotonic())


def over_seeds(
    measure: Measure, run: Run, part: int, *args: Any, size: int = 32, seeds: int | None = None
) -> dict[str, Array]:
    """measure(rng, n, *args) for all seeds, block by block, the results put end to end.

    Args:
        measure: Returns arrays whose first axis runs over the n seeds of a block.
        run: The command.
        part: A number of its own for each part of the simulator: its random streams start from it.
        *args: Further arguments of `measure`.
        size: Seeds in a block; with the problem it fixes the streams, whatever the number of processes.
        seeds: Number of seeds, if not the command's.
    """
    count = run.seeds if seeds is None else seeds
    blocks = [(run.seed, part, i, min(size, count - first)) for i, first in enumerate(range(0, count, size))]
    return parallel.joined(parallel.run(partial(_block, measure, args), blocks, run.jobs))


def _block(measure: Measure, args: tuple[Any, ...], block: tuple[int, int, int, int]) -> dict[str, Array]:
    seed, part, index, count = block
    return measure(parallel.stream(seed, part, index), count, *args)


def curve(
    label: str, x: Sequence[Any], y: Any, role: str = "simulated", stderr: Any = None
) -> dict[str, Any]:
    """One curve of a figure."""
    out: dict[str, Any] = {"label": label, "role": role, "x": list(x), "y": numbers(y)}
    if stderr is not None:
        out["stderr"] = numbers(stderr)
    return out


def mean_curve(label: str, x: Sequence[Any], values: Array) -> dict[str, Any]:
    """The mean over the seeds (first axis) with its standard errors."""
    return curve(label, x, values.mean(axis=0), stderr=values.std(axis=0, ddof=1) / np.sqrt(len(values)))


def write(run: Run, settings: dict[str, Any], rows: list[Row], **fields: Any) -> None:
    """Write the record; `fields` are headline, question, figures, notes and claims."""
    record = {
        "id": run.id,
        "settings": {"seeds": run.seeds, "seed": run.seed, **settings},
        "table": rows,
        **fields,
    }
    save(record, time.monotonic() - run.started)
