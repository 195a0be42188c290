"""The tasks, one a file; a further task is a file with `TASK` and one line here."""

from __future__ import annotations

from llm_experiments.data import Task
from llm_experiments.tasks import bbc_fewshot, chain_sum, gsm_symbolic, sentiment

TASKS: dict[str, Task] = {
    module.TASK.name: module.TASK for module in (sentiment, bbc_fewshot, chain_sum, gsm_symbolic)
}
