"""The figures of the simulation of out-of-distribution risk, as data that `reports.figures` draws."""

from __future__ import annotations

from typing import Any

import numpy as np

from sims.ood_sections import CLEAR, METHODS, Run
from sims.present import number, numbers

Array = np.ndarray


def phase_figure(grid: dict[str, Any]) -> dict[str, Any]:
    """The phase diagram with the two predicted lines."""
    return {
        "name": "phase",
        "title": "Below t = 1/2 the method that learns less wins, above it the other",
        "kind": "heatmap",
        "caption": (
            "Mean of E_o(S2FT) - E_o(LoRA) after gradient descent; blue: S2FT is better. The phase law says that the "
            "sign changes exactly on the two lines, at t = 1/2 and at equal gains."
        ),
        "x": {"label": "shift alignment t", "values": numbers(grid["alignments"])},
        "y": {
            "label": "gain of S2FT / gain of LoRA",
            "values": numbers([row["ratio"] for row in grid["rows"]]),
        },
        "z": {
            "label": "E_o(S2FT) - E_o(LoRA), in units of the pretrained risk",
            "scale": "diverging",
            "values": [numbers([gap.mean() for gap in row["gaps"]]) for row in grid["rows"]],
        },
        "series": tie_curve(grid),
        "lines": [{"x": 0.5, "label": "t = 1/2"}, {"y": 1.0, "label": "equal gains"}],
    }


def tie_curve(grid: dict[str, Any]) -> list[dict[str, Any]]:
    """Where each row's tie is predicted, for fits that were not trained to the end."""
    low, high = grid["alignments"][0], grid["alignments"][-1]
    inside = [row for row in grid["rows"] if "tie" in row and low <= row["tie"] <= high]
    x, y = numbers([row["tie"] for row in inside]), numbers([row["ratio"] for row in inside])
    return [{"label": "tie of the trained fits", "role": "predicted", "x": x, "y": y}] if inside else []


def crossover_figure(got: dict[str, Array]) -> list[dict[str, Any]]:
    """Each task's own alignment at which the two methods tie: predicted and observed."""
    with np.errstate(divide="ignore", invalid="ignore"):  # equal gains: no tie, no point in the figure
        observed = got["gap.0"] / (got["gap.0"] - got["gap.1"])
    clear = np.flatnonzero(np.abs(got["S2FT.gain"] - got["LoRA.gain"]) > CLEAR)
    if not len(clear):
        return []
    shown = clear[np.argsort(got["crossover"][clear])][:: max(1, len(clear) // 200)]
    x = numbers(got["crossover"][shown])
    return [
        {
            "name": "crossover",
            "title": "The alignment at which LoRA starts to win, predicted for each task",
            "kind": "scatter",
            "x": {"label": "predicted t of the tie"},
            "y": {"label": "observed t of the tie"},
            "series": [
                {"label": "trained networks", "x": x, "y": numbers(observed[shown])},
                {"label": "exact prediction", "role": "predicted", "x": [x[0], x[-1]], "y": [x[0], x[-1]]},
            ],
            "lines": [{"x": 0.5, "label": "its mean over shifts, 1/2"}],
        }
    ]


def sample_figure(got: dict[int, dict[str, Array]]) -> dict[str, Any]:
    """Risk against the number of samples."""
    series = []
    for method in METHODS:
        mean = [part[f"{method}.in"].mean() for part in got.values()]
        error = [
            part[f"{method}.in"].std(ddof=1) / np.sqrt(len(part[f"{method}.in"])) for part in got.values()
        ]
        series.append({"label": method, "x": list(got), "y": numbers(mean), "stderr": numbers(error)})
        if all(f"{method}.in.mean" in part for part in got.values()):
            y = numbers([part[f"{method}.in.mean"].mean() for part in got.values()])
            series.append({"label": method, "role": "predicted", "x": list(got), "y": y})
    return {
        "name": "samples",
        "title": "What n samples cost each method",
        "kind": "line",
        "x": {"label": "training samples n", "scale": "log"},
        "y": {"label": "in-distribution risk / pretrained risk", "scale": "log"},
        "series": series,
        "lines": [{"y": 1.0, "label": "pretrained"}],
    }


def curve_figure(run: Run, starts: dict[str, dict[str, Array]]) -> dict[str, Any]:
    """Training curves, and the closed forms that they should reach."""
    main = starts[run.start]
    steps = list(run.steps)
    series = []
    for method in METHODS:
        series.append({"label": method, "x": steps, "y": numbers(main[f"{method}.curve"].mean(axis=0) + 0.0)})
        end = number(max(main[f"{method}.in"].mean(), 0.0))
        series.append({"label": method, "role": "predicted", "x": [steps[0], steps[-1]], "y": [end, end]})
    for how, part in starts.items():
        if how != run.start:
            series.append(
                {"label": f"LoRA, {how} start", "x": steps, "y": numbers(part["LoRA.curve"].mean(axis=0))}
            )
    return {
        "name": "training",
        "title": "Gradient descent on its way to the closed forms",
        "kind": "line",
        "x": {"label": "gradient steps", "scale": "log"},
        "y": {"label": "in-distribution risk / pretrained risk"},
        "series": series,
    }


def sweep_figure(name: str, points: dict[int, dict[str, Array]]) -> dict[str, Any]:
    """What a bound says along the sweep, beside what it bounds."""
    x = list(points)
    if name == "residual_rank":
        title = "LoRA's bias, the printed bound on it, and the repaired one"
        label, shown = (
            "rank R of what the layer can still learn",
            ["thm_f10_bias|printed (11)", "thm_f10_bias|repaired"],
        )
    else:
        title = "The biases of S2FT and LoRA against the number of tuned channels"
        label, shown = (
            "channels s that S2FT tunes (R = 2 r)",
            ["lemma_f14_right|printed", "lemma_f14_right|repaired"],
        )
    methods = ["LoRA"] if name == "residual_rank" else ["LoRA", "S2FT"]
    series: list[dict[str, Any]] = [
        {"label": f"E_i({m})", "x": x, "y": numbers([got[f"{m}.in"].mean() for got in points.values()])}
        for m in methods
    ]
    for bound in shown:
        y = numbers([got[f"bound.{bound}"][:, 1].mean() for got in points.values()])
        series.append({"label": bound.replace("|", ", "), "role": "bound", "x": x, "y": y})
    for curve in series:  # a risk of 0 has no place on a logarithmic axis
        curve["y"] = [v if v else None for v in curve["y"]]
    axis = {"label": "in-distribution risk / pretrained risk", "scale": "log"}
    return {
        "name": f"bounds-{name}",
        "title": title,
        "kind": "line",
        "x": {"label": label},
        "y": axis,
        "series": series,
    }
