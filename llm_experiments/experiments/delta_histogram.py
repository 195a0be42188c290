"""How large is the change of each method, entry by entry and as an operator, and does its norm say what it does?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from llm_experiments.experiments.intruders import correlation
from llm_experiments.experiments.lab import Lab
from llm_experiments.experiments.ood_forgetting import main_trial
from llm_experiments.experiments.row import Design, Prediction, Row, Sheet
from llm_experiments.experiments.statistics import contrast, shown
from llm_experiments.experiments.tiers import RATE_FACTORS
from llm_experiments.experiments.trial import Result

AUDIT = [["run", "delta_histogram", "--tier", "cpu", "--jobs", "1"]]
AUDIT_SECONDS = 1300  # with every training that it shares with other rows
METHODS = ("full", "lora", "spft", "s2ft_r")
PARAMETER_EFFICIENT = METHODS[1:]
PAPER = "PEFT against full fine-tuning"

PREDICTIONS = (
    *(
        Prediction(f"narrow_{method}", f"the entries of the change are smaller for {method} than for full tuning",
                   f"{PAPER}, Figure 1 and Theorem 2", +1, about=f"root mean square of the change, full - {method}")
        for method in PARAMETER_EFFICIENT
    ),
    Prediction("norm_lora", "few parameters bound the norm: LoRA's change has the smaller spectral norm",
               f"{PAPER}, Theorem 2", +1, about="mean spectral norm of the change over that of the weight, full - LoRA"),
    Prediction("no_separation", "a change of low rank may have any norm: one method with few parameters, at least, has in "
               "every seed a spectral norm no smaller than full tuning's", "peft_vs_fft/thm_2_separation", 0,
               ("peft_vs_fft/thm_2_separation",)),
    Prediction("rank", "what is small about LoRA's change is its rank: no matrix changes by more than rank r, while full "
               "tuning changes every matrix by more", "peft_vs_fft/thm_1_submanifold, thm_1_null", 0,
               ("peft_vs_fft/thm_1_submanifold", "peft_vs_fft/thm_1_null")),
    Prediction("movement", "methods with larger norms of the change move the model's answers on far text more",
               f"{PAPER}, Theorem 2", +1, ("peft_vs_fft/thm_2_literal",),
               about="rank correlation over methods of the norm with the drift of far text"),
)  # fmt: skip


def run(lab: Lab, sheet: Sheet) -> None:
    """Norms, ranks and entries of the changes in the main pool."""
    lab.choose_rates("main", METHODS)
    bed, seeds = lab.bed(), range(sheet.design.seeds)
    trials = {m: [main_trial(lab, m, seed) for seed in seeds] for m in METHODS}
    found = {m: lab.results(rows, m) for m, rows in trials.items()}
    for method in PARAMETER_EFFICIENT:
        sheet.score(
            f"narrow_{method}", contrast([size(r) for r in found["full"]], [size(r) for r in found[method]])
        )
    norms = {m: [mean(r, "spectral_ratio") for r in rows] for m, rows in found.items()}
    sheet.score("norm_lora", contrast(norms["full"], norms["lora"]))
    above = [
        m for m in PARAMETER_EFFICIENT if all(a >= b for a, b in zip(norms[m], norms["full"], strict=True))
    ]
    sheet.fact("no_separation", bool(above), f"in every seed for {', '.join(above) or 'none'}")
    most = max(max(values(r, "numerical_rank")) for r in found["lora"])
    least = min(min(values(r, "numerical_rank")) for r in found["full"])
    rank = largest_rank(found["lora"][0])
    sheet.fact(
        "rank", most <= rank < least, f"LoRA changes by up to rank {most}, r = {rank}; full from {least} on"
    )
    sheet.score(
        "movement",
        contrast(
            [
                correlation([norms[m][s] for m in METHODS], [drift(found[m][s]) for m in METHODS])
                for s in seeds
            ],
            [0.0] * len(seeds),
        ),
    )

    histograms = lab.probes([trials[m][0] for m in METHODS], "histogram")
    rows = []
    for (method, results), entries in zip(found.items(), histograms, strict=True):
        rows.append(
            {
                "method": method,
                "trains": results[0].body["method"]["parameters"]["trainable"],
                "root mean square, 1e-4": shown([1e4 * size(r) for r in results], 2),
                "entries changed": f"{1 - entries['zero']:.1%}",
                "kurtosis": f"{entries['kurtosis']:.0f}",
                "|dW| / |W0|, spectral": shown(norms[method], 3),
                "|dW| / |W0|, Frobenius": shown([mean(r, "frobenius_ratio") for r in results], 3),
                "stable rank": shown([mean(r, "stable_rank", changed=True) for r in results], 1),
                "directions with 90%": shown([mean(r, "rank90", changed=True) for r in results], 0),
                "drift of far text": shown([drift(r) for r in results], 4),
                "training loss": shown([r.measure("train", bed.loss) for r in results]),
            }
        )
    sheet.table(
        "The change of the tuned matrices (mean ± 95% over seeds; entries and kurtosis of seed 0)", rows
    )
    _every_rate(lab, sheet, found)
    sheet.figures.append(_histogram(histograms))
    sheet.figures.append(_movement(found, norms))
    sheet.note(
        "The paper does not say whether its histogram is of products or of factors; here it is of the weights' change."
    )
    sheet.note(
        "A step of AdamW moves every trained number by about the learning rate, and methods that train few numbers have "
        "larger rates; the table by rate shows sizes beside training losses, so that methods can be compared at equal loss."
    )
    sheet.note(
        "Sizes depend on the learning rate, chosen for each method by validation loss, and on how far it trained; see the "
        "training loss."
    )


def _every_rate(lab: Lab, sheet: Sheet, found: dict[str, list[Result]]) -> None:
    """Sizes at every rate of the grid: is the order of methods an order of rates?"""
    bed, rows, series = lab.bed(), [], []
    sizes: dict[str, list[tuple[float, float]]] = {}
    for method in METHODS:
        default, points = bed.settings(method).lr, []
        for factor in RATE_FACTORS:
            seeds = range(sheet.design.options["sweep_seeds"])
            trials = [main_trial(lab, method, seed, lr=default * factor) for seed in seeds]
            results = lab.results(trials, f"{method} at {factor:g} x")
            if any(r.failure for r in results):
                continue
            losses = [r.measure("train", bed.loss) for r in results]
            norms = [mean(r, "spectral_ratio") for r in results]
            points.append((float(np.mean(losses)), float(np.mean(norms))))
            sizes.setdefault(method, []).append((points[-1][0], float(np.mean([size(r) for r in results]))))
            rows.append(
                {
                    "method": method,
                    "learning rate": f"{default * factor:g}",
                    "training loss": shown(losses),
                    "root mean square, 1e-4": shown([1e4 * size(r) for r in results], 2),
                    "|dW| / |W0|, spectral": shown(norms, 3),
                }
            )
        points.sort()
        series.append({"label": method, "x": [x for x, _ in points], "y": [y for _, y in points]})
    target = float(np.mean([r.measure("train", bed.loss) for r in found["full"]]))
    near = {m: min(each, key=lambda point: abs(point[0] - target))[1] for m, each in sizes.items()}
    larger = [m for m in PARAMETER_EFFICIENT if m in near and near[m] > near["full"]]
    sheet.summary = (
        "At the rate of each method whose training loss is nearest to full tuning's, the entries of the change are larger "
        f"than full tuning's for {', '.join(larger) or 'none'}."
    )
    sheet.table("Every rate of the grid (mean ± 95% over seeds)", rows)
    sheet.figures.append(
        {
            "name": "rates",
            "title": "What learning costs in norm, at every rate of the grid",
            "kind": "scatter",
            "caption": "Each point is a method at one rate of its grid at the end of training, mean over seeds.",
            "x": {"label": "training loss (nats)"},
            "y": {"label": "spectral norm of the change over that of the weight", "scale": "log"},
            "series": series,
        }
    )


def values(result: Result, name: str, *, changed: bool = False) -> list[float]:
    """A number of the spectra, one a matrix; `changed` leaves matrices out that did not change."""
    rows = result.probe("spectra").values()
    return [row[name] for row in rows if not changed or row["frobenius"] > 0]


def mean(result: Result, name: str, *, changed: bool = False) -> float:
    """Mean over matrices."""
    return float(np.mean(values(result, name, changed=changed)))


def size(result: Result) -> float:
    """Root mean square of the change over all parameters of the tuned blocks."""
    energy = sum(f**2 for f in values(result, "frobenius"))
    return (energy / result.body["method"]["parameters"]["blocks"]) ** 0.5


def largest_rank(result: Result) -> int:
    """The largest rank that LoRA has in a layer."""
    settings = result.body["method"]["parameters"]["settings"]
    return max([settings["r"], *settings.get("rank_pattern", {}).values()])


def drift(result: Result) -> float:
    """How far the model's states, or its losses, on far text moved."""
    far = result.probe("far")
    return far["drift"] if "drift" in far else far["loss"] - far["base"]["loss"]


def _histogram(histograms: Sequence[dict]) -> dict:
    series = []
    for method, entries in zip(METHODS, histograms, strict=True):
        edges = entries["edges"]
        centres = [(a + b) / 2 for a, b in zip(edges, edges[1:], strict=False)]
        width = edges[1] - edges[0]
        series.append({"label": method, "x": centres, "y": [share / width for share in entries["shares"]]})
    return {
        "name": "entries",
        "title": "Sizes of the entries of the change",
        "kind": "line",
        "caption": "Seed 0, all tuned matrices; the area below a curve is the share of entries that changed.",
        "x": {"label": "log10 of the size of an entry"},
        "y": {"label": "share of entries a decade"},
        "series": series,
    }


def _movement(found: dict[str, list[Result]], norms: dict[str, list[float]]) -> dict:
    return {
        "name": "movement",
        "title": "Norm of the change and movement of far text",
        "kind": "scatter",
        "caption": "One point a training.",
        "x": {"label": "spectral norm of the change over that of the weight, mean over matrices"},
        "y": {"label": "drift of far text"},
        "series": [{"label": m, "x": norms[m], "y": [drift(r) for r in rows]} for m, rows in found.items()],
    }


ROW = Row(
    name="delta_histogram",
    source="PEFT against full fine-tuning, Figure 1",
    question="How large is the change of each method, entry by entry and as an operator?",
    predictions=PREDICTIONS,
    designs={
        "smoke": Design(METHODS, 2, 6, "the trainings of ood_forgetting", {"sweep_seeds": 1}),
        "cpu": Design(METHODS, 6, 20, "the trainings of ood_forgetting", {"sweep_seeds": 2}),
        "gpu": Design(METHODS, 5, 60, "the trainings of ood_forgetting", {"sweep_seeds": 2}),
    },
    run=run,
    reported=(
        {"what": "standard deviation of the incremental parameters", "full": "0.0268", "LoRA": "0.0117"},
    ),
)
