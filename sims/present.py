"""The rows, the record and the printed table that every simulator ends with."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from reports import store
from theory import cluster

Row = dict[str, Any]
ROUNDING = 1e-9  # risks are of order 1: what is smaller differs from machine to machine
UNLIKELY_Z = 4.5  # a standard normal exceeds it in absolute value with probability 7e-6


class BadInput(ValueError):
    """Something a person asked for that cannot be done; the message is one line with the remedy."""


_scheduler: list[str] = []


def scheduler() -> str | None:
    """The address that --scheduler gave, if any."""
    return _scheduler[-1] if _scheduler else None


class _UseCluster(argparse.Action):
    def __call__(self, parser: Any, namespace: Any, values: Any, option: Any = None) -> None:
        _scheduler[:] = [values]


class Parser(argparse.ArgumentParser):
    """Bad arguments as one clear line on stderr and exit status 2; every simulator can run on a cluster."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        # Where it runs is no setting of a simulation: it stays out of the options and so of the record.
        self.add_argument_group("elsewhere").add_argument(
            "--scheduler", action=_UseCluster, default=argparse.SUPPRESS, metavar="ADDRESS", help=cluster.HELP
        )

    def error(self, message: str) -> Any:
        """Refuse the arguments."""
        print(f"error: {message}; see --help", file=sys.stderr)
        raise SystemExit(2)


def number(value: Any) -> float | int | None:
    """A plain number for a record: 12 digits, rounding errors as 0; None for what is no finite number."""
    if value is None or not np.isfinite(value):
        return None
    if isinstance(value, (int, np.integer)):
        return int(value)
    return float(f"{float(value):.12g}") if abs(value) > ROUNDING else 0.0


def numbers(values: Any) -> list[Any]:
    """Plain numbers for a record."""
    return [number(v) for v in np.asarray(values).tolist()]


def compared(quantity: str, setting: str, predicted: Any, simulated: Any) -> Row:
    """A row that needs no chance: mean prediction beside mean outcome over the seeds."""
    return _row(quantity, setting, np.mean(predicted), np.mean(simulated), None, None)


def tested(quantity: str, setting: str, predicted: Any, simulated: Any) -> Row:
    """A row of a mean that theory predicts seed by seed: the standard error is that of the paired difference."""
    difference = np.asarray(simulated) - np.asarray(predicted)
    stderr = difference.std(ddof=1) / np.sqrt(len(difference)) if len(difference) > 1 else np.nan
    z = difference.mean() / stderr if stderr > ROUNDING else np.nan
    return _row(quantity, setting, np.mean(predicted), np.mean(simulated), stderr, z)


def counted(quantity: str, setting: str, predicted: int, simulated: int) -> Row:
    """A row of counts."""
    return _row(quantity, setting, int(predicted), int(simulated), None, None)


def _row(quantity: str, setting: str, predicted: Any, simulated: Any, stderr: Any, z: Any) -> Row:
    values = zip(("predicted", "simulated", "stderr", "z"), (predicted, simulated, stderr, z), strict=True)
    return {"quantity": quantity, "setting": setting, **{name: number(value) for name, value in values}}


def worst_z(rows: list[Row]) -> float:
    """The largest |z| of a table."""
    return max((abs(row["z"]) for row in rows if row["z"] is not None), default=0.0)


def show(title: str, rows: list[Row]) -> None:
    """Print rows as a table; printed as soon as a part of a simulation is done."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left", title_style="bold", expand=False)
    table.add_column("quantity")
    table.add_column("setting")
    for name in ("predicted", "simulated", "stderr", "z"):
        table.add_column(name, justify="right")
    for row in rows:
        values = [
            f"{row[n]:.4g}" if row[n] is not None else "-" for n in ("predicted", "simulated", "stderr", "z")
        ]
        strange = row["z"] is not None and abs(row["z"]) > UNLIKELY_Z
        table.add_row(row["quantity"], row["setting"], *values, style="red" if strange else None)
    console = Console(width=None if sys.stdout.isatty() else 150)
    console.print(table)


def save(record: dict[str, Any], seconds: float) -> None:
    """Write the record and its sidecar, and say where they are."""
    path = store.record_path("sims", record["id"])
    store.write_record(path, record)
    store.write_run(path, seconds=seconds)
    place = path.relative_to(store.reports_root().parent)
    print(
        f"{record['headline']}\nrecord  {place}   ({len(record['figures'])} figures in it; `python -m reports` draws them)"
    )


def guarded(main: Callable[[], None], refused: tuple[type[Exception], ...] = ()) -> int:
    """Run a simulator: exit status 0, or 2 with one line for bad input, or 3 when interrupted."""
    try:
        main()
    except (BadInput, store.RecordError, cluster.ClusterError, *refused) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("error: interrupted; no record was written, run the command again", file=sys.stderr)
        return 3
    finally:
        _scheduler.clear()
    return 0
