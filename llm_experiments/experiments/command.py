"""`run`: one experiment, or all of them, in one of three sizes."""

from __future__ import annotations

import os
import sys
import time
from typing import Annotated, Any

import typer

from llm_experiments import experiments
from llm_experiments.errors import UserError
from llm_experiments.experiments.lab import Lab
from llm_experiments.experiments.row import Record, Row, Sheet
from llm_experiments.experiments.tiers import RATE_FACTORS, TIERS


def command(
    row: Annotated[str, typer.Argument(help="Row of the experiments, or `all`; --list shows them.")] = "",
    tier: Annotated[str, typer.Option(help="smoke (seconds, tiny models), cpu, or gpu.")] = "cpu",
    jobs: Annotated[int, typer.Option(help="Trainings at a time; 0: one a core (one on a GPU).")] = 0,
    plan: Annotated[
        bool, typer.Option("--plan", help="Say what would be run, with its cost; run nothing.")
    ] = False,
    again: Annotated[bool, typer.Option("--again", help="Repeat finished trainings.")] = False,
    list_: Annotated[
        bool, typer.Option("--list", help="Show the rows and which tiers have a record.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the record instead of tables.")] = False,
) -> None:
    """Put predictions of the theorems to real models: train, measure, score.

    Each row states its predictions, methods, seeds and cost before it trains anything (`--plan`), chooses every
    method's learning rate on a validation split by the same grid, and says of each prediction whether the runs agree,
    contradict it, or cannot tell. Trainings are shared between rows and kept: a row that was interrupted goes on.

        python -m llm_experiments run --list
        python -m llm_experiments run ood_forgetting --plan
        python -m llm_experiments run ood_forgetting --tier smoke
        python -m llm_experiments run all --tier cpu

    Records go to reports/records/llm/ROW/TIER.json (smoke: to the cache), pages are made by `python -m reports`.
    """
    if list_ or not row:
        _list()
        return
    names = experiments.NAMES if row == "all" else (row,)
    rows = [experiments.get(name) for name in names]
    if tier not in TIERS:
        message = f"--tier must be one of {', '.join(TIERS)}; got {tier!r}"
        raise UserError(message)
    if jobs < 0:
        message = f"--jobs must not be negative; got {jobs}"
        raise UserError(message)
    for one in rows:
        _announce(one, tier)
    if plan:
        return
    _check_device(tier)
    if tier == "smoke":
        # A road test says nothing about methods, so nothing of it enters the reports.
        from llm_experiments.models import cache_folder
        from reports.store import REPORTS_VARIABLE

        os.environ.setdefault(REPORTS_VARIABLE, str(cache_folder("smoke")))
    parallel = jobs or (1 if tier == "gpu" else os.cpu_count() or 1)
    for one in rows:
        body = run(one, Lab(tier, jobs=parallel, again=again, say=_say))
        if as_json:
            import json

            print(json.dumps(body, indent=1))
        else:
            _show(body)


def run(row: Row, lab: Lab) -> Record:
    """Runs a row and writes its record; returns the record."""
    from reports import store

    started = time.monotonic()
    sheet = Sheet(row, lab.tier.name)
    row.run(lab, sheet)
    body = complete(sheet, lab)
    path = store.record_path("llm", body["id"])
    store.write_record(path, body)
    store.write_run(path, seconds=time.monotonic() - started)
    return body


def complete(sheet: Sheet, lab: Lab) -> Record:
    """The sheet's record with rates, trainings and environment."""
    from llm_experiments.records import environment

    body = sheet.body()
    used = [result for result in lab.used.values() if result.failure is None]
    if lab.rates:
        title = "Learning rates: validation loss in nats; the default unless another is better by a standard error"
        body["tables"][title] = [{**rate, "chosen": f"{rate['chosen']:g}"} for rate in lab.rates.values()]
        body["design"]["rate_grid"] = [f"{factor:g} of the method's default" for factor in RATE_FACTORS]
    refused = {r.trial.settings.method: r.failure for r in lab.used.values() if r.failure}
    body["notes"] += [f"`{method}` was not trained: {why}." for method, why in refused.items()]
    layers = list(
        dict.fromkeys(f"{r.body['model']['label']}: {r.body['model']['tuned_layers']}" for r in used)
    )
    if layers:
        body["notes"].append("Tuned: " + "; ".join(layers) + ".")
    device = next((r.trial.settings.device for r in used), "cpu")
    body["environment"] = environment(device, 1)
    body["protocols"] = _protocols(used)
    body["trainings"] = [_training(result) for result in used]
    return body


def _protocols(used: list[Any]) -> list[Record]:
    """What trainings on one model and task share, once each."""
    found: dict[str, Record] = {}
    for result in used:
        model, data = result.body["model"], result.body["data"]
        name = f"{model['label']} on {data['task']}"
        found.setdefault(name, {"model": model, "data": data, **result.body["protocol"]})
    return list(found.values())


def _training(result: Any) -> Record:
    settings, counts = result.trial.settings, result.body["method"]["parameters"]
    row = {
        "method": settings.method,
        "task": settings.task,
        "seed": settings.seed,
        "lr": settings.lr,
        "steps": settings.steps,
        "batch": settings.batch,
        "budget": settings.budget,
        "trainable": counts["trainable"],
        "losses": {name: _loss(measures) for name, measures in result.at()["splits"].items()},
    }
    return row | ({"options": settings.options} if settings.options else {})


def _loss(measures: Record) -> float:
    return measures.get("answer_loss", measures["log_loss"])


def _announce(row: Row, tier: str) -> None:
    """Says what will be run and what it is expected to cost."""
    design = row.designs.get(tier)
    if design is None:
        _say(f"{row.name}: no {tier} tier")
        return
    seeds = f"{design.seeds} seed{'s' if design.seeds > 1 else ''}"
    methods = (
        f"{len(design.methods)} methods ({', '.join(design.methods)})"
        if len(design.methods) > 3
        else (", ".join(design.methods) or "no training")
    )
    also = f"; {design.words}" if design.words else ""
    _say(
        f"{row.name}, {tier}: {methods}, {seeds}, {len(RATE_FACTORS)} rates each{also}; about "
        f"{design.seconds} s of processor time, {len(row.predictions)} predictions"
    )


def _check_device(tier: str) -> None:
    if tier != "gpu":
        return
    import torch

    if not torch.cuda.is_available():
        message = "--tier gpu needs a CUDA GPU and there is none; use --tier cpu"
        raise UserError(message)


def _list() -> None:
    from reports import store

    for name in experiments.NAMES:
        row = experiments.get(name)
        done = [t for t in TIERS if store.record_path("llm", f"{name}/{t}").is_file()]
        print(f"{name:<22} {row.question}  [{', '.join(done) or 'not run'}]")


def _show(body: Record) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    console.print(body["headline"], highlight=False)
    table = Table(box=None, padding=(0, 2, 0, 0))
    for column in ("prediction", "measured", "outcome"):
        table.add_column(column)
    for line in body["tables"]["Predictions"]:
        table.add_row(line["prediction"], line["measured"], line["outcome"])
    console.print(table)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
