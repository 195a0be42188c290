"""What a training run leaves behind: one record that says what was run, on what, and what came out.

The record names models and data by package and hash, never by path, and holds prompt, loss mask and
decoding word for word: papers on the same benchmark differ by many points for these alone. It holds no
times; they go to the sidecar `.run.json`, which nothing compares. The same settings on the same processor
give the same digest.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reports import store
from reports.machine import machine
from sims import assets

if TYPE_CHECKING:
    from llm_experiments.train import Evaluation, Run

Record = dict[str, Any]
CURVE_POINTS = 200  # rows of the training curve that a record keeps
_PACKAGES = ("numpy", "torch", "transformers", "peft")


def record(run: Run, curve: Sequence[Record], evaluations: Sequence[Record], final: Evaluation) -> Record:
    """The record of a finished run."""
    settings, loaded, task = run.settings, run.loaded, run.task
    body = {
        "id": f"train/{run.name}",
        "key": run.key,
        "headline": headline(settings.method, loaded.label, task.name, final.row()["splits"]),
        "settings": settings.as_dict(loaded.label),
        "method": {
            "name": settings.method,
            "source": run.method.source,
            "parameters": run.tuned.parameters_report(),
            "mergeable": run.tuned.mergeable,
        },
        "model": {
            "label": loaded.label,
            "tuned_layers": tuned_layers(settings.cached_lower, run.layers),
            **loaded.provenance,
        },
        "data": {
            "task": task.name,
            "sources": [assets.fingerprint(name) for name in task.assets] or [task.source],
            **({"canary": task.canary()} if task.canary else {}),
            "digest": run.data_digest,
            "examples": {name: len(split.items) for name, split in run.splits.items()},
            "max_length": run.encoding.max_length,
        },
        "protocol": {
            "prompt": run.encoding.prompt,
            "loss_mask": run.encoding.loss_mask,
            "decoding": run.learner.decoding,
            "dropout": 0.0,
        },
        "environment": environment(settings.device, settings.threads),
        "curve": thinned(curve),
        "evaluations": [*evaluations, final.row()],
    }
    return body


def tuned_layers(cached: int, layers: int) -> str:
    """Which layers were tuned, in words (layers are counted from 1)."""
    if cached == 0:
        return f"all {layers}"
    return f"layers {cached + 1}-{layers} of {layers}; the lower {cached} are frozen and run once"


def environment(device: str, threads: int) -> Record:
    """Versions and hardware on which the numbers depend."""
    described = machine()
    packages = {name: described["packages"][name] for name in _PACKAGES if name in described["packages"]}
    where = {"gpu": described["gpu"]} if device.startswith("cuda") else {"processor": described["processor"]}
    return {"python": described["python"], "packages": packages, **where, "threads": threads}


def thinned(curve: Sequence[Record]) -> list[Record]:
    """At most about `CURVE_POINTS` rows of a curve, the last one always among them."""
    stride = max(1, math.ceil(len(curve) / CURVE_POINTS))
    return [row for index, row in enumerate(curve) if index % stride == 0 or index == len(curve) - 1]


def headline(method: str, label: str, task: str, splits: Record) -> str:
    """The outcome on the test set in a sentence."""
    measures = splits.get("test") or next(iter(splits.values()))
    main = "accuracy" if "accuracy" in measures else "exact_match"
    loss = "answer_loss" if "answer_loss" in measures else "log_loss"
    words = {"accuracy": "accuracy", "exact_match": "exact match"}[main]
    unit = {"answer_loss": "nats a token", "log_loss": "nats"}[loss]
    return (
        f"{method} on {task} ({label}): {words} {measures[main]:.3f}, loss {measures[loss]:.3f} {unit} "
        f"on {measures['n']} test items."
    )


def path(run: Run, row: str | None = None) -> Path:
    """Where a run's record goes: its own folder, or among the reports as `llm/<row>/<name>.json`.

    A run that somebody tries out stays in the ignored cache; only a named row enters the reports.
    """
    return run.folder / "record.json" if row is None else store.record_path("llm", f"{row}/{run.name}")


def write(run: Run, body: Record, row: str | None = None) -> Path:
    """Write a run's record and its sidecar; returns the record's path."""
    place = path(run, row)
    store.write_record(place, body if row is None else body | {"id": f"{row}/{run.name}"})
    store.write_run(place, seconds=run.seconds)
    return place


# --- summaries over seeds ------------------------------------------------------------------------

# 97.5% quantiles of Student's t for 1 to 30 degrees of freedom; beyond that the normal value serves.
_T = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
    2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip


def interval(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean and half-width of its 95% t interval; None with a single value."""
    mean = statistics.fmean(values)
    if len(values) < 2:
        return mean, None
    quantile = _T[len(values) - 2] if len(values) - 2 < len(_T) else 1.96
    return mean, quantile * statistics.stdev(values) / math.sqrt(len(values))


def summary(rows: Sequence[Record]) -> list[Record]:
    """Split by split: mean and interval of every measure over runs that differ in the seed alone."""
    finals = [row["evaluations"][-1]["splits"] for row in rows]
    table = []
    for name in finals[0]:
        entry: Record = {"split": name, "n": finals[0][name]["n"]}
        for measure in finals[0][name]:
            values = [final[name][measure] for final in finals]
            if measure != "n" and all(value is not None for value in values):
                entry[measure] = interval(values)
        table.append(entry)
    return table
