"""Are the minima of full tuning and of chains sharper, and do sharper minima generalise worse?

Two views: the largest eigenvalue of the Hessian by all tuned matrices (a number, comparable between methods and seeds),
and slices of the loss around the end of each training along directions that all methods share (a picture).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from llm_experiments.experiments.generalization_gap import gap
from llm_experiments.experiments.intruders import correlation
from llm_experiments.experiments.lab import Lab
from llm_experiments.experiments.ood_forgetting import main_trial
from llm_experiments.experiments.row import Design, Prediction, Row, Sheet
from llm_experiments.experiments.statistics import contrast, shown
from llm_experiments.experiments.trial import Result, Trial, restore
from llm_experiments.experiments.variants import edge_note, variant_trial

AUDIT = [["run", "loss_landscape", "--tier", "cpu", "--jobs", "1"]]
AUDIT_SECONDS = 1500  # with every training that it shares with other rows
METHODS = ("full", "lora", "cola", "asym_lora", "rac_lora", "cla", "c3la", "s2ft_r")
PAIRS = {"lora": "cola", "asym_lora": "rac_lora", "cla": "c3la"}  # and its chain
SLICED = ("full", "lora", "s2ft_r", "cla")
PAPER = "LoRA past, present and future"

PREDICTIONS = (
    Prediction("sharp_full", "full tuning ends in a sharper minimum than LoRA", f"{PAPER}, Section 4.2 (i), Figures 1-2",
               +1, about="largest eigenvalue of the Hessian, full - LoRA"),
    *(
        Prediction(f"sharp_{chain}", f"{chain} ends in a sharper minimum than {base}, which it chains",
                   f"{PAPER}, Figure 6", +1, about=f"largest eigenvalue of the Hessian, {chain} - {base}")
        for base, chain in PAIRS.items()
    ),
    Prediction("gap", "methods that end in sharper minima have wider gaps between test and training loss",
               f"Li et al. 2018, as quoted in {PAPER}, Section 4.2 (i)", +1,
               about="rank correlation over methods of the largest eigenvalue with the gap"),
    Prediction("spiky_full", "along directions that all methods share the loss rises most around full tuning's end "
               "(agrees: its mean rise over the slice is the largest of the four)", f"{PAPER}, Figure 1 (d)"),
)  # fmt: skip


def run(lab: Lab, sheet: Sheet) -> None:
    """Curvature on finished trainings, slices of one seed."""
    lab.choose_rates("main", dict.fromkeys((*sheet.design.methods, *SLICED)))
    seeds = range(sheet.design.seeds)
    methods = sheet.design.methods
    trials = {m: [_trial(lab, m, s) for s in seeds] for m in methods}
    found = {m: lab.results(rows, m) for m, rows in trials.items()}
    found = {m: rows for m, rows in found.items() if not any(r.failure for r in rows)}
    probes = iter(lab.probes([t for m in found for t in trials[m]], "curvature"))
    curvature = {m: [next(probes) for _ in seeds] for m in found}
    top = {m: [c["top"] for c in rows] for m, rows in curvature.items()}

    for name, first, second in (
        ("sharp_full", "full", "lora"),
        *((f"sharp_{c}", c, b) for b, c in PAIRS.items()),
    ):
        if first in top and second in top:
            sheet.score(name, contrast(top[first], top[second]))
        else:
            sheet.undecided(name, "not both were trained")
    bed = lab.bed()
    gaps = {m: [gap(r, bed.loss) for r in rows] for m, rows in found.items()}
    sheet.score(
        "gap",
        contrast(
            [correlation([top[m][s] for m in found], [gaps[m][s] for m in found]) for s in seeds],
            [0.0] * len(seeds),
        ),
    )
    sheet.table(
        "Sharpness at the end (mean ± 95% over seeds)",
        [
            {
                "method": m,
                "largest eigenvalue": shown(top[m], 2),
                "eigenvalue within": f"{max(c['residual'] for c in curvature[m]):.2g}",
                "training loss": shown([r.measure("train", bed.loss) for r in found[m]]),
                "gap": shown(gaps[m]),
            }
            for m in found
        ],
    )
    _slices(lab, sheet)
    sheet.figures.append(
        {
            "name": "sharpness",
            "title": "Sharpness and generalization gap",
            "kind": "scatter",
            "caption": "One point a training.",
            "x": {"label": "largest eigenvalue of the Hessian", "scale": "log"},
            "y": {"label": "gap: test less training loss (nats)"},
            "series": [{"label": m, "x": top[m], "y": gaps[m]} for m in found],
        }
    )
    examples = curvature[next(iter(found))][0]["examples"]
    sheet.note(
        f"The Hessian is that of the loss on the first {examples} training examples, by all tuned matrices of the plain "
        "model, the same space for all methods; the value is a lower bound by Lanczos, with its residual."
    )
    sheet.note(
        "Sharpness depends on the training loss that was reached (cross-entropy flattens as it falls) and on the scale of "
        "the weights; it is compared at equal steps."
    )
    sheet.note(edge_note(lab, list(found)))


def _trial(lab: Lab, method: str, seed: int) -> Trial:
    return main_trial(lab, method, seed) if method == "s2ft_r" else variant_trial(lab, method, seed)


def path_trial(lab: Lab, method: str) -> Trial:
    """A training whose weights are kept at each quarter."""
    quarter = max(1, lab.bed().common["steps"] // 4)
    marks = (quarter, 2 * quarter, 3 * quarter)
    return lab.trial(
        "main", method, marks=marks, keep="path", seed=0, splits="train", eval_every=quarter, eval_items=1, final_items=1
    )  # fmt: skip


def _slices(lab: Lab, sheet: Sheet) -> None:
    """Slices around each end along the two principal directions of all paths together."""
    from llm_experiments.probes import landscape
    from llm_experiments.probes.effective import base_weights

    points, limit = sheet.design.options["points"], sheet.design.options["examples"]
    trials = [path_trial(lab, m) for m in SLICED]
    results = lab.results(trials, "paths")
    runs = [restore(trial) for trial in trials]
    start = base_weights(runs[0])
    paths = {m: [start, *snapshots(r)] for m, r in zip(SLICED, results, strict=True)}
    plane = landscape.principal_plane([w for path in paths.values() for w in path[1:]], start)
    around = {
        m: landscape.Plane(plane.names, path[-1], plane.directions, plane.explained)
        for m, path in paths.items()
    }
    traces = {m: around[m].path(path) for m, path in paths.items()}
    xs, ys = landscape.around(np.concatenate(list(traces.values())), points)
    rises: dict[str, float] = {}
    rows = []
    for method, one in zip(SLICED, runs, strict=True):
        found = landscape.grid(around[method], list(xs), list(ys), landscape.run_loss(one, limit=limit))
        centre = landscape.grid(around[method], [0.0], [0.0], landscape.run_loss(one, limit=limit)).loss[0, 0]
        rises[method] = mean_rise(found.loss, float(centre))
        trace = traces[method]
        rows.append(
            {
                "method": method,
                "loss at the end": f"{centre:.3f}",
                "mean rise over the slice": f"{rises[method]:.3f}",
                "length of the path": f"{np.linalg.norm(trace[0, :2]):.2f}",
                "share of the way outside the plane": f"{trace[0, 2]:.0%}",
            }
        )
        sheet.figures.append(_heatmap(method, found, trace, limit))
    sheet.fact(
        "spiky_full",
        rises["full"] >= max(rises.values()),
        "mean rise: " + ", ".join(f"{m} {rise:.3f}" for m, rise in rises.items()) + " nats",
    )
    sheet.table("Slices along common directions (seed 0)", rows)
    first, second = plane.explained
    sheet.note(
        f"The slices share the two principal directions of all paths together, which hold {first:.0%} and {second:.0%} of "
        f"their energy; {points} x {points} points, {limit} training examples. Biases, norms and the head stay as they "
        "ended."
    )


def snapshots(result: Result) -> Sequence[Mapping]:
    """The plain matrices at every mark, the end last."""
    return [result.weights(mark) for mark in range(len(result.marked()))]


def mean_rise(loss: np.ndarray, centre: float) -> float:
    """Mean over a grid of the loss above that at the end; infinite losses are left out."""
    finite = loss[np.isfinite(loss)]
    return float(finite.mean() - centre) if finite.size else float("inf")


def _heatmap(method: str, found: object, trace: np.ndarray, limit: int) -> dict:
    values = [[float(v) if np.isfinite(v) else None for v in row] for row in found.loss]
    return {
        "name": f"slice_{method}",
        "title": f"Loss around the end of training: {method}",
        "kind": "heatmap",
        "caption": "Same directions and same scale for all methods; the line is the path of training, its end at 0, 0.",
        "x": {"label": "first common direction", "values": found.xs.tolist()},
        "y": {"label": "second common direction", "values": found.ys.tolist()},
        "z": {"label": f"training loss (nats, {limit} examples)", "values": values, "scale": "log"},
        "series": [
            {"label": "path", "x": trace[:, 0].tolist(), "y": trace[:, 1].tolist(), "role": "predicted"}
        ],
    }


ROW = Row(
    name="loss_landscape",
    source="LoRA past, present and future, Figures 1, 2, 5-7",
    question="Are the minima of full tuning and of chains sharper, and do sharper minima generalise worse?",
    predictions=PREDICTIONS,
    designs={
        "smoke": Design(("full", "lora", "cola"), 1, 8, "", {"points": 3, "examples": 4}),
        "cpu": Design(
            METHODS, 2, 330, "slices of 15 x 15 points for one seed", {"points": 15, "examples": 32}
        ),
        "gpu": Design(
            METHODS, 3, 1500, "slices of 51 x 51 points for one seed", {"points": 51, "examples": 64}
        ),
    },
    run=run,
)
