"""Small edits of the input: does PEFT lose more than full tuning, as its Theorem 4 is said to imply?

The trained models of `ood_forgetting` answer the same test texts clean, with typos, with synonyms and with a sentence
beside the point. They are frozen: of frozen models the theory fixes no sign (`peft_vs_fft/thm_4_frozen`).
"""

from __future__ import annotations

import numpy as np

from llm_experiments.experiments.lab import Lab
from llm_experiments.experiments.ood_forgetting import METHODS, main_trial
from llm_experiments.experiments.row import Design, Prediction, Row, Sheet
from llm_experiments.experiments.statistics import Contrast, contrast, shown
from llm_experiments.experiments.trial import Trial

AUDIT = [["run", "robustness", "--tier", "cpu", "--jobs", "1"]]
AUDIT_SECONDS = 1400  # with every training that it shares with other rows
EDITS = ("typos", "synonyms", "distractors")
PAPER = "PEFT against full fine-tuning, Table 3"
APPLIED = "Theorem 4 as the paper applies it to frozen models"

PREDICTIONS = (
    Prediction("bite", "the edits raise the loss (otherwise nothing can be compared)", "precondition", +1,
               about="loss, edited - clean, full tuning"),
    Prediction("clean", "on clean text LoRA is at least as good as full tuning", PAPER, +1,
               about="loss on clean text, full - LoRA"),
    Prediction("lora", "LoRA loses more by the edits than full tuning", f"{PAPER}; {APPLIED}", +1,
               ("peft_vs_fft/thm_4_frozen",), about="rise of the loss, LoRA - full"),
    Prediction("s2ft", "S2FT loses more by the edits than full tuning", APPLIED, +1,
               ("peft_vs_fft/thm_4_frozen",), about="rise of the loss, S2FT - full"),
    Prediction("spft", "unstructured sparse tuning loses more by the edits than full tuning", APPLIED,
               +1, ("peft_vs_fft/thm_4_frozen",), about="rise of the loss, SpFT - full"),
    Prediction("sign", "for frozen models no sign follows: over kinds of edits and methods both signs occur",
               "peft_vs_fft/thm_4_frozen", 0, ("peft_vs_fft/thm_4_frozen",)),
)  # fmt: skip


def run(lab: Lab, sheet: Sheet) -> None:
    """Edits the test set of the trained models and compares rises of the loss, paired by seed and text."""
    seeds = sheet.design.seeds
    lab.choose_rates("text", METHODS)
    trials = {m: [text_trial(lab, m, seed) for seed in range(seeds)] for m in METHODS}
    found = {m: lab.results(trials[m], m) for m in METHODS}
    probes = {m: lab.probes(trials[m], "edits") for m in METHODS}
    losses = {m: _each(trials[m]) for m in METHODS}

    sheet.score("bite", _contrast(_edited(losses["full"]), losses["full"]["clean"]))
    sheet.score("clean", _contrast(losses["full"]["clean"], losses["lora"]["clean"]))
    rises = {m: _edited(losses[m]) - losses[m]["clean"] for m in METHODS}
    for name, method in (("lora", "lora"), ("s2ft", "s2ft_r"), ("spft", "spft")):
        sheet.score(name, _contrast(rises[method], rises["full"]))
    signs = {
        float(
            np.sign((losses[m][e] - losses[m]["clean"] - losses["full"][e] + losses["full"]["clean"]).mean())
        )
        for m in METHODS[1:]
        for e in EDITS
    }
    sheet.fact(
        "sign", len(signs - {0.0}) == 2, f"signs of the nine mean differences: {len(signs - {0.0})} kinds"
    )

    rows = []
    for m in METHODS:
        row = {
            "method": m,
            "training loss": shown([r.measure("train", lab.bed("text").loss) for r in found[m]]),
        }
        for name in ("clean", *EDITS):
            row[f"accuracy {name}"] = shown([found[name]["accuracy"] for found in probes[m]])
        for name in EDITS:
            row[f"rise of loss, {name}"] = shown(list((losses[m][name] - losses[m]["clean"]).mean(axis=1)))
        rows.append(row)
    sheet.table("Edited test texts (mean ± 95% over seeds)", rows)
    sheet.figures.append(_figure(losses))
    sheet.note("A model that has learned less has less to lose: read the rises beside the training losses.")
    first = probes["full"][0]
    for name in EDITS:
        sheet.note(f"{name}: {first[name]['n']} edits a text, {first[name]['untouched']} texts could not take any, all "
                   f"edits have the hash {first[name]['sha256'][:16]}.")  # fmt: skip


def text_trial(lab: Lab, method: str, seed: int) -> Trial:
    """The training whose model is disturbed: that of the pool where the main task is text."""
    if lab.bed("text") == lab.bed("main"):
        return main_trial(lab, method, seed)
    return lab.trial("text", method, keep="state", seed=seed)


def _each(trials: list[Trial]) -> dict[str, np.ndarray]:
    """Losses (seeds x items) by attack."""
    found = [dict(np.load(trial.folder / "edits.npz")) for trial in trials]
    return {name: np.stack([f[f"{name}_loss"] for f in found]) for name in ("clean", *EDITS)}


def _edited(losses: dict[str, np.ndarray]) -> np.ndarray:
    return np.mean([losses[name] for name in EDITS], axis=0)


def _contrast(first: np.ndarray, second: np.ndarray) -> Contrast:
    return contrast(list(first.mean(axis=1)), list(second.mean(axis=1)), (first, second))


def _figure(losses: dict[str, dict[str, np.ndarray]]) -> dict:
    series = []
    for place, (method, found) in enumerate(losses.items()):
        x, y, error = [], [], []
        for number, name in enumerate(EDITS):
            rise = (found[name] - found["clean"]).mean(axis=1)
            x.append(number + 0.12 * (place - 1.5))
            y.append(float(rise.mean()))
            error.append(float(rise.std(ddof=1) / np.sqrt(len(rise))) if len(rise) > 1 else 0.0)
        series.append({"label": method, "x": x, "y": y, "stderr": error})
    return {
        "name": "rise",
        "title": "What edits cost each method",
        "kind": "scatter",
        "caption": f"From left to right: {', '.join(EDITS)}. Mean over seeds, two standard errors.",
        "x": {"label": "kind of edit"},
        "y": {"label": "rise of the loss (nats)"},
        "series": series,
        "lines": [{"y": 0.0, "label": "no loss"}],
    }


ROW = Row(
    name="robustness",
    source="PEFT against full fine-tuning, Tables 3-5",
    question="Do small edits of the text cost PEFT more than full tuning?",
    predictions=PREDICTIONS,
    designs={
        "smoke": Design(METHODS, 2, 8),
        "cpu": Design(METHODS, 6, 250, "trainings of ood_forgetting; 400 texts, four versions of each"),
        "gpu": Design(METHODS, 5, 900, "400 texts, four versions of each"),
    },
    run=run,
    reported=(
        {"what": "LoRA - full, clean (RoBERTa-base, GLUE)", "value": "+1.3"},
        {"what": "LoRA - full, adversarial (RoBERTa-base, AdvGLUE)", "value": "-5.69"},
    ),
)  # fmt: skip
