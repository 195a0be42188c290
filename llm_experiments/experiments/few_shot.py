"""Few examples: does PEFT lead below about twenty a class, and full tuning above?

News topics with 5 to 50 examples a class and a fresh linear head. Log loss is read first: it moves before accuracy.
"""

from __future__ import annotations

import numpy as np

from llm_experiments.experiments.lab import Lab
from llm_experiments.experiments.ood_forgetting import item_losses
from llm_experiments.experiments.row import Design, Prediction, Row, Sheet
from llm_experiments.experiments.statistics import Contrast, contrast, shown
from llm_experiments.experiments.trial import Result

AUDIT = [["run", "few_shot", "--tier", "cpu", "--jobs", "1"]]
AUDIT_SECONDS = 400  # with every training that it shares with other rows
METHODS = ("full", "lora")
PAPER = "PEFT against full fine-tuning, Figure 2"

PREDICTIONS = (
    Prediction("few_loss", "with the fewest examples a class LoRA has the lower test loss", PAPER, +1,
               ("peft_vs_fft/few_shot_crossover",), about="test loss, full - LoRA"),
    Prediction("few_accuracy", "with the fewest examples a class LoRA has the higher accuracy", PAPER, +1,
               ("peft_vs_fft/few_shot_crossover",), about="accuracy, LoRA - full"),
    Prediction("many_loss", "with the most examples a class full tuning has the lower test loss", PAPER, +1,
               ("peft_vs_fft/few_shot_crossover",), about="test loss, LoRA - full"),
    Prediction("many_accuracy", "with the most examples a class full tuning has the higher accuracy", PAPER, +1,
               ("peft_vs_fft/few_shot_crossover",), about="accuracy, full - LoRA"),
    Prediction("more_data", "the advantage of LoRA shrinks from the fewest to the most examples",
               "peft_vs_fft/few_shot_crossover: its bias stays, its variance goes", +1,
               ("peft_vs_fft/few_shot_crossover",),
               about="(test loss, full - LoRA) with fewest - the same with most examples"),
)  # fmt: skip


def run(lab: Lab, sheet: Sheet) -> None:
    """Trains both methods on nested samples of k examples a class; the untuned probe stands beside them."""
    sizes, seeds = sheet.design.options["sizes"], sheet.design.seeds
    middle = sizes[len(sizes) // 2]
    lab.choose_rates("topics", METHODS, train_size=middle, steps=_steps(lab, middle))
    splits = {"splits": "validation,test"}
    found: dict[tuple[str, int], list[Result]] = {}
    for k in sizes:
        for method in METHODS:
            trials = [
                lab.trial("topics", method, seed=s, train_size=k, steps=_steps(lab, k), **splits)
                for s in range(seeds)
            ]
            found[method, k] = lab.results(trials, f"{method}, {k} a class")
        probe = {"seed": 0, "steps": 0, "head": "probe", "lr": 1e-4, **splits}
        if lab.bed("topics").common["model"] != "smollm2":
            trials = [
                lab.trial("topics", "full", **{**probe, "seed": s, "train_size": k}) for s in range(seeds)
            ]
            found["probe", k] = lab.results(trials, f"probe, {k} a class")

    few, many = sizes[0], sizes[-1]
    sheet.score("few_loss", _contrast(found, "full", "lora", few, "log_loss"))
    sheet.score("few_accuracy", _contrast(found, "lora", "full", few, "accuracy"))
    sheet.score("many_loss", _contrast(found, "lora", "full", many, "log_loss"))
    sheet.score("many_accuracy", _contrast(found, "full", "lora", many, "accuracy"))
    lead = {k: _losses(found["full", k]) - _losses(found["lora", k]) for k in (few, many)}
    sheet.score(
        "more_data",
        contrast(list(lead[few].mean(axis=1)), list(lead[many].mean(axis=1)), (lead[few], lead[many])),
    )
    rows = []
    for k in sizes:
        for method in ("probe", *METHODS):
            if (method, k) in found:
                results = found[method, k]
                rows.append({
                    "examples a class": k,
                    "method": method,
                    "accuracy": shown([r.measure("test", "accuracy") for r in results]),
                    "test loss": shown([r.measure("test", "log_loss") for r in results]),
                })  # fmt: skip
    sheet.table("Test set (mean ± 95% over seeds)", rows)
    sheet.figures.append(_figure(found, sizes))
    sheet.note(
        f"The rate was chosen once, at {middle} examples a class. The training sets of one seed are nested."
    )


def _steps(lab: Lab, k: int) -> int:
    """Steps for k examples a class: the bed's, fewer where they would be many epochs."""
    steps = lab.bed("topics").common["steps"]
    return max(2, round(steps * (0.6 if k <= 5 else 0.8 if k <= 10 else 1.0)))


def _losses(results: list[Result]) -> np.ndarray:
    return item_losses(results, "test")


def _contrast(found: dict, first: str, second: str, k: int, name: str) -> Contrast:
    sides = [found[first, k], found[second, k]]
    values = [[r.measure("test", name) for r in side] for side in sides]
    if name == "log_loss":
        return contrast(*values, (_losses(sides[0]), _losses(sides[1])))
    right = [np.stack([_right(r.each("split/test")) for r in side]) for side in sides]
    return contrast(*values, (right[0], right[1]))


def _right(each: dict[str, np.ndarray]) -> np.ndarray:
    return (each["log_probs"].argmax(1) == each["label"]).astype(float)


def _figure(found: dict, sizes: tuple[int, ...]) -> dict:
    series = []
    for method in dict.fromkeys(method for method, _ in found):
        values = np.array([[r.measure("test", "log_loss") for r in found[method, k]] for k in sizes])
        error = (
            values.std(axis=1, ddof=1) / np.sqrt(values.shape[1]) if values.shape[1] > 1 else 0 * values[:, 0]
        )
        series.append(
            {"label": method, "x": list(sizes), "y": values.mean(axis=1).tolist(), "stderr": error.tolist()}
        )
    return {
        "name": "curves",
        "title": "Learning curves of PEFT and full tuning on news topics",
        "kind": "line",
        "caption": "Mean over seeds, two standard errors.",
        "x": {"label": "examples a class", "scale": "log"},
        "y": {"label": "test loss (nats)"},
        "series": series,
        "lines": [{"x": 20, "label": "reported crossing"}],
    }


ROW = Row(
    name="few_shot",
    source="PEFT against full fine-tuning, Figure 2",
    question="Is PEFT better with few examples, and where do the learning curves cross?",
    predictions=PREDICTIONS,
    designs={
        "smoke": Design(METHODS, 2, 10, options={"sizes": (2, 3)}),
        "cpu": Design(METHODS, 5, 470, "5, 10, 20 and 50 examples a class", {"sizes": (5, 10, 20, 50)}),
        "gpu": Design(
            METHODS,
            5,
            900,
            "5, 10, 20, 50, 100 and 200 examples a class",
            {"sizes": (5, 10, 20, 50, 100, 200)},
        ),
    },
    run=run,
    reported=({"what": "crossing", "value": "about 20 examples a class"},),
)
