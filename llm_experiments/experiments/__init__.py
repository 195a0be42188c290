"""The papers' figures and tables as experiments: predictions first, then runs, then a verdict for each prediction.

A row is a file here with `ROW` (and `AUDIT`, the arguments with which an audit runs it). Runs come from one pool
(`lab.py`), so rows that look at the same trainings share them.
"""

from __future__ import annotations

import difflib
import importlib

from llm_experiments.errors import UserError
from llm_experiments.experiments.row import Row

NAMES = (
    "ood_forgetting",
    "baselines",
    "selection_strategies",
    "components",
    "training_efficiency",
    "fusion",
    "switch_and_parallel",
    "robustness",
    "few_shot",
    "rank_saturation",
    "delta_histogram",
    "variants_quality",
    "generalization_gap",
    "bound_vacuity",
    "loss_landscape",
    "intruders",
    "ablations",
    "flops",
    "convergence",
    "hybrid_layers",
    "task_complexity",
    "assumptions",
)


def get(name: str) -> Row:
    """The row of that name.

    Raises:
        UserError: there is none; the message offers the nearest names.
    """
    if name not in NAMES:
        near = difflib.get_close_matches(name, NAMES, n=3, cutoff=0.4)
        hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(NAMES)}"
        message = f"there is no experiment {name!r}; {hint}"
        raise UserError(message)
    return importlib.import_module(f"llm_experiments.experiments.{name}").ROW
