"""The variants of LoRA as several rows look at them: one training for all rows, chains and what they chain.

All methods train the same number of parameters here (a budget), where the paper gives all the same rank: with a frozen
`A` a rank costs half as much, so such methods have about twice LoRA's rank.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from llm_experiments.experiments.lab import Lab, rate_method
from llm_experiments.experiments.ood_forgetting import at_loss, item_losses, shifted
from llm_experiments.experiments.row import Sheet
from llm_experiments.experiments.statistics import Contrast, contrast
from llm_experiments.experiments.tiers import Bed
from llm_experiments.experiments.trial import Result, Trial

Found = Mapping[str, Sequence[Result]]
Compare = Callable[[Sequence[Result], Sequence[Result]], Contrast]
Read = Callable[[Result], float]
METHODS = (
    "full", "lora", "cola", "asym_lora", "rac_lora", "lora_plus", "cla", "c3la", "random_cla", "random_c3la",
)  # fmt: skip
SMOKE = ("full", "lora", "cola", "cla", "c3la")
PRINTED = dict(
    zip(
        METHODS,
        ("FFT", "LoRA", "CoLA", "Asym", "RAC", "LoRA+", "cLA", "c3LA", "r-cLA", "r-c3LA"),
        strict=True,
    )
)  # names in the paper's tables
PAIRS = {"lora": "cola", "asym_lora": "rac_lora", "cla": "c3la", "random_cla": "random_c3la"}  # and its chain
# Of the training and the test split, how many are looked at in the end.
ITEMS = {"smoke": 8, "cpu": 800, "gpu": 1000}


def variant_trial(lab: Lab, method: str, seed: int, **changes: object) -> Trial:
    """The training that these rows share, with intruders and norms at each quarter of it."""
    quarter = max(1, lab.bed().common["steps"] // 4)
    return lab.trial(
        "main",
        method,
        probes=("intruder_sweep",),
        marks=(quarter, 2 * quarter, 3 * quarter),
        keep="state",
        seed=seed,
        eval_every=quarter,
        final_items=ITEMS[lab.tier.name],
        splits="test",
        **changes,
    )


def train_all(lab: Lab, sheet: Sheet) -> dict[str, list[Result]]:
    """The shared trainings of the design's methods, rates chosen first; without those that were refused or diverged."""
    methods, seeds = sheet.design.methods, range(sheet.design.seeds)
    lab.choose_rates("main", methods)
    trials = [variant_trial(lab, method, seed) for method in methods for seed in seeds]
    results = iter(lab.results(trials, "variants"))
    found = {method: [next(results) for _ in seeds] for method in methods}
    return {m: rows for m, rows in found.items() if not any(result.failure for result in rows)}


def at_default_rate(lab: Lab, sheet: Sheet, found: Found) -> dict[str, list[Result]]:
    """The methods of `PAIRS` once more, all at their default rate, which is one for all of them.

    Chosen rates of a chain and of what it chains may differ by the width of the grid, and with them all that grows with
    the size of the change.
    """
    methods = [m for pair in PAIRS.items() if set(pair) <= set(found) for m in pair]
    seeds = range(sheet.design.seeds)
    trials = [variant_trial(lab, m, seed, lr=lab.bed().settings(m).lr) for m in methods for seed in seeds]
    results = iter(lab.results(trials, "default rates"))
    again = {m: [next(results) for _ in seeds] for m in methods}
    return {m: rows for m, rows in again.items() if not any(r.failure for r in rows)}


def pairs_in(found: Found) -> dict[str, str]:
    """The pairs of `PAIRS` of which both were trained."""
    return {base: chain for base, chain in PAIRS.items() if base in found and chain in found}


def score(sheet: Sheet, found: Found, name: str, first: str, second: str, values: Compare) -> None:
    """Scores `first - second`, or leaves it open if one of them was not trained.

    Args:
        sheet: of the row.
        found: results by method.
        name: of the prediction.
        first: method.
        second: method.
        values: called with the results of both methods, gives the contrast.
    """
    for method in (first, second):
        if method not in found:
            sheet.undecided(name, f"{method} was not trained")
            return
    sheet.score(name, values(found[first], found[second]))


def loss_contrast(first: Sequence[Result], second: Sequence[Result], split: str, loss: str) -> Contrast:
    """Difference of a loss, with its interval over items."""
    values = [[result.measure(split, loss) for result in side] for side in (first, second)]
    return contrast(*values, (item_losses(first, split), item_losses(second, split)))


def quality_contrast(first: Sequence[Result], second: Sequence[Result], bed: Bed) -> Contrast:
    """How much better the first is on the test split: rank correlation, or less loss where there is none."""
    if bed.quality == "rho":
        return shifted(list(first), list(second), ("test",), "rho")
    return loss_contrast(second, first, "test", bed.loss)


def train_losses(result: Result, loss: str) -> list[float]:
    """Training loss at every mark at which probes were taken, on the items of the first evaluation throughout."""
    count = result.at(0)["splits"]["train"]["n"]
    found = [result.measure("train", loss, mark) for mark in result.marked()]
    if result.at(-1)["splits"]["train"]["n"] != count:
        found[-1] = float(item_losses([result], "train")[0, :count].mean())
    return found


def at_equal_loss(curves: Mapping[str, Sequence[tuple[float, float]]]) -> tuple[float, dict[str, float]]:
    """Every method's value at the lowest training loss that all of them reach.

    Args:
        curves: method -> (training loss, value) from the start to the end of training.

    Returns:
        That loss, and the value where each curve first reaches it, linear between marks.
    """
    target = max(min(loss for loss, _ in curve) for curve in curves.values())
    return target, {method: at_loss(list(curve), target) for method, curve in curves.items()}


def spread(values: Sequence[float]) -> float:
    """Standard error over seeds; 0 for a single one."""
    return float(np.std(values, ddof=1) / np.sqrt(len(values))) if len(values) > 1 else 0.0


def edges(lab: Lab, methods: Sequence[str]) -> list[str]:
    """Methods whose chosen rate is at the edge of the grid: a wider one might do better by them."""
    at = {row["method"] for row in lab.rates.values() if row["bed"] == "main" and row["at the edge"]}
    return [m for m in methods if rate_method(m) in at]


def edge_note(lab: Lab, methods: Sequence[str]) -> str:
    """A sentence for the notes on rates at the edge of the grid."""
    at = edges(lab, methods)
    if not at:
        return "No chosen learning rate is at the edge of the grid."
    return f"The chosen learning rate is at the edge of the grid for {', '.join(at)}: a wider grid might favour them."


def dots(found: Found, x: Read, y: Read) -> list[dict]:
    """Series for a scatter: one point a method, mean over seeds with its standard error.

    Args:
        found: results by method.
        x: of a result, the abscissa.
        y: of a result, the ordinate.
    """
    series = []
    for method, results in found.items():
        ys = [y(result) for result in results]
        series.append(
            {
                "label": method,
                "x": [float(np.mean([x(result) for result in results]))],
                "y": [float(np.mean(ys))],
                "stderr": [spread(ys)],
            }
        )
    return series
