"""Who forgets, and who generalises out of distribution: full tuning, LoRA, unstructured and structured sparse tuning.

The paper compares at equal numbers of parameters only. A method that learns less also forgets less, so everything
is compared a second time at equal training loss.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from llm_experiments.experiments.lab import Lab
from llm_experiments.experiments.row import Design, Prediction, Row, Sheet
from llm_experiments.experiments.statistics import (
    Contrast,
    contrast,
    items_interval,
    rank_correlation_interval,
    shown,
)
from llm_experiments.experiments.tiers import RATE_FACTORS
from llm_experiments.experiments.trial import Result

AUDIT = [["run", "ood_forgetting", "--tier", "cpu", "--jobs", "1"]]
AUDIT_SECONDS = 2400  # with every training that it shares with other rows
METHODS = ("full", "lora", "spft", "s2ft_r")
PAPER = "S2FT, Section 2 and Figure 2"

PREDICTIONS = (
    Prediction("loss_lora_spft", "LoRA ends at a higher training loss than unstructured sparse tuning", PAPER, +1,
               about="training loss, LoRA - SpFT"),
    Prediction("loss_spft_full", "unstructured sparse tuning ends at a higher training loss than full tuning", PAPER,
               +1, about="training loss, SpFT - full"),
    Prediction("forget_spft", "unstructured sparse tuning forgets less than full tuning", PAPER, +1,
               about="drift of far text, full - SpFT"),
    Prediction("forget_s2ft", "S2FT forgets less than full tuning", "s2ft/thm_f8_s2ft; S2FT, Section 4.2", +1,
               ("s2ft/thm_f8_s2ft",), about="drift of far text, full - S2FT"),
    Prediction("forget_lora", "LoRA forgets more than full tuning", PAPER, +1, about="drift of far text, LoRA - full"),
    Prediction("forget_s2ft_lora", "S2FT forgets less than LoRA", "s2ft/thm_f8_s2ft, s2ft/thm_f8_lora", +1,
               ("s2ft/thm_f8_s2ft", "s2ft/thm_f8_lora", "s2ft/ood_crossover"),
               about="drift of far text, LoRA - S2FT"),
    Prediction("shift_spft", "unstructured sparse tuning is better than full tuning on shifted data", PAPER, +1,
               about="quality on shifted data, SpFT - full"),
    Prediction("shift_lora", "full tuning is better than LoRA on shifted data", PAPER, +1,
               about="quality on shifted data, full - LoRA"),
    Prediction("shift_s2ft", "S2FT is better than LoRA on shifted data", "s2ft/thm_f8_s2ft, s2ft/thm_f8_lora", +1,
               ("s2ft/thm_f8_s2ft", "s2ft/thm_f8_lora", "s2ft/ood_crossover"),
               about="quality on shifted data, S2FT - LoRA"),
    Prediction("equal_s2ft_full", "at equal training loss, too, S2FT forgets less than full tuning",
               "s2ft/thm_f8_s2ft", +1, ("s2ft/thm_f8_s2ft",), about="drift at equal loss, full - S2FT"),
    Prediction("equal_lora_full", "at equal training loss, too, LoRA forgets more than full tuning", PAPER, +1,
               about="drift at equal loss, LoRA - full"),
    Prediction("movement", "forgetting grows with learning, whatever the method", "s2ft/gain_equals_movement", +1,
               ("s2ft/gain_equals_movement",), about="drift, end - middle of training, mean of methods"),
)  # fmt: skip


def run(lab: Lab, sheet: Sheet) -> None:
    """Trains all methods at two budgets, measures forgetting and shifted data, compares at equal steps and loss."""
    seeds, large_seeds = sheet.design.seeds, sheet.design.options["large_seeds"]
    lab.choose_rates("main", METHODS)
    bed = lab.bed()
    found = {m: lab.results([main_trial(lab, m, seed) for seed in range(seeds)], m) for m in METHODS}
    far = _far_measure(found["full"][0])

    for name, first, second in (("loss_lora_spft", "lora", "spft"), ("loss_spft_full", "spft", "full")):
        sheet.score(name, _split(found, first, second, "train", bed.loss))
    sides = (
        ("forget_spft", "full", "spft"),
        ("forget_s2ft", "full", "s2ft_r"),
        ("forget_lora", "lora", "full"),
        ("forget_s2ft_lora", "lora", "s2ft_r"),
    )
    for name, first, second in sides:
        sheet.score(name, far_contrast(found[first], found[second], far))
    quality = +1 if bed.quality == "rho" else -1  # of a loss, less is better
    for name, first, second in (
        ("shift_spft", "spft", "full"),
        ("shift_lora", "full", "lora"),
        ("shift_s2ft", "s2ft_r", "lora"),
    ):
        pair = (found[first], found[second]) if quality > 0 else (found[second], found[first])
        sheet.score(name, shifted(*pair, bed.shifted, bed.quality if quality > 0 else bed.loss))

    equal = {m: [] for m in METHODS}
    for seed in range(seeds):
        curves = {m: _curve(found[m][seed], bed.loss, far) for m in METHODS}
        target = max(min(loss for loss, _ in curve) for curve in curves.values())
        for m in METHODS:
            equal[m].append(at_loss(curves[m], target))
    sheet.score("equal_s2ft_full", contrast(equal["full"], equal["s2ft_r"]))
    sheet.score("equal_lora_full", contrast(equal["lora"], equal["full"]))
    grown = {m: [_path(result, far) for result in found[m]] for m in METHODS}
    ends = np.mean([[path[-1] for path in grown[m]] for m in METHODS], axis=0)
    middles = np.mean([[path[-2] for path in grown[m]] for m in METHODS], axis=0)
    sheet.score("movement", contrast(list(ends), list(middles)))

    sheet.table("Equal steps, smaller budget (mean ± 95% over seeds)", _table(found, bed, far, equal))
    lab.choose_rates("main", METHODS[1:], budget=bed.large)
    large = {"full": found["full"][:large_seeds]}
    trials = {m: [main_trial(lab, m, s, budget=bed.large) for s in range(large_seeds)] for m in METHODS[1:]}
    large |= {m: lab.results(trials[m], f"{m} {bed.large}") for m in METHODS[1:]}
    if not any(r.failure for results in large.values() for r in results):
        sheet.table(f"Equal steps, {bed.large} of the tuned layers", _table(large, bed, far, None))
    sheet.figures.append(_figure(found, bed.loss, far))
    _sweep(lab, sheet, far)
    sheet.note(
        "`drift` is 1 - cosine of an article's mean state before and after (decoder: nats lost on the articles)."
    )
    sheet.note(
        "The rule for rates was changed twice after results of this row had been seen, for reasons that show in the "
        "table of rates: the lowest validation loss, chosen once for both budgets, let LoRA diverge at the larger one; "
        "the smallest rate within a standard error of it left S2FT hardly trained. Now it is the method's default "
        "unless validation tells another one apart, for each budget. Predictions and criteria stayed. What depends on "
        "the rate is shown by the last table."
    )


def _sweep(lab: Lab, sheet: Sheet, far: str) -> None:
    """Every method at every rate of the grid: is an order of methods an order of rates?"""
    bed, rows, series, lowest = lab.bed(), [], [], []
    for method in METHODS:
        default = bed.settings(method).lr
        points = []
        for factor in RATE_FACTORS:
            trials = [
                main_trial(lab, method, s, lr=default * factor)
                for s in range(sheet.design.options["sweep_seeds"])
            ]
            results = lab.results(trials, f"{method} at {factor:g} x")
            if any(r.failure for r in results):
                continue
            points.append(
                [
                    float(np.mean([r.measure("train", bed.loss) for r in results])),
                    float(np.mean([_forgotten(r, far) for r in results])),
                ]
            )
            rows.append(
                {
                    "method": method,
                    "rate": f"{default * factor:g}",
                    "training loss": shown([r.measure("train", bed.loss) for r in results]),
                    f"test {bed.quality}": shown([r.measure("test", bed.quality) for r in results]),
                    "drift": shown([_forgotten(r, far) for r in results], 4),
                }
            )
        series.append({"label": method, "x": [x for x, _ in points], "y": [y for _, y in points]})
        if points:
            loss, least = min(points, key=lambda point: point[1])
            most = max(y for _, y in points)
            lowest.append(f"{method} {least:.4f} (at training loss {loss:.3f}) to {most:.4f}")
    sheet.table("Every rate of the grid, smaller budget (mean ± 95% over seeds)", rows)
    sheet.note(
        f"Drift over the rates of the grid: {'; '.join(lowest)}. An order of methods at the chosen rates holds for these "
        "rates; where the ranges overlap, another choice turns it round."
    )
    sheet.figures.append(
        {
            "name": "rates",
            "title": "Forgetting of each method at each rate",
            "kind": "scatter",
            "caption": "Each point is a method at one rate of its grid at the end of training, mean over seeds.",
            "x": {"label": "training loss (nats)"},
            "y": {"label": "drift of far text"},
            "series": series,
        }
    )


def main_trial(lab: Lab, method: str, seed: int, **changes: object) -> object:
    """The training of the pool that several rows look at."""
    steps = lab.bed().common["steps"]
    half = steps // 2
    settings = {"eval_every": half, **changes}
    return lab.trial(
        "main", method, probes=("far", "spectra"), marks=(half,), keep="state", seed=seed, **settings
    )


def _far_measure(result: Result) -> str:
    return "drift" if "drift" in result.probe("far") else "loss"


def _forgotten(result: Result, far: str, mark: int = -1) -> float:
    found = result.probe("far", mark)
    return found["drift"] if far == "drift" else found["loss"] - found["base"]["loss"]


def _path(result: Result, far: str) -> list[float]:
    """Forgetting at every mark at which it was measured."""
    return [_forgotten(result, far, mark) for mark in result.marked()]


def far_contrast(first: list[Result], second: list[Result], far: str) -> Contrast:
    """Difference in forgetting, with an interval over articles."""

    def each(results: list[Result]) -> np.ndarray:
        found = [result.each("far") for result in results]
        return np.stack([f["drift"] if far == "drift" else f["nats"] / f["tokens"] for f in found])

    return contrast(
        [_forgotten(r, far) for r in first], [_forgotten(r, far) for r in second], (each(first), each(second))
    )


def _split(found: dict[str, list[Result]], first: str, second: str, split: str, name: str) -> Contrast:
    return contrast(
        [r.measure(split, name) for r in found[first]],
        [r.measure(split, name) for r in found[second]],
        (item_losses(found[first], split), item_losses(found[second], split)),
    )


def item_losses(results: list[Result], split: str) -> np.ndarray:
    """Loss of every item, (seeds x items)."""
    rows = []
    for result in results:
        each = result.each(f"split/{split}")
        if "log_probs" in each:
            rows.append(-each["log_probs"][np.arange(len(each["label"])), each["label"]])
        else:
            rows.append(each["answer_nats"] / each["answer_tokens"].mean())
    return np.stack(rows)


def shifted(first: list[Result], second: list[Result], splits: tuple[str, ...], name: str) -> Contrast:
    """Difference of a measure, mean over the shifted splits; over items for rank correlations and losses."""
    values = [[np.mean([r.measure(s, name) for s in splits]) for r in side] for side in (first, second)]
    intervals = []
    for split in splits:
        if name == "rho":
            margins = [
                np.stack([_margin(r.each(f"split/{split}")) for r in side]) for side in (first, second)
            ]
            intervals.append(rank_correlation_interval(*margins, first[0].each(f"split/{split}")["score"]))
        else:
            intervals.append(items_interval(item_losses(first, split), item_losses(second, split)))
    centre = float(np.mean(values[0]) - np.mean(values[1]))
    # Items of different sets are independent: half-widths of the mean add in squares.
    half = float(np.sqrt(sum(((high - low) / 2) ** 2 for low, high in intervals))) / len(splits)
    return contrast(values[0], values[1], interval=(centre - half, centre + half))


def _margin(each: dict[str, np.ndarray]) -> np.ndarray:
    return each["log_probs"][:, 1] - each["log_probs"][:, 0]


def _curve(result: Result, loss: str, far: str) -> list[tuple[float, float]]:
    """(training loss, forgetting) from the start to the end, on the same training items throughout."""
    start = result.at(0)["splits"]["train"]
    points = [(start[loss], 0.0)]
    for mark in result.marked():
        points.append((_train_loss(result, mark, loss, start["n"]), _forgotten(result, far, mark)))
    return points


def _train_loss(result: Result, mark: int, loss: str, count: int) -> float:
    found = result.at(mark)["splits"]["train"]
    if found["n"] == count:
        return found[loss]
    each = result.each("split/train")  # the last evaluation looks at more items
    if "log_probs" in each:
        return float(-each["log_probs"][np.arange(count), each["label"][:count]].mean())
    return float(each["answer_nats"][:count].sum() / each["answer_tokens"][:count].sum())


def at_loss(curve: list[tuple[float, float]], target: float) -> float:
    """Forgetting where the training loss first reaches `target`, linear between marks."""
    for (high, before), (low, after) in pairwise(curve):
        if low <= target <= high:
            share = 0.0 if high == low else (high - target) / (high - low)
            return before + share * (after - before)
    return curve[-1][1]


def _table(found: dict[str, list[Result]], bed: object, far: str, equal: dict | None) -> list[dict]:
    rows = []
    for method, results in found.items():
        row = {
            "method": method,
            "trains": results[0].body["method"]["parameters"]["trainable"],
            "training loss": shown([r.measure("train", bed.loss) for r in results]),
            "test loss": shown([r.measure("test", bed.loss) for r in results]),
            f"test {bed.quality}": shown([r.measure("test", bed.quality) for r in results]),
        }
        for split in bed.shifted:
            row[f"{split} {bed.quality}"] = shown([r.measure(split, bed.quality) for r in results])
        row["drift"] = shown([_forgotten(r, far) for r in results], 4)
        if far == "drift":
            row["retrieval MRR"] = shown([r.probe("far")["mrr"] for r in results])
            row["topic probe"] = shown([r.probe("far")["topic"] for r in results])
        if equal:
            row["drift at equal training loss"] = shown(equal[method], 4)
        rows.append(row)
    return rows


def _figure(found: dict[str, list[Result]], loss: str, far: str) -> dict:
    series = []
    for method, results in found.items():
        curves = np.array([_curve(r, loss, far) for r in results])
        series.append(
            {"label": method, "x": curves[:, :, 0].mean(0).tolist(), "y": curves[:, :, 1].mean(0).tolist()}
        )
    return {
        "name": "frontier",
        "title": "What learning costs in forgetting: left and low is better",
        "kind": "line",
        "caption": "Mean over seeds at the start, in the middle and at the end of training.",
        "x": {"label": "training loss (nats)"},
        "y": {"label": "drift of far text"},
        "series": series,
    }


_ALSO = "1.4% of the tuned layers, 10% with 3 seeds, every rate with 2"
ROW = Row(
    name="ood_forgetting",
    source="S2FT, Figure 2 and Tables 1-2",
    question="At equal parameters and at equal training loss, which method forgets least and does best on shifted data?",
    predictions=PREDICTIONS,
    designs={
        "smoke": Design(METHODS, 2, 15, options={"large_seeds": 1, "sweep_seeds": 1}),
        "cpu": Design(METHODS, 6, 2600, _ALSO, {"large_seeds": 3, "sweep_seeds": 2}),
        "gpu": Design(METHODS, 5, 1800, _ALSO, {"large_seeds": 3, "sweep_seeds": 2}),
    },
    run=run,
    reported=(
        {"what": "training loss at equal parameters", "order": "full < SpFT < LoRA"},
        {"what": "hard near and far tasks", "order": "SpFT > full > LoRA"},
    ),
)  # fmt: skip
