"""Which channels to train: random ones, or those of large or small weight, activation, product or gradient.

The paper explains its ordering by knowledge: channels with small activations hold less of it, so training them harms
less. The gradient of a column slice is G a[S]' (`s2ft/partial_backprop`), so the same channels also learn least by
the first order; both readings are put to the test.
"""

from __future__ import annotations

from llm_experiments.experiments.lab import Lab
from llm_experiments.experiments.ood_forgetting import main_trial
from llm_experiments.experiments.quality import better, lower_loss
from llm_experiments.experiments.row import Design, Prediction, Row, Sheet
from llm_experiments.experiments.statistics import shown
from llm_experiments.experiments.tiers import Bed
from llm_experiments.experiments.trial import Result

AUDIT = [["run", "selection_strategies", "--tier", "cpu", "--jobs", "1"]]
AUDIT_SECONDS = 700  # with every training that it shares with other rows
SCORES = {"w": "weight", "a": "activation", "s": "weight x activation", "g": "gradient"}
SELECTIONS = tuple(f"s2ft_{letter}:{side}" for letter in SCORES for side in ("largest", "smallest"))
METHODS = ("s2ft_r", *SELECTIONS)
PAPER = "S2FT, Section 5.4 and Table 4"
SLICE = "s2ft/partial_backprop: the slice's gradient is G a[S]'"

PREDICTIONS = (
    Prediction("small_activation", "channels of small activation do better than random ones", PAPER, +1,
               about="test quality, A small - R"),
    Prediction("small_product", "channels of small weight x activation do better than random ones", PAPER, +1,
               about="test quality, S small - R"),
    Prediction("large_activation", "random channels do better than those of large activation", PAPER, +1,
               about="test quality, R - A large"),
    Prediction("large_gradient", "random channels do better than those of large gradient", PAPER, +1,
               about="test quality, R - G large"),
    Prediction("weights", "random channels do better than a choice by weights, large or small", PAPER, +1,
               about="test quality, R - mean of W large and W small"),
    Prediction("learn_gradient", "channels of large gradient reach a lower training loss than those of small gradient",
               SLICE, +1, ("s2ft/partial_backprop",), about="training loss, G small - G large"),
    Prediction("learn_activation", "channels of large activation reach a lower training loss than those of small "
               "activation", SLICE, +1, ("s2ft/partial_backprop",), about="training loss, A small - A large"),
)  # fmt: skip


def run(lab: Lab, sheet: Sheet) -> None:
    """Trains every selection at one budget and one rate, and compares test quality and training loss."""
    seeds = range(sheet.design.seeds)
    lab.choose_rates("main", METHODS)
    bed = lab.bed()
    found = {"s2ft_r": lab.results([main_trial(lab, "s2ft_r", seed) for seed in seeds], "s2ft_r")}
    for method in SELECTIONS:
        trials = [lab.trial("main", method, seed=seed, eval_every=0, splits="test") for seed in seeds]
        found[method] = lab.results(trials, method)

    def side(*methods: str) -> list[list[Result]]:
        return [found[method] for method in methods]

    random = side("s2ft_r")
    sheet.score("small_activation", better(side("s2ft_a:smallest"), random, bed))
    sheet.score("small_product", better(side("s2ft_s:smallest"), random, bed))
    sheet.score("large_activation", better(random, side("s2ft_a:largest"), bed))
    sheet.score("large_gradient", better(random, side("s2ft_g:largest"), bed))
    sheet.score("weights", better(random, side("s2ft_w:largest", "s2ft_w:smallest"), bed))
    for letter, name in (("g", "learn_gradient"), ("a", "learn_activation")):
        large, small = side(f"s2ft_{letter}:largest"), side(f"s2ft_{letter}:smallest")
        sheet.score(name, lower_loss(large, small, bed, "train"))

    rows = []
    for method, results in found.items():
        row = {"selection": words(method)}
        row["training loss"] = shown([r.measure("train", bed.loss) for r in results])
        row["test loss"] = shown([r.measure("test", bed.loss) for r in results])
        row[f"test {bed.quality}"] = shown([r.measure("test", bed.quality) for r in results])
        if method != "s2ft_r":
            against = better([results], random, bed)
            row["better than random by"] = against.words()
        rows.append(row)
    sheet.table("Nine selections at one budget (mean ± 95% over seeds)", rows)
    sheet.figures.append(_figure(found, bed))
    sheet.note("All selections train at the rate that was chosen for random channels, as in the paper: they differ in "
               "the channels alone. Scores come from 1% of the training data, one batch at least.")  # fmt: skip
    sheet.note(
        "Selections by weight are the same in every seed; their seeds differ in the order of the data."
    )


def words(method: str) -> str:
    """A selection in words."""
    if method == "s2ft_r":
        return "R: random"
    letter, _, direction = method.removeprefix("s2ft_").partition(":")
    return f"{letter.upper()}: {direction} {SCORES[letter]}"


def _figure(found: dict[str, list[Result]], bed: Bed) -> dict:
    sign = bed.quality if bed.quality == "rho" else bed.loss
    series = [
        {
            "label": words(method),
            "x": [r.measure("train", bed.loss) for r in results],
            "y": [r.measure("test", sign) for r in results],
        }
        for method, results in found.items()
    ]
    return {
        "name": "selections",
        "title": "What a selection learns and what it gains",
        "kind": "scatter",
        "caption": "One point a seed. All train equally many numbers at one rate.",
        "x": {"label": "training loss (nats)"},
        "y": {"label": f"test {sign}"},
        "series": series,
    }


ROW = Row(
    name="selection_strategies",
    source="S2FT, Table 4",
    question="Does it matter which channels train: random ones, or those of large or small weight, activation, gradient?",
    predictions=PREDICTIONS,
    designs={
        "smoke": Design(METHODS, 1, 6),
        "cpu": Design(METHODS, 1, 260, "the random selection's trainings are those of ood_forgetting"),
        "gpu": Design(METHODS, 5, 900),
    },
    run=run,
    reported=(
        {"selection": "R: random", "commonsense": 86.6, "arithmetic": 79.6},
        {"selection": "W: largest / smallest", "commonsense": "85.9 / 85.3", "arithmetic": "78.4 / 78.4"},
        {"selection": "A: largest / smallest", "commonsense": "84.7 / 87.3", "arithmetic": "77.1 / 80.0"},
        {"selection": "S: largest / smallest", "commonsense": "85.1 / 87.2", "arithmetic": "76.8 / 79.8"},
        {"selection": "G: largest / smallest", "commonsense": "85.4 / 86.2", "arithmetic": "77.8 / 79.5"},
    ),
)  # fmt: skip
