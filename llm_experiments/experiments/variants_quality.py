"""Is one variant of LoRA better than the others at equal parameters, and do chains learn more than what they chain?"""

from __future__ import annotations

import numpy as np

from llm_experiments.experiments.lab import Lab
from llm_experiments.experiments.row import Design, Prediction, Row, Sheet
from llm_experiments.experiments.statistics import shown
from llm_experiments.experiments.tiers import Bed
from llm_experiments.experiments.variants import (
    METHODS,
    PRINTED,
    SMOKE,
    Found,
    at_default_rate,
    dots,
    edge_note,
    loss_contrast,
    pairs_in,
    quality_contrast,
    score,
    train_all,
)
from theory.lora_variants.printed import table

AUDIT = [["run", "variants_quality", "--tier", "cpu", "--jobs", "1"]]
AUDIT_SECONDS = 2400  # with every training that it shares with other rows
PAPER = "LoRA past, present and future"
SUBSTANTIAL = 0.02  # of rank correlation (or nats): what the paper's "substantially" is taken to mean

PREDICTIONS = (
    Prediction("no_winner", "no method is substantially better than all others: the best is less than 0.02 in rank "
               "correlation above the second (agrees: upper end of the interval over seeds below 0.02; contradicts: "
               "lower end above it)", f"{PAPER}, Section 4.1"),
    Prediction("cla_behind", "cLA, which trains a few columns of each layer, is behind LoRA",
               f"{PAPER}, D.2 and Section E", +1, about="test quality, LoRA - cLA"),
    Prediction("c3la_behind", "c3LA is behind LoRA", f"{PAPER}, D.2", +1, about="test quality, LoRA - c3LA"),
    Prediction("asym_stays", "what a frozen A does not see stays: Asym-LoRA ends at a higher training loss than RAC-LoRA",
               "lora_variants/thm_2_frozen, thm_2_chain", +1,
               ("lora_variants/thm_2_frozen", "lora_variants/thm_2_chain"), about="training loss, Asym - RAC"),
    Prediction("cla_stays", "columns that do not train stay: cLA ends at a higher training loss than c3LA",
               "lora_variants/thm_2_frozen, prop_1", +1, ("lora_variants/thm_2_frozen", "lora_variants/prop_1"),
               about="training loss, cLA - c3LA"),
    Prediction("lora_floor", "a chain of merged LoRAs gets below the floor of one LoRA: CoLA ends at a lower loss",
               "peso/synthetic_curves, peso/rac_counterexample", +1,
               ("peso/synthetic_curves", "peso/rac_counterexample"), about="training loss, LoRA - CoLA"),
)  # fmt: skip


def run(lab: Lab, sheet: Sheet) -> None:
    """Trains all variants at one budget and compares training loss and test quality."""
    bed, found = lab.bed(), train_all(lab, sheet)
    _no_winner(sheet, found, bed)
    for name, other in (("cla_behind", "cla"), ("c3la_behind", "c3la")):
        score(sheet, found, name, "lora", other, lambda a, b: quality_contrast(a, b, bed))
    for name, first, second in (
        ("asym_stays", "asym_lora", "rac_lora"),
        ("cla_stays", "cla", "c3la"),
        ("lora_floor", "lora", "cola"),
    ):
        score(sheet, found, name, first, second, lambda a, b: loss_contrast(a, b, "train", bed.loss))

    rows = []
    for method, results in found.items():
        parameters = results[0].body["method"]["parameters"]
        rows.append(
            {
                "method": method,
                "trains": parameters["trainable"],
                "learning rate": f"{results[0].trial.settings.lr:g}",
                "training loss": shown([r.measure("train", bed.loss) for r in results]),
                "test loss": shown([r.measure("test", bed.loss) for r in results]),
                f"test {bed.quality}": shown([r.measure("test", bed.quality) for r in results]),
            }
        )
    sheet.table("Equal parameters, equal steps (mean ± 95% over seeds)", rows)
    _same_rate(lab, sheet, found)
    lines = [
        {"y": float(np.mean([r.measure("test", bed.loss, 0) for r in found["full"]])), "label": "untuned"}
    ]
    for name, title, methods in (
        ("dense", "Test loss against training loss: variants with dense factors", METHODS[:6]),
        ("sparse", "Test loss against training loss: variants that train columns", ("lora", *METHODS[6:])),
    ):
        sheet.figures.append(
            {
                "name": name,
                "title": title,
                "kind": "scatter",
                "caption": "Mean over seeds, two standard errors; left learnt more, low generalises better.",
                "x": {"label": "training loss at the end (nats)"},
                "y": {"label": "test loss (nats)"},
                "series": dots(
                    {m: found[m] for m in methods if m in found},
                    lambda r: r.measure("train", bed.loss),
                    lambda r: r.measure("test", bed.loss),
                ),
                "lines": lines,
            }
        )
    sheet.note(
        "Equal parameters (1.4% of the tuned layers), not equal ranks: a frozen A halves the price of a rank."
    )
    sheet.note("A link of a chain lasts 20 steps; moments are reset at every link.")
    sheet.note(edge_note(lab, list(found)))
    sheet.note("Training stops after about one pass over the data, long before convergence.")


def _same_rate(lab: Lab, sheet: Sheet, found: Found) -> None:
    """Chains against what they chain at one rate for both."""
    loss, again = lab.bed().loss, at_default_rate(lab, sheet, found)
    rows, lower = [], []
    for base, chain in pairs_in(again).items():
        seen = loss_contrast(again[base], again[chain], "train", loss)
        if seen.seeds is not None and seen.mean - seen.seeds > 0:
            lower.append(chain)
        rows.append(
            {
                "pair": f"{base}, {chain}",
                "chosen rates": f"{found[base][0].trial.settings.lr:g}, {found[chain][0].trial.settings.lr:g}",
                "rate here": f"{again[base][0].trial.settings.lr:g}",
                "training loss without": shown([r.measure("train", loss) for r in again[base]]),
                "with chain": shown([r.measure("train", loss) for r in again[chain]]),
                "without - with": seen.words(),
                "test loss, without - with": loss_contrast(again[base], again[chain], "test", loss).words(),
            }
        )
    if not rows:
        return
    sheet.table("Chains at the rate of what they chain (mean ± 95% over seeds)", rows)
    sheet.summary = (
        f"At one learning rate for a chain and what it chains, {', '.join(lower) or 'no chain'} "
        f"{'end' if len(lower) > 1 else 'ends'} at a lower training loss ({len(lower)} of {len(rows)} pairs)."
    )
    sheet.note(
        "The predictions on training loss are scored at the chosen rates. Where these differ within a pair, the outcome is "
        "that of the rates; the table at one rate, added after the first run had shown this, is the fairer comparison."
    )


def _no_winner(sheet: Sheet, found: Found, bed: Bed) -> None:
    means = {m: np.mean([r.measure("test", bed.quality) for r in rows]) for m, rows in found.items()}
    best, second = sorted(means, key=means.__getitem__)[-1:-3:-1]
    seen = quality_contrast(found[best], found[second], bed)
    holds = None
    if seen.seeds is not None:
        if seen.mean + seen.seeds < SUBSTANTIAL:
            holds = True
        elif seen.mean - seen.seeds > SUBSTANTIAL:
            holds = False
    sheet.fact("no_winner", holds, f"{best} - {second}: {seen.words()}")


def _reported() -> tuple[dict, ...]:
    rows = table("table_2")["rows"]
    return tuple(
        {"what": f"Table 2, {name} (rank 16)"}
        | {m: rows[name][PRINTED[m]] or "not readable" for m in METHODS}
        for name in ("RoBERTa-Base, CoLA", "RoBERTa-Base, MRPC", "DeBERTa v3 Base, MRPC")
    )


ROW = Row(
    name="variants_quality",
    source="LoRA past, present and future, Table 2",
    question="At equal parameters, is one variant of LoRA better than the others, and do chains learn more?",
    predictions=PREDICTIONS,
    designs={
        "smoke": Design(SMOKE, 1, 5),
        "cpu": Design(METHODS, 3, 2700, "chains at default rates, too; intruders and norms at each quarter"),
        "gpu": Design(METHODS, 3, 2700, "intruders and norms at each quarter, for the rows that share this"),
    },
    run=run,
    reported=_reported(),
)
