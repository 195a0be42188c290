"""What do the bounds say about a trained model? Each one's value beside the measured gap, in orders of magnitude.

The loss is cross-entropy clipped at 2 nats, so that bounds for bounded losses are about it; a bound of 2 nats or more
says nothing. Bounds by norms are evaluated as if the matrices were a chain of layers, which a transformer is not.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from llm_experiments.experiments.generalization_gap import LINK
from llm_experiments.experiments.lab import Lab
from llm_experiments.experiments.ood_forgetting import item_losses
from llm_experiments.experiments.row import Design, Prediction, Row, Sheet
from llm_experiments.experiments.statistics import shown
from llm_experiments.experiments.trial import Result
from llm_experiments.experiments.variants import METHODS, PAIRS, SMOKE, train_all, variant_trial
from llm_experiments.probes.bounds import CAP, Bound, bound_values

AUDIT = [["run", "bound_vacuity", "--tier", "cpu", "--jobs", "1"]]
AUDIT_SECONDS = 2400  # with every training that it shares with other rows
ON_GAP = (
    "information",
    "table_1",
    "around_start",
    "start_printed",
    "start_hoeffding",
    "rate_full",
    "rate_tuned",
)
LEAST = 1.9  # decades by which Table 1 exceeded the true gap in the simulation, at least

PREDICTIONS = (
    Prediction("information", "the bound by the number of trained bits holds in the mean: every method's mean gap is "
               "below it", "lora_variants/table_1 (mean over samples), lora_variants/lemma_1", 0,
               ("lora_variants/table_1", "lora_variants/lemma_1", "lora_variants/thm_5")),
    Prediction("vacuous", "every bound on the gap is vacuous, 2 nats or more, for every method",
               "as simulated in generalization_bounds (456 of 496)", 0,
               ("lora_variants/table_1", "lora_variants/thm_1", "lora_variants/thm_4")),
    Prediction("decades", "Table 1 as printed exceeds the measured gap of every method by at least 1.9 decades",
               "as simulated in generalization_bounds (1.9 to 3.6)", 0, ("lora_variants/table_1",)),
    Prediction("rates", "the gaps of full tuning and LoRA are to each other as sqrt(d) to sqrt(k): the ratio of mean gaps "
               "is within a factor 2 of sqrt(d / k)", "PEFT against full fine-tuning, Theorem 5", 0,
               ("peft_vs_fft/thm_5_slope",)),
    Prediction("capacity", "the norms of the change allow every method to move the output by more than the largest output "
               "of the pretrained model: the bound of Theorem 2 in its true form is above 1 for all",
               "peft_vs_fft/thm_2_literal, thm_2_separation", 0,
               ("peft_vs_fft/thm_2_literal", "peft_vs_fft/thm_2_separation")),
)  # fmt: skip


def run(lab: Lab, sheet: Sheet) -> None:
    """Evaluates every bound on the shared trainings."""
    bed, found = lab.bed(), train_all(lab, sheet)
    gaps: dict[str, list[float]] = {}
    values: dict[str, list[Mapping[str, Bound]]] = {}
    for method, results in found.items():
        trials = [variant_trial(lab, method, seed) for seed in range(sheet.design.seeds)]
        inputs = lab.probes(trials, "bound_inputs")
        gaps[method] = [clipped_gap(result) for result in results]
        values[method] = [bounds(r, x, bed.loss) for r, x in zip(results, inputs, strict=True)]

    mean = {m: float(np.mean(g)) for m, g in gaps.items()}
    least = {m: min(row["information"].value for row in rows) for m, rows in values.items()}
    broken = [m for m in found if mean[m] > least[m]]
    sheet.fact(
        "information",
        not broken,
        f"gaps up to {max(mean.values()):.3g}, bounds from {min(least.values()):.3g} nats"
        + (f"; broken by {', '.join(broken)}" if broken else ""),
    )
    everything = [(m, name, row[name]) for m, rows in values.items() for row in rows for name in ON_GAP]
    empty = [b for *_, b in everything if b.vacuous]
    smallest = min(everything, key=lambda item: -math.inf if item[2].log10 is None else item[2].log10)
    sheet.fact(
        "vacuous",
        len(empty) == len(everything),
        f"{len(empty)} of {len(everything)} are; smallest: {smallest[1]} of {smallest[0]}, {smallest[2].value:.3g} nats",
    )
    decades = {
        m: min(r["table_1"].log10 for r in values[m]) - math.log10(mean[m]) for m in found if mean[m] > 0
    }
    without = [m for m in found if mean[m] <= 0]
    low = min(decades.values(), default=None)
    sheet.fact(
        "decades",
        None if low is None or without else low >= LEAST,
        ("no gap above 0" if low is None else f"from {low:.1f} to {max(decades.values()):.1f} decades")
        + (f"; no gap above 0: {', '.join(without)}" if without else ""),
    )
    _rates(sheet, found, mean)
    moved = {m: [row["capacity_sharp"] for row in rows] for m, rows in values.items()}
    held = [m for m, rows in moved.items() if not all(b.vacuous for b in rows)]
    smallest_move = min(b.value for rows in moved.values() for b in rows)
    sheet.fact(
        "capacity",
        not held,
        f"from {smallest_move:.2g} on" + (f"; 1 or less for {', '.join(held)}" if held else ""),
    )
    _show(sheet, found, gaps, values)


def clipped_gap(result: Result) -> float:
    """Test less training loss, each item's loss clipped."""
    test, train = (np.minimum(item_losses([result], split), CAP).mean() for split in ("test", "train"))
    return float(test - train)


def bounds(result: Result, inputs: Mapping[str, float], loss: str) -> dict[str, Bound]:
    """Every bound for a finished training.

    Args:
        result: with the probe `intruder_sweep`, which has the norms.
        inputs: the probe `bound_inputs`.
        loss: name of the loss, for the gap of the untuned model.
    """
    settings, start = result.trial.settings, result.at(0)["splits"]
    links = math.ceil(settings.steps / LINK) if settings.method in PAIRS.values() else 1
    norms = [(n["base"], n["spectral"]) for n in result.probe("intruder_sweep")["norms"].values()]
    trained = min(links * inputs["one_link"], inputs["all"] - inputs["head"]) + inputs["head"]
    return bound_values(
        trained=trained,
        total=inputs["all"],
        samples=inputs["samples"],
        norms=norms,
        loss_lipschitz=math.sqrt(2) * inputs["scores_norm"],
        input_norm=inputs["input_norm"],
        bits=inputs["bits"],
        start_gap=start["test"][loss] - start["train"][loss],
    )


def _rates(sheet: Sheet, found: Mapping[str, object], mean: Mapping[str, float]) -> None:
    if "full" not in found or "lora" not in found or mean["lora"] <= 0 or mean["full"] <= 0:
        sheet.undecided("rates", "no gap above 0 for both")
        return
    d, k = (found[m][0].body["method"]["parameters"]["trainable"] for m in ("full", "lora"))
    expected, seen = math.sqrt(d / k), mean["full"] / mean["lora"]
    sheet.fact(
        "rates",
        0.5 <= seen / expected <= 2,
        f"gaps are as {seen:.2f} to 1, sqrt(d) to sqrt(k) as {expected:.2f} to 1",
    )


def _show(sheet: Sheet, found: Mapping, gaps: Mapping, values: Mapping) -> None:
    names = (*ON_GAP, "capacity_printed", "capacity_sharp")
    rows = []
    for method in found:
        row = {"method": method, "measured gap": shown(gaps[method])}
        for name in names:
            logs = [b[name].log10 for b in values[method]]
            row[name] = "-" if None in logs else f"{np.mean(logs):.2f}"
        rows.append(row)
    sheet.table(
        "log10 of every bound (nats; capacities: over the largest base output), mean over seeds", rows
    )
    first = next(iter(values.values()))[0]
    sheet.table(
        "What the bounds are about",
        [
            {"bound": name, "claim": first[name].claim, "about this model": first[name].applies}
            for name in names
        ],
    )
    series = []
    for name in ("information", "table_1", "around_start", "start_printed", "rate_tuned"):
        points = [
            (float(np.mean(gaps[m])), float(np.mean([b[name].log10 for b in values[m]])))
            for m in found
            if all(b[name].log10 is not None for b in values[m]) and np.mean(gaps[m]) > 0
        ]
        series.append({"label": name, "x": [x for x, _ in points], "y": [y for _, y in points]})
    sheet.figures.append(
        {
            "name": "decades",
            "title": "The bounds are decades above the gaps, and above all that a loss can be",
            "kind": "scatter",
            "caption": "One point a method; clipped cross-entropy.",
            "x": {"label": "measured gap (nats)"},
            "y": {"label": "log10 of the bound (nats)"},
            "series": series,
            "lines": [{"y": math.log10(CAP), "label": "largest loss: above it a bound is vacuous"}],
        }
    )
    sheet.note(
        "A bound by norms is no statement on a transformer; its value shows the size of this style of bound."
    )
    sheet.note(
        "The gap of the untuned model, part of the bounds around the start, is that of the unclipped loss on the items of "
        "the first evaluation; its head was fitted to the training examples."
    )
    sheet.note(
        "Bits are those of stored float32 numbers; coarser storage would lower the first two columns by a root."
    )


ROW = Row(
    name="bound_vacuity",
    source="ours; LoRA past, present and future, Theorems 1, 4, 5 and Table 1; PEFT against full, Theorems 2 and 5",
    question="What do the bounds say about a trained model, beside the measured gap?",
    predictions=PREDICTIONS,
    designs={
        "smoke": Design(SMOKE, 1, 5, "the trainings of variants_quality"),
        "cpu": Design(METHODS, 3, 80, "the trainings of variants_quality"),
        "gpu": Design(METHODS, 3, 200, "the trainings of variants_quality"),
    },
    run=run,
)  # fmt: skip
