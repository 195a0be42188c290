"""`list`: what there is to tune, by what, on what, and which of it is prepared."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from sims import assets


def catalogue() -> dict[str, list[dict[str, Any]]]:
    """Methods, tasks and models as plain data."""
    from llm_experiments import methods
    from llm_experiments.models import MODELS
    from llm_experiments.tasks import TASKS

    rows = []
    for name in methods.names():
        method = methods.get(name)
        rows.append(
            {
                "name": name,
                "trains": method.trains,
                "optimizer": method.optimizer,
                "schedule": method.schedule,
                "mergeable": method.mergeable,
                "source": method.source,
                "claims": list(method.claims),
            }
        )
    return {
        "methods": rows,
        "tasks": [
            {
                "name": task.name,
                "kind": task.kind,
                "summary": task.summary,
                "use": "evaluation only" if task.evaluation_only else "training",
                "prepared": all(map(assets.is_present, task.assets))
                and not (task.missing and task.missing()),
                "optional": task.optional,
            }
            for task in TASKS.values()
        ],
        "models": [
            {"name": spec.name, "kind": spec.kind, "label": spec.label, "prepared": spec.missing() is None}
            for spec in MODELS.values()
        ],
    }


def command(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """Show methods, tasks and models.

    Any method goes with any model, encoders with classification tasks, decoders with all. A model may also
    be the path of a transformers folder (BERT or Llama family) or of a GGUF file.
    """
    found = catalogue()
    if as_json:
        print(json.dumps(found, indent=1))
        return
    from rich.console import Console
    from rich.table import Table

    console = Console()
    columns = {
        "methods": ("name", "trains", "schedule", "mergeable"),
        "tasks": ("name", "kind", "summary", "use", "prepared"),
        "models": ("name", "kind", "label", "prepared"),
    }
    for part, fields in columns.items():
        table = Table(title=part, title_justify="left", box=None, padding=(0, 2, 0, 0))
        for field in fields:
            table.add_column(field, no_wrap=field == "name")
        for row in found[part]:
            table.add_row(*(_cell(row[field]) for field in fields))
        console.print(table)
        console.print()
    waiting = [row for part in ("tasks", "models") for row in found[part] if not row["prepared"]]
    if any(row.get("optional") for row in waiting):
        console.print("Optional tasks are prepared by name: `python -m llm_experiments prepare --only NAME`.")
    if not all(row.get("optional") for row in waiting):
        console.print("Not prepared yet: run `python -m llm_experiments prepare` (or with --only NAME).")


def _cell(value: object) -> str:
    return {True: "yes", False: "no"}.get(value, str(value)) if isinstance(value, bool) else str(value)
