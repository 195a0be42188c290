"""The tasks, one a file; a further task is a file with `TASK` and one line here."""

from __future__ import annotations

from llm_experiments.data import Task
from llm_experiments.tasks import bbc_fewshot, bigbench, chain_sum, gsm_symbolic, sentiment, wordnet

TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        sentiment.TASK,
        bbc_fewshot.TASK,
        chain_sum.TASK,
        gsm_symbolic.TASK,
        wordnet.TASK,
        *bigbench.TASKS,  # for evaluation only
    )
}
