"""Task files of BIG-bench: for evaluation alone, never for training.

Source: the task.json files in the bigbench package 1.0.0 (fetched on demand, 358 MB; never by default). Every
file carries a canary, a sentence that asks to keep its texts out of training corpora: a file without it is not
read, the canary stands in the record of every run, and the trainer refuses to take a step on these tasks. A
further file is a line in `FILES`.

Questions with options are scored by option likelihood. Those without exactly one best option are left out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

from llm_experiments.data import DataError, Example, Splits, Task, ranked
from sims import assets

QUESTION = "Question: {text}\nAnswer:"  # as in training on gsm_symbolic
PLAIN = "{text}"


@dataclass(frozen=True)
class Source:
    """One task: its summary, the folder of each test set, and how a decoder reads and answers it."""

    summary: str
    folders: Mapping[str, str]
    prompt: str = QUESTION
    options: bool = True
    max_length: int = 512


_DIGITS = [f"{n}_digit_{name}" for name in ("addition", "subtraction") for n in (1, 2, 3, 4, 5)]
FILES = {
    "mathqa": Source(
        "word problems with options; bare, and with the solution as a program",
        {
            "test": "elementary_math_qa/question_only",
            "with_program": "elementary_math_qa/question_with_mathematical_hint",
        },
    ),
    "bigbench_arithmetic": Source(
        "sums and differences of 1 to 5 digits",
        {name: f"arithmetic/{name}" for name in _DIGITS},
        options=False,
        max_length=96,
    ),
    "bigbench_winowhy": Source(
        "is the reason for a pronoun's meaning right?",
        {"test": "winowhy"},
        prompt="{text}\nThe above reasoning is",
    ),
    "bigbench_social_iqa": Source("motives and reactions of people", {"test": "social_iqa"}),
    "bigbench_strategyqa": Source("yes or no, in implicit steps", {"test": "strategyqa"}),
    "bigbench_goal_step": Source(
        "goals and steps of wikiHow articles",
        {"test": "goal_step_wikihow/goal_inference", "steps": "goal_step_wikihow/step_inference"},
        prompt=PLAIN,
    ),
    "bigbench_fever": Source(
        "claims about Wikipedia's facts", {"test": "fact_checker/fever"}, prompt="{text}\nA:"
    ),
    "bigbench_vitaminc": Source(
        "claims beside minimally edited passages",
        {"test": "vitaminc_fact_verification"},
        prompt="Passage: {text}\nTrue, False, or Neither?",
    ),
    "bigbench_presuppositions": Source(
        "entailment of what a sentence presupposes", {"test": "presuppositions_as_nli"}, prompt=PLAIN
    ),
    "bigbench_intents": Source(
        "seven intents of spoken commands", {"test": "intent_recognition"}, prompt="{text}\nIntent:"
    ),
    "bigbench_hyperbaton": Source("order of adjectives", {"test": "hyperbaton"}, prompt="{text}\nAnswer:"),
    "bigbench_disfluent": Source(
        "questions with slips of the tongue, answer in the passage",
        {"test": "disfl_qa"},
        options=False,
        max_length=1536,
    ),
}


def load(folder: str) -> tuple[str, list[dict]]:
    """Canary and raw examples of one task file.

    Raises:
        DataError: the file carries no canary.
        AssetError: the package is not fetched.
    """
    path = assets.path("bigbench") / folder / "task.json"
    content = json.loads(path.read_text("utf-8"))
    canary = content.get("canary", "")
    if not isinstance(canary, str) or "canary" not in canary.lower():
        message = f"{folder}/task.json must carry its canary; got {canary!r}: fetch it again"
        raise DataError(message)
    return canary, content["examples"]


def read(folder: str, options: bool) -> list[Example]:
    """The examples of one task file, with their options or with a text to be produced."""
    examples = []
    for raw in load(folder)[1]:
        text = raw["input"].strip()
        if not options:
            target = raw["target"]
            answer = target if isinstance(target, str) else target[0]
            examples.append(Example(text, answer=f" {answer.strip()}"))
            continue
        scores = raw["target_scores"]
        best = [place for place, score in enumerate(scores.values()) if score == max(scores.values())]
        if len(best) == 1 and len(scores) > 1:
            examples.append(Example.choice(text, tuple(f" {option.strip()}" for option in scores), best[0]))
    return examples


def make(source: Source, seed: int, train_size: int) -> Splits:
    """Every file is a test set; there is nothing to train on."""
    return {name: ranked(read(folder, source.options)) for name, folder in source.folders.items()}


def canary(source: Source) -> str:
    """The canary of a task's first file (all files of the package share it)."""
    return load(next(iter(source.folders.values())))[0]


TASKS = [
    Task(
        name=name,
        summary=f"{source.summary} (BIG-bench)",
        prompt=source.prompt,
        decoding="best_option" if source.options else "whole_answer",
        assets=("bigbench",),
        train_size=0,
        max_length=source.max_length,
        make=partial(make, source),
        canary=partial(canary, source),
    )
    for name, source in FILES.items()
]
