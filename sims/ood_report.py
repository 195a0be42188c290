"""Put the parts of the random-network simulation of out-of-distribution risk into one record."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from sims import descent, ood_sections
from sims.networks import Task
from sims.ood_figures import crossover_figure, curve_figure, phase_figure, sample_figure, sweep_figure
from sims.ood_sections import CLEAR, METHODS, TOLERANCE, Run
from sims.present import Row, compared, counted, number, show, tested, worst_z
from theory.s2ft import risks

Array = np.ndarray
ALIGNMENTS = [round(0.1 * i - 0.2, 1) for i in range(15)]  # -0.2 ... 1.2
SHARES = [0.01, 0.1, 0.25, 0.4, 0.55, 0.7, 0.85, 0.99]
SAMPLES = (24, 48, 96, 192, 384)  # n, times the width over 16
GAP, TOLD = "E_o(S2FT) - E_o(LoRA)", "winners predicted"
CLAIMS = [
    "phase_law",
    "ood_crossover",
    "gain_equals_movement",
    "lemma_f9",
    "lemma_f9_gd",
    "lemma_f12",
    "lemma_f17",
]

# Networks and tasks beside the default one; each is a change of `Task`.
VARIANTS: dict[str, dict[str, Any]] = {
    "channels by residual energy": {"selection": "energy"},
    "channels by weight": {"selection": "weight"},
    "flat residual of rank 2r": {"residual_rank": 8},
    "decaying residual of rank 4r": {"residual_rank": 16, "decay": 1.0},
    "shift along one direction": {"shift_law": "sign"},
    "heavy-tailed shift": {"shift_law": "heavy"},
    "large shift": {"shift_size": 5.0},
    "covariate shift": {"covariate_shift": 0.5},
    "part of the risk out of reach": {"widths": (16, 12, 16, 12, 16), "tuned": 3, "unreachable": 0.3},
    "first of six layers": {"widths": (12, 16, 20, 16, 14, 12, 10), "tuned": 1},
    "last layer": {"tuned": 3},
    "wide tuned layer": {"widths": (16, 64, 16), "tuned": 1, "rank": 2},
}


def record(name: str, run: Run, task: Task, *, quick: bool, variants: bool) -> dict[str, Any]:
    """Run all parts and return the record."""
    rows: list[Row] = []
    figures: list[dict[str, Any]] = []

    def part(title: str, new: list[Row]) -> None:
        show(title, new)
        rows.extend(new)

    main = ood_sections.compute(ood_sections.population, run, task, 1)
    part(
        "Population: closed form (predicted) and gradient descent (simulated)",
        population_rows(task, run, main),
    )
    if task.covariate_shift == 0:
        part("Who wins out of distribution", winner_rows(task, main))
        figures += crossover_figure(main)
        if task.s < task.m:
            grid = ood_sections.phase(
                replace(run, seeds=max(2, run.seeds // 2)),
                phase_task(task),
                SHARES[:: 2 if quick else 1],
                ALIGNMENTS,
                100,
            )
            part("Phase law: mean E_o(S2FT) - E_o(LoRA)", phase_rows(grid))
            figures.append(phase_figure(grid))
    got = {
        n: ood_sections.compute(ood_sections.finite, replace(run, steps=()), task, 20_000 + n, n)
        for n in samples(task)
    }
    part("Training on n samples: exact mean (S2FT, full) or leading order (LoRA)", sample_rows(task, got))
    figures.append(sample_figure(got))
    n = samples(task)[2]
    descended = ood_sections.compute(ood_sections.finite, run, task, 30_000 + n, n)
    part(
        "Gradient descent on samples, beside the closed form on the same samples",
        descended_rows(run, n, descended),
    )
    starts = {
        how: ood_sections.compute(ood_sections.population, replace(run, start=how), task, 1)
        for how in descent.STARTS
        if how != run.start
    }
    starts[run.start] = main
    figures.append(curve_figure(run, starts))
    part("LoRA's start: how far it ends from the closed form", start_rows(run, starts) + least_norm_rows(run))
    sweeps = {name: sweep(run, task, name, values) for name, values in sweep_values(task).items()}
    figures += [sweep_figure(name, points) for name, points in sweeps.items() if len(points) > 1]
    everything = {"default": main}
    everything |= {f"{name} = {v}": got for name, points in sweeps.items() for v, got in points.items()}
    if variants:
        for i, (label, change) in enumerate(VARIANTS.items()):
            other = replace(task, **change)
            fewer = replace(run, seeds=max(2, run.seeds // 4))
            everything[label] = ood_sections.compute(ood_sections.population, fewer, other, 400 + i)
            new = population_rows(other, run, everything[label], label)[1:7]
            part(
                label,
                new + (winner_rows(other, everything[label], label) if not other.covariate_shift else []),
            )
    tightness = bound_table(everything)
    part("Bounds beside what they bound (predicted: mean bound; simulated: mean risk)", bound_rows(tightness))
    return {
        "id": name,
        "headline": headline(rows, task, main),
        "question": "Which of full tuning, LoRA and S2FT is better on a shifted task, and does theory know beforehand?",
        "settings": {
            "task": task.as_dict(),
            "seeds": run.seeds,
            "seed": run.seed,
            "steps": list(run.steps),
            "start": run.start,
            "variants": list(VARIANTS) if variants else [],
        },
        "table": rows,
        "figures": figures,
        "notes": notes(),
        "claims": [f"s2ft/{c}" for c in dict.fromkeys([*CLAIMS, *(b["claim"] for b in tightness)])],
        "bounds": tightness,
    }


def phase_task(task: Task) -> Task:
    """The task of the phase diagram: a flat residual of rank up to 2 r, so that either gain can be larger."""
    return replace(task, residual_rank=min(2 * task.rank, *task.widths), decay=0.0, selection="random")


def samples(task: Task) -> list[int]:
    """The sample sizes, in proportion to the width of the tuned layer's input."""
    return [max(n * task.k // 16, task.k + 3) for n in SAMPLES]


def population_rows(task: Task, run: Run, got: dict[str, Array], label: str = "") -> list[Row]:
    """Closed forms beside gradient descent."""
    place = f"{label}: " if label else ""
    steps = f"{place}{run.steps[-1]} steps"
    rows = [compared("E_i(pre)", f"{place}before tuning", 1.0, np.ones(1))]
    for method in METHODS:
        rows.append(compared(f"E_i({method})", steps, got[f"{method}.in"], got[f"{method}.curve"][:, -1]))
    for method in METHODS:
        rows.append(
            compared(
                f"E_o({method})",
                f"{steps}, t = {task.alignment:g}",
                got[f"{method}.out"],
                got[f"{method}.trained"],
            )
        )
    for method in METHODS:
        gained = 1 - got[f"{method}.curve"][:, -1]
        rows.append(compared(f"movement of {method} = its gain", steps, gained, got[f"{method}.movement"]))
    return rows


def winner_rows(task: Task, got: dict[str, Array], label: str = "") -> list[Row]:
    """The phase law's mean, and the winner that the crossover predicts for each single task."""
    place = f"{label}: " if label else ""
    t = task.alignment
    gap = (1 - t) * got["gap.0"] + t * got["gap.1"]
    gained, moved = ood_sections.trained_pair(got)
    law = risks.mean_gap(t, got["S2FT.gain"], got["LoRA.gain"])
    rows = [
        tested(GAP, f"{place}t = {t:g}", risks.mean_gap_of_fits(t, moved, gained), gap),
        compared(GAP, f"{place}t = {t:g}, phase law of the closed forms", law, gap),
    ]
    clear = np.abs(got["S2FT.out"] - got["LoRA.out"]) > CLEAR
    above = (got["S2FT.gain"] > got["LoRA.gain"]) == (t > got["crossover"])
    of = f"{place}of {clear.sum()} tasks at least {CLEAR} from a tie"
    rows.append(counted(TOLD, of, clear.sum(), (clear & (above == (gap < 0))).sum()))
    if task.realisable and task.rank >= task.residual_rank:
        left, right = got["sides"].T
        agree = clear & ((left < right) == (gap < 0))
        rows.append(counted("the same from ood_crossover's two norms", of, clear.sum(), agree.sum()))
    return rows


def phase_rows(grid: dict[str, Any], label: str = "") -> list[Row]:
    """One row for each ratio of the gains: its own networks and shifts, so the z are independent."""
    place = f"{label}: " if label else ""
    at = grid["alignments"].index(0.2)
    rows = []
    for row in grid["rows"]:
        text = f"{place}gain ratio {row['ratio']:.2f}, t = 0.2"
        rows.append(tested(GAP, text, row["predicted"][at], row["gaps"][at]))
        if "law" in row:
            rows.append(
                compared(GAP, f"{text}, phase law of the closed forms", row["law"][at], row["gaps"][at])
            )
    right = total = 0
    for row in grid["rows"]:
        for law, gap in zip(row["predicted"], row["gaps"], strict=True):
            error = (gap - law).std(ddof=1) / np.sqrt(len(gap))
            if abs(law.mean()) > 3 * error:  # a cell nearer to the lines may fall on either side by chance
                total += 1
                right += int(np.sign(gap.mean()) == np.sign(law.mean()))
    rows.append(
        counted(
            "cells on the predicted side",
            f"{place}further than 3 standard errors from the lines",
            total,
            right,
        )
    )
    return rows


def sample_rows(task: Task, got: dict[int, dict[str, Array]]) -> list[Row]:
    """Means over data: z where the prediction is exact, none where it is a leading order."""
    rows = []
    for n, part in got.items():
        for method in METHODS:
            for side, name in (("in", "E_i"), ("out", "E_o")):
                if f"{method}.{side}.mean" in part:
                    row = compared if method == "LoRA" else tested
                    text = f"n = {n}" + (", leading order" if method == "LoRA" else "")
                    rows.append(
                        row(
                            f"{name}({method})", text, part[f"{method}.{side}.mean"], part[f"{method}.{side}"]
                        )
                    )
    return rows


def descended_rows(run: Run, n: int, got: dict[str, Array]) -> list[Row]:
    """Risks of the closed form on the samples and of gradient descent on the same samples."""
    text = f"n = {n}, {run.steps[-1]} steps on the same samples"
    return [
        compared(f"{name}({method})", text, got[f"{method}.{side}"], got[f"{method}.{side}.trained"])
        for method in METHODS
        for side, name in (("in", "E_i"), ("out", "E_o"))
    ]


def start_rows(run: Run, starts: dict[str, dict[str, Array]]) -> list[Row]:
    """How far each start of LoRA ends from the closed form."""
    return [
        compared(
            "excess of E_i(LoRA)",
            f"{how} start, {run.steps[-1]} steps",
            0.0,
            part["LoRA.curve"][:, -1] - part["LoRA.in"],
        )
        for how, part in starts.items()
    ]


def least_norm_rows(run: Run) -> list[Row]:
    """Whether gradient descent finds the least-norm change where H and A are rank deficient (lemma_f9_gd)."""
    task = Task(widths=(16, 8, 16, 16, 8, 16), tuned=3)
    rows = []
    for how in descent.STARTS:
        few = replace(run, seeds=max(2, run.seeds // 4), start=how)
        got = ood_sections.compute(ood_sections.change_of_layer, few, task, 600)
        text = f"{how} start, rank(H) = rank(A) = 8 of 16"
        rows.append(compared("distance of LoRA's change from the least-norm one", text, 0.0, got["distance"]))
        rows.append(compared("the same, of the network's map", text, 0.0, got["effect"]))
    return rows


def sweep_values(task: Task) -> dict[str, list[int]]:
    """Ranks of the residual and numbers of channels at which the bounds are evaluated."""
    top = min(task.widths)
    ranks = sorted({min(rank, top) for rank in (1, 2, task.rank, 2 * task.rank, 3 * task.rank, top)})
    channels = sorted({max(1, task.m * i // 8) for i in range(1, 9)})
    return {"residual_rank": ranks, "channels": channels}


def sweep(run: Run, task: Task, name: str, values: list[int]) -> dict[int, dict[str, Array]]:
    """Closed forms and bounds along one field of the task; the channels against a residual of rank 2 r."""
    base = task if name == "residual_rank" else phase_task(task)
    small = replace(run, seeds=max(2, run.seeds // 4))
    first = 40_000 if name == "residual_rank" else 50_000
    base = replace(base, on_selected=-1.0)
    return {
        v: ood_sections.compute(ood_sections.closed, small, replace(base, **{name: v}), first + v)
        for v in values
    }


def bound_table(everything: dict[str, dict[str, Array]]) -> list[dict[str, Any]]:
    """For each bound over all tasks: mean value and limit, decimal orders between them, how often it is broken."""
    merged: dict[str, list[Array]] = {}
    for got in everything.values():
        for name, pair in got.items():
            if name.startswith("bound"):
                merged.setdefault(name, []).append(pair)
    table = []
    for name, pairs in merged.items():
        value, limit = np.concatenate(pairs).T
        upper = name.startswith("bound.")
        claim, form = name.split(".", 1)[1].split("|", 1)
        broken = (
            value > limit + TOLERANCE * (1 + np.abs(limit))
            if upper
            else value < limit - TOLERANCE * (1 + np.abs(limit))
        )
        compare = (value > TOLERANCE) & (limit > TOLERANCE)
        orders = np.log10(limit[compare] / value[compare]) * (1 if upper else -1)
        table.append(
            {
                "claim": claim,
                "form": form,
                "side": "upper" if upper else "lower",
                "tasks": len(value),
                "broken": int(broken.sum()),
                "comparable": int(compare.sum()),
                "orders_median": number(np.median(orders)) if len(orders) else None,
                "orders_least": number(orders.min()) if len(orders) else None,
                "mean_value": number(value.mean()),
                "mean_bound": number(limit.mean()),
            }
        )
    return table


def bound_rows(table: list[dict[str, Any]]) -> list[Row]:
    """The bounds as rows: decimal orders of slack, and in how many tasks it does not hold."""
    rows = []
    for b in table:
        slack = (
            f"{b['orders_median']:.2f} decimal orders"
            if b["orders_median"] is not None
            else "never comparable"
        )
        text = f"{b['side']} bound, {slack}; broken in {b['broken']} of {b['tasks']}"
        rows.append(compared(f"{b['claim']}, {b['form']}", text, b["mean_bound"], b["mean_value"]))
    return rows


def headline(rows: list[Row], task: Task, got: dict[str, Array]) -> str:
    """What came out, in a sentence made from the numbers."""
    tests = sum(row["z"] is not None for row in rows)
    told = [row for row in rows if row["quantity"] == TOLD]
    words = ""
    if any(row["predicted"] for row in told):
        right, total = sum(r["simulated"] for r in told), sum(r["predicted"] for r in told)
        words = f"Theory named the better of S2FT and LoRA out of distribution in {right} of {total} trained tasks; "
    return (
        f"{words}{tests} means that theory predicts exactly lie within {worst_z(rows):.1f} standard errors."
    )


def notes() -> list[str]:
    """What a reader must know to judge the numbers."""
    return [
        "z is the mean of (simulated - predicted) over seeds in standard errors; rows without z compare numbers in "
        "which nothing is left to chance, or a leading order in 1/n.",
        "The prediction with z for E_o(S2FT) - E_o(LoRA) takes the gain and movement of the trained fits and is exact "
        "however long they were trained; for closed forms it is the phase law. Its z is the same for every t on the "
        "same networks; each row has networks of its own.",
        "Gradient descent is plain, with a step size taken from the data's curvature; what it has not reached after "
        "its last step shows as the difference of simulated and predicted in the rows without z.",
        "A broken bound is a hint, not a verdict: verdicts are the claims' records, with exact instances.",
    ]
