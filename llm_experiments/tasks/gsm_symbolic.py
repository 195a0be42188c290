"""School word problems from numbered templates; unseen templates are the out-of-domain test.

Source: the GSM-Symbolic templates (I. Mirzadeh et al., 2024) as re-written in the reasoning-gym package
0.1.25. It is not GSM8K and must not be called so. Split by template: 0-69 train, 70-84 near, 85-99 far;
inside the training templates the in-domain test is split off by the hash of the question. Answers are
worked solutions that close with "#### number"; a completion counts as right when its last number is that
number.
"""

from __future__ import annotations

import re
from random import Random

from llm_experiments.data import Example, Splits, Task, ranked, take, three_way
from sims import assets

# Templates that the package itself lists as in need of repair (tasks_need_fix in its gsm_symbolic.py).
BROKEN = frozenset({32, 35, 37, 61, 63, 65, 74, 76, 77, 79, 86, 87, 90, 97, 98})
RANGES = {"train": range(70), "near_templates": range(70, 85), "far_templates": range(85, 100)}
_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?(?:/\d+)?")


def last_number(text: str) -> str | None:
    """The last number in `text` without thousands separators and closing zeros; None if there is none."""
    found = _NUMBER.findall(text)
    if not found:
        return None
    number = found[-1].replace(",", "")
    return re.sub(r"\.0+$", "", number)


def generate(template: int, index: int) -> Example:
    """Draw number `index` of one template."""
    half = "generators_00_49" if template < 50 else "generators_50_99"
    module = assets.load_module("reasoning-gym", f"reasoning_gym.arithmetic.gsm_symbolic.{half}")
    drawn = getattr(module, f"generate_{template}")(Random(f"gsm_symbolic {template} {index}"), 1.0)
    return Example(drawn["question"], answer=" " + drawn["metadata"]["answer_cot"].strip())


def draws(part: str, each: int) -> list[Example]:
    """`each` draws of every sound template of one part (a key of `RANGES`)."""
    templates = [template for template in RANGES[part] if template not in BROKEN]
    return [generate(template, index) for template in templates for index in range(each)]


def make(seed: int, train_size: int) -> Splits:
    """Training templates split by question; near and far templates whole."""
    train, validation, test = three_way(draws("train", each=120), train=0.8, validation=0.1)
    return {
        "train": take(train, train_size, "train_size"),
        "validation": validation,
        "test": test,
        "near_templates": ranked(draws("near_templates", each=60)),
        "far_templates": ranked(draws("far_templates", each=60)),
    }


TASK = Task(
    name="gsm_symbolic",
    summary="school word problems from templates 0-69; near: templates 70-84, far: 85-99",
    prompt="Question: {text}\nAnswer:",
    decoding="last_number",
    assets=("reasoning-gym",),
    train_size=3200,
    max_length=512,
    make=make,
)
