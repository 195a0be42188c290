"""Does the task say beforehand how far PEFT stays behind full tuning?

An open question of the paper: the more directions a task's gradient has, the more a low rank should lose. Three tasks
are few, so a correlation is out of reach here; what can be seen is the order, and how much of each spectrum is noise.
"""

from __future__ import annotations

import numpy as np

from llm_experiments.experiments.lab import Lab
from llm_experiments.experiments.ood_forgetting import item_losses
from llm_experiments.experiments.row import Design, Prediction, Row, Sheet
from llm_experiments.experiments.statistics import contrast, shown
from llm_experiments.experiments.trial import Trial
from llm_experiments.models import cache_folder
from llm_experiments.probes.gradients import gather, gradient_spectrum
from llm_experiments.train import Run

AUDIT = [["run", "task_complexity", "--tier", "cpu", "--jobs", "1"]]
AUDIT_SECONDS = 900  # with every training that it shares with other rows
METHODS = ("full", "lora", "s2ft_r")
PAPER = "PEFT against full fine-tuning, open question 1"

PREDICTIONS = (
    Prediction("order", "tasks ordered by the gradient's directions above noise are ordered by the gap of LoRA to full "
               "tuning", f"{PAPER}; peft_vs_fft/thm_3_critical_rank", 0, ("peft_vs_fft/thm_3_critical_rank",)),
    Prediction("gap", "LoRA ends behind full tuning in training loss, averaged over the tasks",
               "peft_vs_fft/thm_1_function_space: its functions are a strict subset", +1,
               ("peft_vs_fft/thm_1_function_space",),
               about="training loss, LoRA - full, mean of tasks"),
    Prediction("signal", "the gradient of every task has directions above the noise of half splits", "control", 0),
)  # fmt: skip


def run(lab: Lab, sheet: Sheet) -> None:
    """Measures each task's gradient before training, then the gap after training."""
    methods = sheet.design.methods
    seeds, texts = sheet.design.seeds, sheet.design.options["texts"]
    beds = {"film reviews": ("text", {}), "news topics": ("topics", {"train_size": sheet.design.options["topics"]}),
            "sums (decoder)": ("decoder", {})}  # fmt: skip
    rows, gaps, told, signal = [], {}, {}, []
    for task, (bed, changes) in beds.items():
        lab.choose_rates(bed, methods, **changes)
        found = {}
        for m in methods:
            trials = [_trial(lab, bed, m, seed, changes) for seed in range(seeds)]
            found[m] = lab.results(trials, f"{task}, {m}")
        loss = lab.bed(bed).loss
        gaps[task] = item_losses(found["lora"], "train"), item_losses(found["full"], "train")
        spectra = _spectra(lab, bed, changes, texts)
        told[task] = float(np.mean([s.above["halves"] for s in spectra]))
        signal.append(told[task] > 0)
        rows.append({
            "task": task,
            "directions above half-split noise, mean of matrices": f"{told[task]:.1f}",
            "above shuffled labels": f"{np.mean([s.above['shuffled'] for s in spectra]):.1f}",
            "90% of the energy, noise included": f"{np.mean([s.rank_90 for s in spectra]):.0f}",
            **{f"training loss, {m}": shown([r.measure("train", loss) for r in found[m]]) for m in methods},
            **{f"test loss, {m}": shown([r.measure("test", loss) for r in found[m]]) for m in methods},
        })  # fmt: skip
    differences = {
        t: contrast(list(a.mean(axis=1)), list(b.mean(axis=1)), (a, b)) for t, (a, b) in gaps.items()
    }
    means = [
        np.mean([side.mean(axis=1) for side in sides], axis=0) for sides in zip(*gaps.values(), strict=True)
    ]
    sheet.score("gap", contrast(list(means[0]), list(means[1])))
    ordered = sorted(gaps, key=lambda t: told[t])
    clear = all(
        abs(differences[a].mean - differences[b].mean) > differences[a].half + differences[b].half
        for a, b in zip(ordered, ordered[1:], strict=False)
    )
    follows = [differences[t].mean for t in ordered] == sorted(d.mean for d in differences.values())
    said = "; ".join(f"{t}: {told[t]:.1f} directions, gap {differences[t].mean:+.3f}" for t in ordered)
    sheet.fact(
        "order", follows if clear else None, said if clear else f"{said}; gaps too close to be ordered"
    )
    sheet.fact("signal", all(signal), f"{sum(signal)} of {len(signal)} tasks have directions above noise")
    sheet.table("Tasks (mean ± 95% over seeds)", rows)
    sheet.figures.append({
        "name": "order",
        "title": "Directions of the task's gradient against PEFT's gap",
        "kind": "scatter",
        "x": {"label": "directions above noise, mean of matrices"},
        "y": {"label": "training loss, LoRA - full (nats)"},
        "series": [
            {"label": t, "x": [told[t]], "y": [differences[t].mean],
             "stderr": [0.0 if differences[t].seeds is None else differences[t].seeds / 2]}
            for t in gaps
        ],
        "lines": [{"y": 0.0, "label": "no gap"}],
    })  # fmt: skip
    sheet.note("Three tasks, on two models: an order, not a correlation.")


def _trial(lab: Lab, bed: str, method: str, seed: int, changes: dict) -> Trial:
    if lab.bed(bed) == lab.bed("main"):
        from llm_experiments.experiments.ood_forgetting import main_trial

        return main_trial(lab, method, seed)
    return lab.trial(bed, method, seed=seed, **changes)


def _spectra(lab: Lab, bed: str, changes: dict, texts: int) -> list:
    settings = lab.bed(bed).settings("full", splits="validation", **{**changes, "eval_items": 1})
    layers = gather(Run(settings, folder=cache_folder("runs")).prepare(), examples=texts)
    return [gradient_spectrum(layer) for layer in layers.values()]


ROW = Row(
    name="task_complexity",
    source=PAPER,
    question="Does the effective rank of the task's whitened gradient predict the gap between PEFT and full tuning?",
    predictions=PREDICTIONS,
    designs={
        "smoke": Design(METHODS, 1, 10, options={"texts": 12, "topics": 2}),
        "cpu": Design(METHODS[:2], 2, 420, "film reviews, news topics, sums", {"texts": 320, "topics": 50}),
        "gpu": Design(METHODS, 3, 900, "film reviews, news topics, sums", {"texts": 640, "topics": 100}),
    },
    run=run,
)
