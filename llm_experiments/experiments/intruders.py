"""Do chains and low ranks bring intruder dimensions, and do intruders cost quality?

An intruder is a singular vector of the tuned weight that is far from all pretrained ones. Counts grow with the size of
the change whatever its kind, so they stand beside those of a random change of the same norm, and at equal training loss.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import stats

from llm_experiments.experiments.lab import Lab
from llm_experiments.experiments.row import Design, Prediction, Row, Sheet
from llm_experiments.experiments.statistics import Contrast, contrast, shown
from llm_experiments.experiments.trial import Result
from llm_experiments.experiments.variants import (
    METHODS,
    PAIRS,
    PRINTED,
    SMOKE,
    Found,
    at_default_rate,
    at_equal_loss,
    edge_note,
    pairs_in,
    score,
    spread,
    train_all,
    train_losses,
    variant_trial,
)
from llm_experiments.probes.intruder_sweep import THRESHOLDS
from theory.lora_variants.printed import table

AUDIT = [["run", "intruders", "--tier", "cpu", "--jobs", "1"]]
AUDIT_SECONDS = 2500  # with every training that it shares with other rows
PAPER = "LoRA past, present and future"
EPS = (0.4, 0.8)  # the paper's thresholds
HIGH = 0.8

PREDICTIONS = (
    *(
        Prediction(f"chain_{chain}", f"{chain} has more intruders than {base}, which it chains",
                   f"{PAPER}, Section 4.2 (ii) and Table 13", +1, about=f"intruders a matrix at 0.8, {chain} - {base}")
        for base, chain in PAIRS.items()
    ),
    Prediction("lora_full", "LoRA has more intruders than full tuning", f"{PAPER}, Table 13", +1,
               about="intruders a matrix at 0.8, LoRA - full"),
    Prediction("grow", "intruders grow in number during training", f"{PAPER}, Table 13", +1,
               about="intruders a matrix at 0.8, end - first quarter, mean of methods"),
    Prediction("quality", "methods with more intruders are worse at the task", f"{PAPER}, Section 4.2 (ii)", -1,
               about="rank correlation over methods of intruders at 0.8 with test quality"),
    Prediction("none_below", "square matrices have no intruder below 1/sqrt(n), whatever the change (agrees: none in all "
               "runs at all such thresholds)", "lora_variants/intruder_definition", 0,
               ("lora_variants/intruder_definition",)),
)  # fmt: skip


def run(lab: Lab, sheet: Sheet) -> None:
    """Counts in the shared trainings: over training, over thresholds, against chance and at equal loss."""
    bed, found = lab.bed(), train_all(lab, sheet)
    found = {m: rows for m, rows in found.items() if "refused" not in rows[0].probe("intruder_sweep")}
    for base, chain in PAIRS.items():
        score(sheet, found, f"chain_{chain}", chain, base, _more)
    score(sheet, found, "lora_full", "lora", "full", _more)
    seeds = range(sheet.design.seeds)
    first = found["full"][0].marked()[0]
    sheet.score(
        "grow",
        contrast(
            [float(np.mean([a_matrix(found[m][s], HIGH) for m in found])) for s in seeds],
            [float(np.mean([a_matrix(found[m][s], HIGH, first) for m in found])) for s in seeds],
        ),
    )
    sheet.score(
        "quality",
        contrast(
            [
                correlation(
                    [a_matrix(found[m][s], HIGH) for m in found],
                    [found[m][s].measure("test", bed.quality) for m in found],
                )
                for s in seeds
            ],
            [0.0] * len(seeds),
        ),
    )
    _none_below(sheet, found)
    _tables(lab, sheet, found)
    _figures(sheet, found, bed.loss)
    _same_rate(lab, sheet, found)
    sheet.note(
        "Equal parameters, where the paper has equal ranks; `any` counts all singular vectors, `top ten` those of the ten "
        "largest singular values."
    )
    sheet.note(
        "`chance` is Gaussian noise of the same Frobenius norm in the place of the change: near-equal singular values "
        "in the tail of a spectrum let small changes turn their vectors, and the count sees nothing else there."
    )
    sheet.note(
        "Counts depend on the learning rate through the size of the change, hence the columns at equal loss."
    )
    sheet.note(edge_note(lab, list(found)))


def counted(result: Result, kind: str, eps: float, mark: int = -1) -> float:
    """Intruders a changed matrix at a threshold; `kind` as in `IntruderSweep`."""
    sweep = result.probe("intruder_sweep", mark)
    return sweep[kind][THRESHOLDS.index(eps)] / max(1, sweep["changed"])


def a_matrix(result: Result, eps: float, mark: int = -1) -> float:
    """Intruders a changed matrix, all vectors."""
    return counted(result, "all", eps, mark)


def correlation(first: Sequence[float], second: Sequence[float]) -> float:
    """Rank correlation; 0 where one side is constant."""
    if len(set(first)) < 2 or len(set(second)) < 2:
        return 0.0
    return float(stats.spearmanr(first, second).statistic)


def _more(first: Sequence[Result], second: Sequence[Result]) -> Contrast:
    return contrast([a_matrix(r, HIGH) for r in first], [a_matrix(r, HIGH) for r in second])


def _none_below(sheet: Sheet, found: Found) -> None:
    """Checks the square matrices, all at thresholds that none of them can pass."""
    result = next(iter(found.values()))[0]
    shapes = [norms["shape"] for norms in result.probe("intruder_sweep")["norms"].values()]
    largest = max((n for n, m in shapes if n == m), default=0)
    below = [i for i, eps in enumerate(THRESHOLDS) if largest and eps <= largest**-0.5]
    if not below:
        sheet.undecided("none_below", "no threshold of the sweep is as low, or no matrix is square")
        return
    seen = [
        r.probe("intruder_sweep", mark)["square"][i]
        for rows in found.values()
        for r in rows
        for mark in r.marked()
        for i in below
    ]
    sheet.fact(
        "none_below",
        not any(seen),
        f"{sum(seen)} in {len(seen)} counts up to {THRESHOLDS[below[-1]]}, 1/sqrt(n) = {largest**-0.5:.3f}",
    )


def _tables(lab: Lab, sheet: Sheet, found: Found) -> None:
    loss = lab.bed().loss
    marks = found["full"][0].marked()
    rows = []
    for method, results in found.items():
        row: dict = {"method": method}
        for eps in EPS:
            for quarter, mark in enumerate(marks, 1):
                row[f"{eps}, {25 * quarter}%"] = f"{np.mean([a_matrix(r, eps, mark) for r in results]):.1f}"
        rows.append(row)
    sheet.table("Intruders a changed matrix during training (mean over seeds)", rows)

    equal: dict[str, list[float]] = {m: [] for m in found}
    for seed in range(sheet.design.seeds):
        curves = {m: _curve(found[m][seed], loss) for m in found}
        for method, value in at_equal_loss(curves)[1].items():
            equal[method].append(value)
    spaces = lab.probes([variant_trial(lab, m, 0) for m in found], "intruders")
    rows = []
    for (method, results), seen in zip(found.items(), spaces, strict=True):
        last = results[0].probe("intruder_sweep")
        rows.append(
            {
                "method": method,
                "any, 0.8": shown([a_matrix(r, HIGH) for r in results], 1),
                "chance, 0.8": shown([counted(r, "random_all", HIGH) for r in results], 1),
                "any at equal loss": shown(equal[method], 1),
                "top ten, 0.8": shown([counted(r, "top", HIGH) for r in results], 2),
                "chance, top ten": shown([counted(r, "random_top", HIGH) for r in results], 2),
                "by spaces, 0.8 (seed 0)": f"{seen[str(HIGH)]['spaces'] / max(1, last['changed']):.1f}",
                "|dW| / |W0|, spectral": shown([relative(r) for r in results], 3),
            }
        )
    sheet.table("Intruders a changed matrix at the end: as printed, by chance, repaired (mean ± 95%)", rows)


def _same_rate(lab: Lab, sheet: Sheet, found: Found) -> None:
    """Chains against what they chain at one rate for both."""
    again = at_default_rate(lab, sheet, found)
    rows, more = [], []
    for base, chain in pairs_in(again).items():
        seen = _more(again[chain], again[base])
        if seen.seeds is not None and seen.mean - seen.seeds > 0:
            more.append(chain)
        rows.append(
            {
                "pair": f"{base}, {chain}",
                "chosen rates": f"{found[base][0].trial.settings.lr:g}, {found[chain][0].trial.settings.lr:g}",
                "rate here": f"{again[base][0].trial.settings.lr:g}",
                "without chain": shown([a_matrix(r, HIGH) for r in again[base]], 1),
                "chain": shown([a_matrix(r, HIGH) for r in again[chain]], 1),
                "chain - without": seen.words(),
                "chance, without and with": ", ".join(
                    f"{np.mean([counted(r, 'random_all', HIGH) for r in again[m]]):.1f}"
                    for m in (base, chain)
                ),
            }
        )
    if not rows:
        return
    sheet.table(
        "Chains at the rate of what they chain: intruders a matrix at 0.8 (mean ± 95% over seeds)", rows
    )
    noise = [
        np.mean([counted(r, "random_all", HIGH) for r in results])
        / np.mean([a_matrix(r, HIGH) for r in results])
        for results in found.values()
        if any(a_matrix(r, HIGH) for r in results)
    ]
    sheet.summary = (
        f"At one learning rate for a chain and what it chains, {', '.join(more) or 'no chain'} "
        f"{'have' if len(more) > 1 else 'has'} more intruders at 0.8 ({len(more)} of {len(rows)} pairs)"
        + (
            f"; noise of the change's norm brings {min(noise):.2f} to {max(noise):.2f} times as many"
            if noise
            else ""
        )
        + "."
    )
    sheet.note(
        "The predictions on chains are scored at the chosen rates. Where these differ within a pair, the outcome is that "
        "of the rates; the table at one rate, added after the first run had shown this, is the fairer comparison."
    )


def relative(result: Result, mark: int = -1) -> float:
    """Mean over changed matrices of the change's spectral norm over the weight's."""
    norms = result.probe("intruder_sweep", mark)["norms"].values()
    return float(np.mean([n["spectral"] / n["base"] for n in norms if n["frobenius"]] or [0.0]))


def _curve(result: Result, loss: str) -> list[tuple[float, float]]:
    points = [(result.at(0)["splits"]["train"][loss], 0.0)]
    for mark, train in zip(result.marked(), train_losses(result, loss), strict=True):
        points.append((train, a_matrix(result, HIGH, mark)))
    return points


def _figures(sheet: Sheet, found: Found, loss: str) -> None:
    chosen = [m for m in ("full", "lora", "cola", "asym_lora", "rac_lora", "cla", "c3la") if m in found]
    x = list(THRESHOLDS)

    def sweep(kind: str, method: str) -> dict:
        values = np.array([[counted(r, kind, eps) for eps in x] for r in found[method]])
        return {"x": x, "y": values.mean(0).tolist(), "stderr": [spread(list(v)) for v in values.T]}

    for kind, title in (
        ("all", "Intruders among all vectors"),
        ("top", "Intruders among the top ten vectors"),
    ):
        series = [{"label": m, **sweep(kind, m)} for m in chosen]
        chance = [
            {"label": m, **sweep(f"random_{kind}", m), "role": "predicted"} for m in ("lora",) if m in found
        ]
        sheet.figures.append(
            {
                "name": f"sweep_{kind}",
                "title": f"{title}, by threshold",
                "kind": "line",
                "caption": "Mean a changed matrix at the end; dashed: Gaussian noise of the norm of LoRA's change.",
                "x": {"label": "threshold eps"},
                "y": {"label": "intruders a matrix"},
                "series": series + chance,
            }
        )
    curves = []
    for method in chosen:
        points = np.array([_curve(r, loss) for r in found[method]]).mean(0)
        curves.append({"label": method, "x": points[:, 0].tolist(), "y": points[:, 1].tolist()})
    sheet.figures.append(
        {
            "name": "frontier",
            "title": "What learning costs in intruders: left and low is better",
            "kind": "line",
            "caption": "From the start (right) to the end of training in quarters, mean over seeds, threshold 0.8.",
            "x": {"label": "training loss (nats)"},
            "y": {"label": "intruders a matrix"},
            "series": curves,
        }
    )


def _reported() -> tuple[dict, ...]:
    found = []
    for number, model in (("13", "RoBERTa-Base, CoLA"), ("14", "ViT-Base, CIFAR-10")):
        rows = table(f"table_{number}")["rows"]
        for eps in EPS:
            found.append(
                {"what": f"Table {number}, {model}, {eps}, end"}
                | {m: rows[PRINTED[m]][str(eps)][-1] for m in METHODS if PRINTED[m] in rows}
            )
    return tuple(found)


ROW = Row(
    name="intruders",
    source="LoRA past, present and future, Tables 13-14 and Figure 3",
    question="Do chains and low ranks bring intruder dimensions, and do intruders cost quality?",
    predictions=PREDICTIONS,
    designs={
        "smoke": Design(SMOKE, 1, 6, "the trainings of variants_quality"),
        "cpu": Design(METHODS, 3, 120, "the trainings of variants_quality, counted by spaces for one seed"),
        "gpu": Design(METHODS, 3, 300, "the trainings of variants_quality, counted by spaces for one seed"),
    },
    run=run,
    reported=_reported(),
)
