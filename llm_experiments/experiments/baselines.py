"""Every method of the registry once, on one task at one budget: what it learns, transfers and forgets.

Methods that the paper ranks are trained with several seeds, the others with one, so that the table is whole. The
eight selections of S2FT by a score stand in `selection_strategies`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from llm_experiments import metrics
from llm_experiments.experiments.lab import Lab
from llm_experiments.experiments.ood_forgetting import item_losses, main_trial
from llm_experiments.experiments.probing import Shifted
from llm_experiments.experiments.quality import better
from llm_experiments.experiments.row import Design, Prediction, Row, Sheet
from llm_experiments.experiments.statistics import shown
from llm_experiments.experiments.tiers import Bed
from llm_experiments.experiments.trial import Result, Trial
from llm_experiments.experiments.variants import variant_trial

AUDIT = [["run", "baselines", "--tier", "cpu", "--jobs", "1"]]
AUDIT_SECONDS = 3500  # with every training that it shares with other rows
POOL = ("full", "lora", "spft", "s2ft_r")  # trained by ood_forgetting
VARIANTS = ("cola", "asym_lora", "rac_lora", "lora_plus", "cla", "c3la", "random_cla", "random_c3la")
RANKED = ("dora", "lisa", "galore", "loreft", "series_adapter", "parallel_adapter", "prefix")
OTHERS = ("bitfit", "rslora", "pissa", "adalora", "vera", "ia3", "peso_lora_r", "peso_lora_t", "hybrid")
METHODS = (*POOL, *RANKED, *VARIANTS, *OTHERS)
TABLE_1, TABLE_3 = "S2FT, Tables 1-2", "S2FT, Table 3"

# name, better, worse, test sets
ORDERINGS: tuple[tuple[str, tuple[str, ...], tuple[str, ...], str], ...] = (
    ("s2ft_lora", ("s2ft_r",), ("lora",), "test"),
    ("s2ft_dora", ("s2ft_r",), ("dora",), "test"),
    ("s2ft_loreft", ("s2ft_r",), ("loreft",), "test"),
    ("s2ft_adapters", ("s2ft_r",), ("series_adapter", "parallel_adapter"), "test"),
    ("adapters_prefix", ("series_adapter", "parallel_adapter"), ("prefix",), "test"),
    ("s2ft_lisa", ("s2ft_r",), ("lisa",), "shifted"),
    ("lisa_full", ("lisa",), ("full",), "shifted"),
    ("full_galore", ("full",), ("galore",), "shifted"),
)
PREDICTIONS = (
    Prediction("s2ft_lora", "S2FT does better than LoRA", TABLE_1, +1, about="test quality, S2FT - LoRA"),
    Prediction("s2ft_dora", "S2FT does better than DoRA", TABLE_1, +1, about="test quality, S2FT - DoRA"),
    Prediction("s2ft_loreft", "S2FT does better than LoReFT", TABLE_1, +1, about="test quality, S2FT - LoReFT"),
    Prediction("s2ft_adapters", "S2FT does better than series and parallel adapters", TABLE_1, +1,
               about="test quality, S2FT - mean of series and parallel"),
    Prediction("adapters_prefix", "series and parallel adapters do better than prefixes", TABLE_1, +1,
               about="test quality, mean of series and parallel - prefix"),
    Prediction("s2ft_lisa", "on other data than it was trained on S2FT does better than LISA", TABLE_3, +1,
               about="quality on shifted data, S2FT - LISA"),
    Prediction("lisa_full", "on other data than it was trained on LISA does better than full tuning", TABLE_3, +1,
               about="quality on shifted data, LISA - full"),
    Prediction("full_galore", "on other data than it was trained on full tuning does better than GaLore", TABLE_3, +1,
               about="quality on shifted data, full - GaLore"),
)  # fmt: skip


def run(lab: Lab, sheet: Sheet) -> None:
    """Trains every method at its own rate and ranks them."""
    bed, design = lab.bed(), sheet.design
    lab.choose_rates("main", [m for m in design.methods if m in (*POOL, *VARIANTS)])
    trials = {
        m: _trials(lab, m, design.options["ranked"] if m in (*POOL, *RANKED) else 1) for m in design.methods
    }
    lab.results([trial for group in trials.values() for trial in group], "methods")
    found = {m: [r for r in lab.results(trials[m]) if r.failure is None] for m in design.methods}
    refused = {m: lab.results(trials[m])[0].failure for m in design.methods if not found[m]}
    variants = [m for m in found if m in VARIANTS and found[m]]
    later = {
        name: dict(zip(variants, lab.probes([trials[m][0] for m in variants], name), strict=True))
        for name in ("far", "shifted")
    }

    for name, first, second, splits in ORDERINGS:
        absent = [m for m in (*first, *second) if m not in found or len(found[m]) < len(trials[m])]
        if absent:
            sheet.undecided(name, f"not trained: {', '.join(absent)}")
            continue
        sides = ([found[m] for m in first], [found[m] for m in second])
        sheet.score(name, better(*sides, bed, ("test",) if splits == "test" else bed.shifted or ("test",)))

    rows = [_row(m, results, bed, later) for m, results in found.items() if results]
    rows.sort(key=lambda row: float(row[f"test {bed.quality}"].split()[0]), reverse=True)
    sheet.table("Every method at one budget, best first (mean ± 95% over seeds)", rows)
    if refused:
        sheet.table("Methods that the model or the budget refused, or that diverged",
                    [{"method": m, "why": why} for m, why in refused.items()])  # fmt: skip
    sheet.figures.append(_figure(rows, bed))
    sheet.note("Methods of a fixed size ignore the budget; the column `trains` says what they train.")
    sheet.note(
        "Rows with one seed complete the table; nothing is concluded from them. Those that no other row trains are "
        "at the method's default rate. The eight selections of S2FT by a score are in `selection_strategies`."
    )


def _trials(lab: Lab, method: str, seeds: int) -> list[Trial]:
    """Trainings that other rows made, where there are any; else with what this row reads."""
    if method in POOL:
        return [main_trial(lab, method, seed) for seed in range(seeds)]
    if method in VARIANTS:
        return [variant_trial(lab, method, seed) for seed in range(seeds)]
    splits = ",".join(("test", *lab.bed().shifted))
    return [
        lab.trial("main", method, probes=("far",), seed=seed, eval_every=0, eval_items=1, splits=splits)
        for seed in range(seeds)
    ]


def _row(method: str, results: Sequence[Result], bed: Bed, later: Mapping[str, Mapping[str, Any]]) -> dict:
    far = [later["far"][method]] if method in later["far"] else [r.probe("far") for r in results]
    if method in later["shifted"]:
        moved = [np.mean([later["shifted"][method][s][bed.quality] for s in bed.shifted])]
    else:
        moved = [np.mean([_first(r, s, bed, bed.quality) for s in bed.shifted]) for r in results]
    return {
        "method": method,
        "seeds": len(results),
        "trains": results[0].body["method"]["parameters"]["trainable"],
        "learning rate": f"{results[0].trial.settings.lr:g}",
        "training loss": shown([_first(r, "train", bed, bed.loss) for r in results]),
        "test loss": shown([_first(r, "test", bed, bed.loss) for r in results]),
        f"test {bed.quality}": shown([_first(r, "test", bed, bed.quality) for r in results]),
        f"shifted {bed.quality}": shown(moved),
        "far drift": shown([f["drift"] if "drift" in f else f["loss"] - f["base"]["loss"] for f in far], 4),
    }


def _first(result: Result, split: str, bed: Bed, name: str) -> float:
    """A measure over the first items of a split: some trainings looked at more than others."""
    count = min(bed.common["final_items"], Shifted.ITEMS)
    if name == bed.loss:
        return float(item_losses([result], split)[0, :count].mean())
    each = {key: values[:count] for key, values in result.each(f"split/{split}").items()}
    if name == "rho":
        return float(metrics.spearman(metrics.margin(each["log_probs"]), each["score"]) or 0.0)
    return float(np.mean(each["exact"]))


def _figure(rows: list[dict], bed: Bed) -> dict:
    def value(row: dict, column: str) -> float:
        return float(row[column].split()[0])

    families = {"S2FT and other subsets": ("full", "spft", "s2ft_r", "lisa", "bitfit", "hybrid", "galore"),
                "columns (cLA and its chains)": ("cla", "random_cla", "c3la", "random_c3la"),
                "modules and prompts": ("series_adapter", "parallel_adapter", "loreft", "prefix", "ia3")}  # fmt: skip
    placed = {m for members in families.values() for m in members}
    families["low rank"] = tuple(row["method"] for row in rows if row["method"] not in placed)
    series = []
    for label, members in families.items():
        chosen = [row for row in rows if row["method"] in members]
        if chosen:
            series.append({"label": label, "x": [value(r, "training loss") for r in chosen],
                           "y": [value(r, f"shifted {bed.quality}") for r in chosen]})  # fmt: skip
    return {
        "name": "learned_and_transferred",
        "title": "What a method learned, and how well it does on other data",
        "kind": "scatter",
        "caption": "One point a method, mean over its seeds.",
        "x": {"label": "training loss (nats)"},
        "y": {"label": f"{bed.quality} on shifted data"},
        "series": series,
    }


ROW = Row(
    name="baselines",
    source="S2FT, Tables 1-3",
    question="How do all methods compare on one task at one budget, and do the paper's orderings hold?",
    predictions=PREDICTIONS,
    designs={
        "smoke": Design(("full", "lora", "s2ft_r", "lisa", "galore", "cla"), 1, 10, options={"ranked": 1}),
        "cpu": Design(METHODS, 1, 560, "1 seed for methods without a prediction; trainings of ood_forgetting and "
                      "variants_quality are used", {"ranked": 1}),
        "gpu": Design(METHODS, 3, 2400, "1 seed for methods without a prediction", {"ranked": 3}),
    },
    run=run,
    reported=(
        {"what": "commonsense average, LLaMA-7B", "values": "full 81.9, S2FT 81.8, LoReFT 80.2, LISA 80.0, DoRA 78.1, "
         "LoRA 76.7, GaLore 76.3, parallel 72.2, series 70.8, prefix 64.6"},
        {"what": "arithmetic average, LLaMA-7B", "values": "full 71.0, S2FT 70.1, LoRA 69.7, DoRA 69.4"},
        {"what": "MT-Bench, Mistral-7B", "values": "S2FT 5.27, LISA 4.85, full 4.64, LoRA 4.41, GaLore 4.36, untuned 4.32"},
    ),
)  # fmt: skip
