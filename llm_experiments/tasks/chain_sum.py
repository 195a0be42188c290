"""Short sums and differences: the task that a small decoder can learn on a CPU in a minute.

Training: two terms of one or two digits ("57 - 8 ="). Near out of domain: two terms of three digits, and
three terms of one or two digits. Everything is generated from seeded draws, the same on every machine. The
worded prompt matters: before tuning, SmolLM2 reads a bare "57 - 8 =" far worse.
"""

from __future__ import annotations

from random import Random

from llm_experiments.data import Example, Splits, Task, ranked, take, three_way


def expression(rng: Random, terms: int, digits: tuple[int, ...]) -> Example:
    """One sum: each term has a number of digits drawn from `digits`, each sign is drawn evenly."""
    total, text = 0, ""
    for index in range(terms):
        length = rng.choice(digits)
        number = rng.randint(10 ** (length - 1), 10**length - 1)
        sign = 1 if index == 0 else rng.choice((1, -1))
        text += f"{number}" if index == 0 else f" {'+' if sign > 0 else '-'} {number}"
        total += sign * number
    return Example(text, answer=f" {total}")


def generate(name: str, count: int, terms: int, digits: tuple[int, ...]) -> list[Example]:
    """`count` draws (duplicates possible); the name seeds them."""
    rng = Random(f"chain_sum {name}")  # seeding with text is stable across machines and versions
    return [expression(rng, terms, digits) for _ in range(count)]


def make(seed: int, train_size: int) -> Splits:
    """In-domain expressions split by their hash; two sets of harder ones for testing."""
    train, validation, test = three_way(generate("two terms", 12000, 2, (1, 2)), train=0.6, validation=0.1)
    return {
        "train": take(train, train_size, "train_size"),
        "validation": validation,
        "test": test,
        "near_3_digits": ranked(generate("three digits", 2000, 2, (3,))),
        "near_3_terms": ranked(generate("three terms", 2000, 3, (1, 2))),
    }


TASK = Task(
    name="chain_sum",
    summary="two-term sums of 1-2 digits; near out of domain: 3 digits, 3 terms",
    prompt="Work out this sum and give only the number: {text} =",
    decoding="whole_answer",
    assets=(),
    train_size=320,
    max_length=96,
    make=make,
)
