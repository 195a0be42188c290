"""The options that simulators with independent draws share, checked in one place."""

from __future__ import annotations

import argparse
import os

from sims.present import BadInput, Parser


def parser(name: str, text: str | None, draws: str) -> argparse.ArgumentParser:
    """A command line with --quick, --seeds, --seed and --jobs; `draws` says what --seeds counts."""
    p = Parser(
        prog=f"python sims/{name}.py",
        description=text,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument("--quick", action="store_true", help="fewer draws and sizes: seconds")
    p.add_argument("--seeds", type=int, metavar="N", help=draws)
    p.add_argument("--seed", type=int, default=0, metavar="N", help="first number of all random streams")
    p.add_argument(
        "--jobs", type=int, default=os.cpu_count() or 1, metavar="N", help="processes (default: all cores)"
    )
    return p


def seeds_of(options: argparse.Namespace, usual: int, quick: int, least: int = 2) -> int:
    """How many draws are asked for.

    Raises:
        BadInput: too few of them, or of something else.
    """
    seeds: int = options.seeds if options.seeds is not None else quick if options.quick else usual
    for name, value, low in (("seeds", seeds, least), ("jobs", options.jobs, 1), ("seed", options.seed, 0)):
        if value < low:
            msg = f"{name} must be at least {low}; got {value}"
            raise BadInput(msg)
    return seeds


def record_name(name: str, options: argparse.Namespace, plain: argparse.ArgumentParser) -> str:
    """`name`, `name-quick`, and `-custom` where another option than --jobs is set."""
    usual = vars(plain.parse_args([]))
    other = any(v != usual[n] for n, v in vars(options).items() if n not in ("quick", "jobs"))
    return name + ("-quick" if options.quick else "") + ("-custom" if other else "")
