"""Do the bounds on the generalization gap order the variants of LoRA as their gaps are ordered?

The gap is test less training loss, as the paper approximates it. A bound says how large a gap may be, not which of two
gaps is larger; the paper reads its bounds as an order, so that order is put to the test. Methods that fit the
training data better have a wider gap whatever they are, hence the second comparison, at equal training loss.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np

from llm_experiments.experiments.lab import Lab
from llm_experiments.experiments.ood_forgetting import item_losses
from llm_experiments.experiments.row import Design, Prediction, Row, Sheet
from llm_experiments.experiments.statistics import Contrast, contrast, items_interval, shown
from llm_experiments.experiments.trial import Result
from llm_experiments.experiments.variants import (
    METHODS,
    PAIRS,
    PRINTED,
    SMOKE,
    Found,
    at_equal_loss,
    edge_note,
    spread,
    train_all,
    train_losses,
)
from theory.lora_variants.printed import table

AUDIT = [["run", "generalization_gap", "--tier", "cpu", "--jobs", "1"]]
AUDIT_SECONDS = 2400  # with every training that it shares with other rows
PAPER = "LoRA past, present and future"
LINK = 20  # steps of a link of a chain
TRAINED = ("lora", "cola")  # both factors train
FROZEN = ("asym_lora", "rac_lora", "cla", "c3la", "random_cla", "random_c3la")

PREDICTIONS = (
    Prediction("full_wide", "full tuning has a wider gap than LoRA", f"{PAPER}, Table 3 (RoBERTa-Base on CoLA)", +1,
               about="gap, full - LoRA"),
    Prediction("chains_wide", "chains have wider gaps than what they chain, as their bounds are wider by sqrt(k)",
               f"{PAPER}, Table 1", +1, ("lora_variants/table_1",), about="gap, mean of chains - mean of the others"),
    Prediction("frozen_narrow", "variants with a frozen factor have narrower gaps than those that train both",
               f"{PAPER}, D.5", +1, about="gap, both factors trained - one frozen"),
    Prediction("c3la_narrow", "c3LA generalises better than all other variants", f"{PAPER}, Section 3.1", +1,
               about="gap, mean of the other variants - c3LA"),
    Prediction("columns_same", "cLA and random-cLA, with one bound, have gaps that differ by less than 0.02 nats",
               f"{PAPER}, Section 4.2 (iii)"),
    Prediction("order", "of the pairs of variants with clearly different gaps (interval over seeds excludes 0) and "
               "different bounds, Table 1's bound orders more rightly than wrongly (undecided: fewer than 3 such pairs)",
               "lora_variants/table_1; as simulated in generalization_bounds", 0, ("lora_variants/table_1",)),
    Prediction("full_wide_equal", "at equal training loss, too, full tuning has a wider gap than LoRA",
               f"{PAPER}, Table 3 (RoBERTa-Base on CoLA)", +1, about="gap at equal training loss, full - LoRA"),
)  # fmt: skip


def run(lab: Lab, sheet: Sheet) -> None:
    """Gaps of the shared trainings, at equal steps and at equal training loss."""
    bed, found = lab.bed(), train_all(lab, sheet)
    chained = {first: second for first, second in PAIRS.items() if first in found and second in found}
    variants = [m for m in found if m not in ("full", "c3la")]
    sides = (
        ("full_wide", ("full",), ("lora",)),
        ("chains_wide", tuple(chained.values()), tuple(chained)),
        ("frozen_narrow", TRAINED, tuple(m for m in FROZEN if m in found)),
        ("c3la_narrow", tuple(variants), ("c3la",)),
    )
    for name, first, second in sides:
        if not first or not second or any(m not in found for m in (*first, *second)):
            sheet.undecided(name, "not all of these methods were trained")
        else:
            sheet.score(name, gap_contrast(found, first, second, bed.loss))
    if "cla" in found and "random_cla" in found:
        sheet.equal("columns_same", gap_contrast(found, ("cla",), ("random_cla",), bed.loss), 0.02, "nats")
    else:
        sheet.undecided("columns_same", "not both were trained")

    sizes = {m: math.sqrt(bits(rows[0])) for m, rows in found.items()}
    gaps = {m: [gap(r, bed.loss) for r in rows] for m, rows in found.items()}
    right, wrong, tied = ordered({m: gaps[m] for m in found if m != "full"}, sizes)
    clear = right + wrong
    holds = None if clear < 3 or right == wrong else right > wrong
    sheet.fact(
        "order", holds, f"{right} ordered rightly, {wrong} wrongly; {tied} clear differences under one bound"
    )

    equal: dict[str, list[float]] = {m: [] for m in found}
    seeds = range(sheet.design.seeds)
    for seed in seeds:
        for method, value in at_equal_loss({m: curve(found[m][seed], bed.loss) for m in found})[1].items():
            equal[method].append(value)
    if "full" in found and "lora" in found:
        sheet.score("full_wide_equal", contrast(equal["full"], equal["lora"]))
    else:
        sheet.undecided("full_wide_equal", "not both were trained")

    _at_equal_loss(sheet, {m: equal[m] for m in found if m != "full"}, sizes, chained)
    sheet.table(
        "Gap: test less training loss in nats (mean ± 95% over seeds)",
        [
            {
                "method": m,
                "Table 1's bound over LoRA's": f"{sizes[m] / sizes['lora']:.2f}" if "lora" in sizes else "-",
                "training loss": shown([r.measure("train", bed.loss) for r in rows]),
                "gap": shown(gaps[m]),
                "gap at equal training loss": shown(equal[m]),
            }
            for m, rows in found.items()
        ],
    )
    for name, title, label, x in (
        ("learnt", "The gap grows with what was learnt", "training loss at the end (nats)",
         {m: float(np.mean([r.measure("train", bed.loss) for r in rows])) for m, rows in found.items()}),
        ("bound", "Does the bound's order show in the gaps?", "Table 1's bound over LoRA's",
         {m: size / sizes.get("lora", size) for m, size in sizes.items()}),
    ):  # fmt: skip
        sheet.figures.append(_figure(name, title, label, x, gaps))
    sheet.note(
        "Table 1 has no row for full tuning; its column here is the same formula with all numbers, trained once."
    )
    sheet.note(
        "At equal parameters all variants without chains have nearly one bound; only links tell them apart."
    )
    sheet.note(
        "Gaps at equal training loss are interpolated between quarters of training, on the 150 items of each."
    )
    sheet.note(edge_note(lab, list(found)))


def _at_equal_loss(
    sheet: Sheet,
    equal: Mapping[str, Sequence[float]],
    sizes: Mapping[str, float],
    chained: Mapping[str, str],
) -> None:
    """The order of the bounds once more, without what a method gains in gap by learning more."""
    if not chained:
        return
    sides = [np.mean([equal[m] for m in methods], axis=0) for methods in (chained.values(), chained)]
    seen = contrast(list(sides[0]), list(sides[1]))
    right, wrong, tied = ordered(equal, sizes)
    sheet.summary = (
        f"At equal training loss the gaps of chains differ from the others' by {seen.words()} nats."
    )
    sheet.note(
        f"At equal training loss {right} clear differences are ordered rightly, {wrong} wrongly, {tied} stand under one "
        "bound. A chain with a smaller rate than what it chains learns less, which narrows its gap at equal steps."
    )


def bits(result: Result) -> int:
    """Numbers trained in all links together: what stands below the root in Table 1, up to common factors."""
    settings = result.trial.settings
    links = math.ceil(settings.steps / LINK) if settings.method in PAIRS.values() else 1
    return result.body["method"]["parameters"]["trainable"] * links


def gap(result: Result, loss: str) -> float:
    """Test less training loss at the end."""
    return result.measure("test", loss) - result.measure("train", loss)


def gap_contrast(found: Found, first: Sequence[str], second: Sequence[str], loss: str) -> Contrast:
    """Mean gap of some methods less that of others; over items, those of both splits are drawn apart."""

    def values(methods: Sequence[str]) -> list[float]:
        return list(np.mean([[gap(r, loss) for r in found[m]] for m in methods], axis=0))

    square, centre = 0.0, 0.0
    for split, way in (("test", 1), ("train", -1)):
        sides = [
            np.mean([item_losses(found[m], split) for m in methods], axis=0) for methods in (first, second)
        ]
        low, high = items_interval(*sides)
        square += ((high - low) / 2) ** 2
        centre += way * float(sides[0].mean() - sides[1].mean())
    half = math.sqrt(square)
    return contrast(values(first), values(second), interval=(centre - half, centre + half))


def ordered(gaps: Mapping[str, Sequence[float]], sizes: Mapping[str, float]) -> tuple[int, int, int]:
    """Pairs whose gaps differ clearly: how many the bound orders rightly, wrongly, and not at all.

    Args:
        gaps: method -> gap of each seed.
        sizes: method -> bound; equal within 5% counts as no order.
    """
    right = wrong = tied = 0
    for one, other in combinations(gaps, 2):
        seen = contrast(gaps[one], gaps[other])
        if seen.seeds is None or abs(seen.mean) <= seen.seeds:
            continue
        if abs(math.log(sizes[one] / sizes[other])) < 0.05:
            tied += 1
        elif (seen.mean > 0) == (sizes[one] > sizes[other]):
            right += 1
        else:
            wrong += 1
    return right, wrong, tied


def curve(result: Result, loss: str) -> list[tuple[float, float]]:
    """(training loss, gap) from the start to the end, on the same items throughout."""
    start = result.at(0)["splits"]
    count = start["test"]["n"]
    points = [(start["train"][loss], start["test"][loss] - start["train"][loss])]
    marks = result.marked()
    for mark, train in zip(marks, train_losses(result, loss), strict=True):
        same = result.at(mark)["splits"]["test"]["n"] == count
        test = (
            result.measure("test", loss, mark)
            if same
            else float(item_losses([result], "test")[0, :count].mean())
        )
        points.append((train, test - train))
    return points


def _figure(
    name: str, title: str, label: str, x: Mapping[str, float], gaps: Mapping[str, Sequence[float]]
) -> dict:
    kinds = {
        "full": ("full",),
        "LoRA, LoRA+": ("lora", "lora_plus"),
        "CoLA": ("cola",),
        "Asym-LoRA": ("asym_lora",),
        "RAC-LoRA": ("rac_lora",),
        "cLA, random-cLA": ("cla", "random_cla"),
        "c3LA, random-c3LA": ("c3la", "random_c3la"),
    }
    series = []
    for kind, methods in kinds.items():
        there = [m for m in methods if m in gaps]
        if there:
            series.append(
                {
                    "label": kind,
                    "x": [x[m] for m in there],
                    "y": [float(np.mean(gaps[m])) for m in there],
                    "stderr": [spread(gaps[m]) for m in there],
                }
            )
    return {
        "name": name,
        "title": title,
        "kind": "scatter",
        "caption": "Mean over seeds, two standard errors.",
        "x": {"label": label} | ({"scale": "log"} if name == "bound" else {}),
        "y": {"label": "gap: test less training loss (nats)"},
        "series": series,
    }


def _reported() -> tuple[dict, ...]:
    rows = table("table_15")["rows"]
    names = ("RoBERTa-Base, CoLA", "ViT-Tiny, OfficeHome", "DeBERTa v2 XXL, PAWS")
    return tuple(
        {"what": f"Tables 3 and 15, {name}"} | {m: rows[name][PRINTED[m]] or "not readable" for m in METHODS}
        for name in names
    )


ROW = Row(
    name="generalization_gap",
    source="LoRA past, present and future, Tables 1, 3 and 15",
    question="Do the bounds on the generalization gap order the variants of LoRA as their gaps are ordered?",
    predictions=PREDICTIONS,
    designs={
        "smoke": Design(SMOKE, 1, 5, "the trainings of variants_quality"),
        "cpu": Design(METHODS, 3, 5, "the trainings of variants_quality"),
        "gpu": Design(METHODS, 3, 5, "the trainings of variants_quality"),
    },
    run=run,
    reported=_reported(),
)
